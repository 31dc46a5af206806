import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """On problems as small as those of the tests, a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
