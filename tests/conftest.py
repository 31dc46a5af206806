import hypothesis
import pytest
import torch

from bnn_symm.inference import Sampler

# The assertions of the contract of methods report their values.
pytest.register_assert_rewrite("bnn_symm.testing")

# Scripts that made the fixtures need other software.
collect_ignore_glob = ["**/fixtures/*.py"]

# The same examples in every run: what fails fails for everybody, and again.
hypothesis.settings.register_profile("same_examples", derandomize=True)
hypothesis.settings.load_profile("same_examples")


@pytest.fixture(autouse=True)
def one_thread():
    """On problems as small as those of the tests, a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Functions whose annotations are checked, as they are here, cannot be compiled: only what is
    told to tries."""
    monkeypatch.setattr(Sampler, "is_compiled", lambda method, model: method.compile is True)
