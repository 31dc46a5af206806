from tests.runs.conftest import _short_elbo  # noqa: F401 - the ELBO may be imprecise here too
