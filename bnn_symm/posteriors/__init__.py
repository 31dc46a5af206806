"""Provide the result type of every inference method, its predictions and its files.

In: draws, or the parameters of a distribution. Out: a `Posterior` and its `Predictive`. Reading
order: `lazy_draws`, `posterior`, `samples`, `gaussian_family`, `gaussian`, `low_rank`,
`linearized`, `mixture`, `predictive`, `io`, `external`.
"""

from bnn_symm.posteriors.external.external_draws import ExternalDraws, read_checkpoint, read_netcdf
from bnn_symm.posteriors.external.name_mapping import read_names
from bnn_symm.posteriors.external.parameter_matching import Matching, match_names
from bnn_symm.posteriors.gaussian import GaussianPosterior
from bnn_symm.posteriors.gaussian_family import ClosedFormPosterior
from bnn_symm.posteriors.io.arviz import to_arviz
from bnn_symm.posteriors.io.draw_log import DrawChunk, DrawLog
from bnn_symm.posteriors.io.netcdf import load_posterior, save_posterior
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.posteriors.linearized import LinearizedPosterior
from bnn_symm.posteriors.low_rank import LowRankGaussianPosterior
from bnn_symm.posteriors.mixture import MixturePosterior
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.posteriors.samples import SamplePosterior, longest_rectangle, stack_chains

__all__ = [
    "ClosedFormPosterior",
    "DrawChunk",
    "DrawLog",
    "ExternalDraws",
    "GaussianPosterior",
    "LazyDraws",
    "LinearizedPosterior",
    "LowRankGaussianPosterior",
    "Matching",
    "MixturePosterior",
    "Posterior",
    "Predictive",
    "SamplePosterior",
    "load_posterior",
    "longest_rectangle",
    "match_names",
    "read_checkpoint",
    "read_names",
    "read_netcdf",
    "save_posterior",
    "stack_chains",
    "to_arviz",
]
