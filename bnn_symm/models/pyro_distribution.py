"""Define the type of a Pyro distribution for annotations."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistributionMixin as PyroDistribution
else:
    # The mixin inherits from `typing.Callable`, which beartype warns about; its own base class does
    # not.
    from pyro.distributions.distribution import Distribution as PyroDistribution

__all__ = ["PyroDistribution"]
