"""Numbers from posteriors."""

from bnn_symm.diagnostics.barriers import Barrier, barrier
from bnn_symm.diagnostics.elbo import Elbo, elbo
from bnn_symm.diagnostics.scores import crps, expected_calibration_error, score
from bnn_symm.diagnostics.simplex import SimplexBarrier, simplex_barrier
from bnn_symm.diagnostics.symmetry_defect import SymmetryDefect, symmetry_defect

__all__ = [
    "Barrier",
    "Elbo",
    "SimplexBarrier",
    "SymmetryDefect",
    "barrier",
    "crps",
    "elbo",
    "expected_calibration_error",
    "score",
    "simplex_barrier",
    "symmetry_defect",
]
