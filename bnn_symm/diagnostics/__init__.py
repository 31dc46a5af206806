"""Measure posteriors, predictions and histories; check priors and the inference itself.

In: posteriors, histories and data. Out: frozen results with their standard errors. Folders:
`mixing`, `convergence`, `scores`, `calibration`, `fidelity`, `barriers`, `elbo`, `simulation`,
`statistics`.
"""

from bnn_symm.diagnostics.barriers.barriers import Barrier, barrier
from bnn_symm.diagnostics.barriers.decomposition import BarrierDecomposition, decompose_barrier
from bnn_symm.diagnostics.barriers.simplex import SimplexBarrier, simplex_barrier
from bnn_symm.diagnostics.calibration.calibration_tests import CalibrationTest, calibration_test
from bnn_symm.diagnostics.calibration.reliability import (
    ClassReliability,
    NumberReliability,
    reliability,
)
from bnn_symm.diagnostics.convergence.convergence import (
    Curve,
    TimeToTarget,
    area_under,
    curves_of_history,
    time_to_target,
)
from bnn_symm.diagnostics.convergence.plateau import Plateau, find_plateau
from bnn_symm.diagnostics.convergence.time_to_target import (
    SpeedTest,
    compare_paired,
    compare_unpaired,
    speed,
)
from bnn_symm.diagnostics.elbo.elbo import Elbo, KlShare, elbo
from bnn_symm.diagnostics.elbo.pruning import Pruning, pruned_units
from bnn_symm.diagnostics.elbo.symmetrized_elbo import SymmetrizedElbo, symmetrized_elbo
from bnn_symm.diagnostics.elbo.symmetry_defect import SymmetryDefect, symmetry_defect
from bnn_symm.diagnostics.fidelity.fidelity import Fidelity, fidelity
from bnn_symm.diagnostics.fidelity.sources import ReferenceProbabilities
from bnn_symm.diagnostics.mixing.chain_statistics import ChainStatistics, chain_statistics
from bnn_symm.diagnostics.mixing.interpretation import Verdicts, verdicts
from bnn_symm.diagnostics.mixing.mixing import Mixing, mixing
from bnn_symm.diagnostics.mixing.sampler_statistics import SamplerStatistics, sampler_statistics
from bnn_symm.diagnostics.scores.crps import crps, rps
from bnn_symm.diagnostics.scores.loo import Loo, loo
from bnn_symm.diagnostics.scores.out_of_distribution import OutOfDistribution, out_of_distribution
from bnn_symm.diagnostics.scores.score_intervals import Scores, scores_with_intervals
from bnn_symm.diagnostics.scores.scores import expected_calibration_error, score
from bnn_symm.diagnostics.scores.shift_curves import ShiftCurve, shift_curve
from bnn_symm.diagnostics.simulation.sbc import SbcResult, simulation_based_calibration
from bnn_symm.diagnostics.statistics.bootstrap import Score
from bnn_symm.diagnostics.statistics.ecdf_bands import EcdfBand, ecdf_band
from bnn_symm.diagnostics.statistics.paired_comparison import (
    Difference,
    Estimate,
    Share,
    estimate,
    pair_estimate,
    paired_difference,
    share_of_effect,
)

__all__ = [
    "Barrier",
    "BarrierDecomposition",
    "CalibrationTest",
    "ChainStatistics",
    "ClassReliability",
    "Curve",
    "Difference",
    "EcdfBand",
    "Elbo",
    "Estimate",
    "Fidelity",
    "KlShare",
    "Loo",
    "Mixing",
    "NumberReliability",
    "OutOfDistribution",
    "Plateau",
    "Pruning",
    "ReferenceProbabilities",
    "SamplerStatistics",
    "SbcResult",
    "Score",
    "Scores",
    "Share",
    "ShiftCurve",
    "SimplexBarrier",
    "SpeedTest",
    "SymmetrizedElbo",
    "SymmetryDefect",
    "TimeToTarget",
    "Verdicts",
    "area_under",
    "barrier",
    "calibration_test",
    "chain_statistics",
    "compare_paired",
    "compare_unpaired",
    "crps",
    "curves_of_history",
    "decompose_barrier",
    "ecdf_band",
    "elbo",
    "estimate",
    "expected_calibration_error",
    "fidelity",
    "find_plateau",
    "loo",
    "mixing",
    "out_of_distribution",
    "pair_estimate",
    "paired_difference",
    "pruned_units",
    "reliability",
    "rps",
    "sampler_statistics",
    "score",
    "scores_with_intervals",
    "share_of_effect",
    "shift_curve",
    "simplex_barrier",
    "simulation_based_calibration",
    "speed",
    "symmetrized_elbo",
    "symmetry_defect",
    "time_to_target",
    "verdicts",
]
