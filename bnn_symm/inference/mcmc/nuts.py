"""The No-U-Turn sampler with multinomial sampling of trajectories.

References:
    Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434.
"""

from collections.abc import Callable
from typing import Any, Literal

from pyro.infer import HMC as PyroHMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor

from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.nuts_kernel import NUTSKernel
from bnn_symm.inference.mcmc.pyro_engine import PyroSampler, RecordsEnergy
from bnn_symm.settings import PositiveInt, settings


@settings
class NUTS(PyroSampler):
    """Settings of NUTS (config `inference: {name: nuts}`).

    Attributes:
        max_tree_depth: a trajectory has at most 2^max_tree_depth - 1 leapfrog steps.
    """

    name: Literal["nuts"] = "nuts"
    max_tree_depth: PositiveInt = 10

    def _batched_kernel(
        self, density: TemperedDensity, positions: Tensor, inverse_mass: Tensor, seed: int
    ) -> NUTSKernel:
        return NUTSKernel(density, positions, inverse_mass, seed, max_depth=self.max_tree_depth)

    def _pyro_kernel(
        self, potential: Callable[[dict[str, Tensor]], Tensor], keywords: dict[str, Any]
    ) -> PyroHMC:
        return _PyroKernel(potential_fn=potential, max_tree_depth=self.max_tree_depth, **keywords)


class _PyroKernel(RecordsEnergy, PyroNUTS):
    """Pyro's NUTS that records its energies."""
