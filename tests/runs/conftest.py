import sys

import pytest


@pytest.fixture(autouse=True)
def _short_elbo(monkeypatch):
    """Use a cheap estimate of the ELBO: these tests do not depend on its precision."""
    import bnn_symm.diagnostics  # noqa: F401

    monkeypatch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", 60)
