import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Operations on a few numbers wait for their threads far longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
