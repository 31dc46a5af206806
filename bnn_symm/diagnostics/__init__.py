"""Numbers from posteriors."""

from bnn_symm.diagnostics.elbo import Elbo, elbo
from bnn_symm.diagnostics.scores import crps, expected_calibration_error, score

__all__ = ["Elbo", "crps", "elbo", "expected_calibration_error", "score"]
