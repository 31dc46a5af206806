"""One inference method a file; each returns a posterior."""

from typing import Annotated

from pydantic import Field

from bnn_symm.inference.callbacks import Callback, Collector, Reached, State
from bnn_symm.inference.chees_hmc import ChEESHMC
from bnn_symm.inference.cyclical_sghmc import CyclicalSGHMC
from bnn_symm.inference.deep_ensemble import DeepEnsemble
from bnn_symm.inference.hmc import HMC
from bnn_symm.inference.laplace import LaplaceApproximation
from bnn_symm.inference.low_rank_vi import LowRankVI
from bnn_symm.inference.map import MAP
from bnn_symm.inference.mc_dropout import MCDropout
from bnn_symm.inference.mean_field_vi import MeanFieldVI
from bnn_symm.inference.method import Method, versions
from bnn_symm.inference.nuts import NUTS
from bnn_symm.inference.optimisation import EarlyStopping
from bnn_symm.inference.preconditioning import RMSprop
from bnn_symm.inference.sampler import Sampler
from bnn_symm.inference.sghmc import SGHMC
from bnn_symm.inference.sgld import SGLD
from bnn_symm.inference.stochastic_gradient import StochasticGradientMethod
from bnn_symm.inference.swag import SWAG
from bnn_symm.inference.symmetrized_vi import SymmetrizedVI

AnyMethod = Annotated[
    MeanFieldVI
    | SymmetrizedVI
    | HMC
    | NUTS
    | ChEESHMC
    | MAP
    | DeepEnsemble
    | LaplaceApproximation
    | SWAG
    | MCDropout
    | SGLD
    | SGHMC
    | CyclicalSGHMC
    | LowRankVI,
    Field(discriminator="name"),
]

__all__ = [
    "HMC",
    "MAP",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SWAG",
    "AnyMethod",
    "Callback",
    "ChEESHMC",
    "Collector",
    "CyclicalSGHMC",
    "DeepEnsemble",
    "EarlyStopping",
    "LaplaceApproximation",
    "LowRankVI",
    "MCDropout",
    "MeanFieldVI",
    "Method",
    "RMSprop",
    "Reached",
    "Sampler",
    "State",
    "StochasticGradientMethod",
    "SymmetrizedVI",
    "versions",
]
