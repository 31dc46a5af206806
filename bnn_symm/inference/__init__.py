"""Fit posteriors: one inference method per file, each of which returns a `Posterior`.

In: a `BayesianModel` and a `Dataset`. Out: a `Posterior`. Reading order: `method`, `callbacks`,
`fit_context`, `training_loop`, `minibatches`, `optimization`, `laplace`, `variational`, `mcmc`,
`microcanonical`, `sgmcmc`, `mixture`, `automatic`, `density`, `parallel`, `warm_start`,
`validation`, `fit_checks`.
"""

from typing import Annotated

from pydantic import Field

from bnn_symm.inference.automatic import Automatic
from bnn_symm.inference.callbacks import Callback, FitState, HistoryRecorder, State
from bnn_symm.inference.laplace.laplace import LaplaceApproximation
from bnn_symm.inference.mcmc.chees_hmc import ChEESHMC
from bnn_symm.inference.mcmc.hmc import HMC
from bnn_symm.inference.mcmc.nuts import NUTS
from bnn_symm.inference.mcmc.sampler import Sampler
from bnn_symm.inference.method import Method, versions
from bnn_symm.inference.microcanonical.mclmc import MCLMC
from bnn_symm.inference.mixture import Mixture
from bnn_symm.inference.optimization.deep_ensemble import DeepEnsemble
from bnn_symm.inference.optimization.iterative_pruning import IterativePruning
from bnn_symm.inference.optimization.map import MAP
from bnn_symm.inference.optimization.mc_dropout import MCDropout
from bnn_symm.inference.optimization.permutation_training import PermutationTraining
from bnn_symm.inference.optimization.swag import SWAG
from bnn_symm.inference.sgmcmc.cyclical_sghmc import CyclicalSGHMC
from bnn_symm.inference.sgmcmc.preconditioning import RMSprop
from bnn_symm.inference.sgmcmc.sampler import StochasticGradientMethod
from bnn_symm.inference.sgmcmc.sghmc import SGHMC
from bnn_symm.inference.sgmcmc.sgld import SGLD
from bnn_symm.inference.sgmcmc.sgmclmc import SGMCLMC
from bnn_symm.inference.stochastic_part import (
    chosen_fixed_values,
    point_posterior,
    stochastic_part,
)
from bnn_symm.inference.training_loop import EarlyStopping
from bnn_symm.inference.variational.ivon import IVON
from bnn_symm.inference.variational.low_rank_vi import LowRankVI
from bnn_symm.inference.variational.mean_field_vi import MeanFieldVI
from bnn_symm.inference.variational.symmetrized_vi import SymmetrizedVI

AnyMethod = Annotated[
    MeanFieldVI
    | SymmetrizedVI
    | IVON
    | HMC
    | NUTS
    | ChEESHMC
    | MCLMC
    | MAP
    | DeepEnsemble
    | IterativePruning
    | LaplaceApproximation
    | SWAG
    | MCDropout
    | PermutationTraining
    | SGLD
    | SGHMC
    | CyclicalSGHMC
    | SGMCLMC
    | LowRankVI
    | Mixture
    | Automatic,
    Field(discriminator="name"),
]

__all__ = [
    "HMC",
    "IVON",
    "MAP",
    "MCLMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SGMCLMC",
    "SWAG",
    "AnyMethod",
    "Automatic",
    "Callback",
    "ChEESHMC",
    "CyclicalSGHMC",
    "DeepEnsemble",
    "EarlyStopping",
    "FitState",
    "HistoryRecorder",
    "IterativePruning",
    "LaplaceApproximation",
    "LowRankVI",
    "MCDropout",
    "MeanFieldVI",
    "Method",
    "Mixture",
    "PermutationTraining",
    "RMSprop",
    "Sampler",
    "State",
    "StochasticGradientMethod",
    "SymmetrizedVI",
    "chosen_fixed_values",
    "point_posterior",
    "stochastic_part",
    "versions",
]
