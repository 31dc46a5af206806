"""Numbers from posteriors."""

from bnn_symm.diagnostics.elbo import Elbo, elbo
from bnn_symm.diagnostics.scores import crps, expected_calibration_error, score
from bnn_symm.diagnostics.symmetry_defect import SymmetryDefect, symmetry_defect

__all__ = [
    "Elbo",
    "SymmetryDefect",
    "crps",
    "elbo",
    "expected_calibration_error",
    "score",
    "symmetry_defect",
]
