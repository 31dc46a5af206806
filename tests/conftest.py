import pytest
import torch

from bnn_symm.inference import Sampler


@pytest.fixture(autouse=True)
def one_thread():
    """On problems as small as those of the tests, a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Functions whose annotations are checked, as they are here, cannot be compiled: only what is told to tries."""
    monkeypatch.setattr(Sampler, "is_compiled", lambda method: method.compile is True)
