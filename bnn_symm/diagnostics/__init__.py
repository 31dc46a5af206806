"""Numbers from posteriors."""

from bnn_symm.diagnostics.barriers import Barrier, barrier
from bnn_symm.diagnostics.chain_statistics import ChainStatistics, chain_statistics
from bnn_symm.diagnostics.ecdf_bands import EcdfBand, ecdf_band
from bnn_symm.diagnostics.elbo import Elbo, KlShare, elbo
from bnn_symm.diagnostics.mixing import Mixing, mixing
from bnn_symm.diagnostics.pruning import Pruning, pruned_units
from bnn_symm.diagnostics.sampler import SamplerStatistics, sampler_statistics
from bnn_symm.diagnostics.sbc import SbcResult, simulation_based_calibration
from bnn_symm.diagnostics.scores import crps, expected_calibration_error, score
from bnn_symm.diagnostics.simplex import SimplexBarrier, simplex_barrier
from bnn_symm.diagnostics.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.diagnostics.symmetry_defect import SymmetryDefect, symmetry_defect
from bnn_symm.diagnostics.verdicts import Verdicts, verdicts

__all__ = [
    "Barrier",
    "ChainStatistics",
    "EcdfBand",
    "Elbo",
    "KlShare",
    "Mixing",
    "Pruning",
    "SamplerStatistics",
    "SbcResult",
    "SimplexBarrier",
    "SymmetrizedElbo",
    "SymmetryDefect",
    "Verdicts",
    "barrier",
    "chain_statistics",
    "crps",
    "ecdf_band",
    "elbo",
    "expected_calibration_error",
    "mixing",
    "pruned_units",
    "sampler_statistics",
    "score",
    "simplex_barrier",
    "simulation_based_calibration",
    "symmetrized_elbo",
    "symmetry_defect",
    "verdicts",
]
