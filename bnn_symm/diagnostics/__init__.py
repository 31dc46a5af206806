"""Numbers from posteriors."""

from bnn_symm.diagnostics.barriers import Barrier, barrier
from bnn_symm.diagnostics.chain_statistics import ChainStatistics, chain_statistics
from bnn_symm.diagnostics.elbo import Elbo, elbo
from bnn_symm.diagnostics.mixing import Mixing, mixing
from bnn_symm.diagnostics.sampler import SamplerStatistics, sampler_statistics
from bnn_symm.diagnostics.scores import crps, expected_calibration_error, score
from bnn_symm.diagnostics.simplex import SimplexBarrier, simplex_barrier
from bnn_symm.diagnostics.symmetry_defect import SymmetryDefect, symmetry_defect
from bnn_symm.diagnostics.verdicts import Verdicts, verdicts

__all__ = [
    "Barrier",
    "ChainStatistics",
    "Elbo",
    "Mixing",
    "SamplerStatistics",
    "SimplexBarrier",
    "SymmetryDefect",
    "Verdicts",
    "barrier",
    "chain_statistics",
    "crps",
    "elbo",
    "expected_calibration_error",
    "mixing",
    "sampler_statistics",
    "score",
    "simplex_barrier",
    "symmetry_defect",
    "verdicts",
]
