"""The result type of every inference method, its predictions and its files."""

from bnn_symm.posteriors.closed_form import ClosedFormPosterior
from bnn_symm.posteriors.draw_log import DrawChunk, DrawLog
from bnn_symm.posteriors.foreign import ForeignDraws, read_checkpoint, read_netcdf
from bnn_symm.posteriors.gaussian import GaussianPosterior
from bnn_symm.posteriors.low_rank import LowRankGaussianPosterior
from bnn_symm.posteriors.matching import Matching, match_names
from bnn_symm.posteriors.name_map import read_names
from bnn_symm.posteriors.posterior import Posterior
from bnn_symm.posteriors.predictive import Predictive
from bnn_symm.posteriors.samples import ArrayPositions, Positions, SamplePosterior
from bnn_symm.posteriors.storage import load_posterior, save_posterior, stack_chains

__all__ = [
    "ArrayPositions",
    "ClosedFormPosterior",
    "DrawChunk",
    "DrawLog",
    "ForeignDraws",
    "GaussianPosterior",
    "LowRankGaussianPosterior",
    "Matching",
    "Positions",
    "Posterior",
    "Predictive",
    "SamplePosterior",
    "load_posterior",
    "match_names",
    "read_checkpoint",
    "read_names",
    "read_netcdf",
    "save_posterior",
    "stack_chains",
]
