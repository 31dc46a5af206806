"""One inference method a file; each returns a posterior."""

from typing import Annotated

from pydantic import Field

from bnn_symm.inference.callbacks import Callback, Collector, Reached, State
from bnn_symm.inference.chees_hmc import ChEESHMC
from bnn_symm.inference.deep_ensemble import DeepEnsemble
from bnn_symm.inference.hmc import HMC
from bnn_symm.inference.map import MAP
from bnn_symm.inference.mean_field_vi import MeanFieldVI
from bnn_symm.inference.method import Method, versions
from bnn_symm.inference.nuts import NUTS
from bnn_symm.inference.optimisation import EarlyStopping
from bnn_symm.inference.sampler import Sampler

AnyMethod = Annotated[MeanFieldVI | HMC | NUTS | ChEESHMC | MAP | DeepEnsemble, Field(discriminator="name")]

__all__ = [
    "HMC",
    "MAP",
    "NUTS",
    "AnyMethod",
    "Callback",
    "ChEESHMC",
    "Collector",
    "DeepEnsemble",
    "EarlyStopping",
    "MeanFieldVI",
    "Method",
    "Reached",
    "Sampler",
    "State",
    "versions",
]
