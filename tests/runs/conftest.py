import sys

import pytest


@pytest.fixture(autouse=True)
def _short_elbo(monkeypatch):
    """What is tested here does not depend on how precise the ELBO is."""
    import bnn_symm.diagnostics  # noqa: F401

    monkeypatch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", 60)
