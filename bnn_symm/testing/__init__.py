"""Test methods, likelihoods and priors, also those from outside the package.

In: a method with short settings, a likelihood with outputs and targets, or a prior. Out: assertions
about what it promises. Reading order: `likelihood_contract`, `prior_contract`,
`settings_round_trip`, `method_contract`, `exact_targets`, `interruption`.

Only the checks of the contract import pytest, when they run. For messages with the values of failed
assertions, put `pytest.register_assert_rewrite("bnn_symm.testing")` into `conftest.py`.

Example:
    >>> from bnn_symm import MAP
    >>> from bnn_symm.testing import MethodContract
    >>> class TestMAP(MethodContract):
    ...     method = MAP(num_steps=60, log_every=7)
    ...     is_random = False
"""

from bnn_symm.testing.exact_targets import (
    TEMPERINGS,
    ExactPosterior,
    assert_exact_moments,
    design_matrix,
    exact_posterior,
    kl_from_diagonal,
    kl_from_normal,
    linear_regression,
    log_evidence,
    log_jacobian,
)
from bnn_symm.testing.interruption import Interruption, all_draws, without_times
from bnn_symm.testing.likelihood_contract import check_likelihood
from bnn_symm.testing.method_contract import MethodContract
from bnn_symm.testing.prior_contract import check_prior

__all__ = [
    "TEMPERINGS",
    "ExactPosterior",
    "Interruption",
    "MethodContract",
    "all_draws",
    "assert_exact_moments",
    "check_likelihood",
    "check_prior",
    "design_matrix",
    "exact_posterior",
    "kl_from_diagonal",
    "kl_from_normal",
    "linear_regression",
    "log_evidence",
    "log_jacobian",
    "without_times",
]
