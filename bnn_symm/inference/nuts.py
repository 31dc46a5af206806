"""The No-U-Turn sampler (Hoffman & Gelman 2014, arXiv:1111.4246), on Pyro's kernel with multinomial sampling."""

from collections.abc import Callable
from typing import Any, Literal

from pyro.infer import HMC as PyroHMC
from pyro.infer import NUTS as PyroNUTS
from torch import Tensor

from bnn_symm.inference.pyro_sampling import PyroSampler, RecordsEnergy
from bnn_symm.settings import PositiveInt, settings


@settings
class NUTS(PyroSampler):
    """Settings of NUTS (config `inference: {name: nuts}`).

    Attributes:
        max_tree_depth: a trajectory has at most 2^max_tree_depth - 1 leapfrog steps.
    """

    name: Literal["nuts"] = "nuts"
    max_tree_depth: PositiveInt = 10

    def _kernel(self, potential: Callable[[dict[str, Tensor]], Tensor], keywords: dict[str, Any]) -> PyroHMC:
        return _Kernel(potential_fn=potential, max_tree_depth=self.max_tree_depth, **keywords)


class _Kernel(RecordsEnergy, PyroNUTS):
    """Pyro's NUTS that remembers its energies."""
