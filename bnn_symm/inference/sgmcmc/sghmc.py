r"""Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox & Guestrin 2014, arXiv:1402.4102), by
their equation 15.

    v' = (1 - a) v - eta grad U(w) + Normal(0, 2 (a - b) eta)
    w' = w + v',     eta = T learning_rate / N

a is `momentum_decay`, 1 less the momentum of SGD. Gradients of minibatches add noise of their own,
of variance V; b = eta V / 2 is its share, if it is known, and 0 leaves it in as heat.
`kinetic_temperature` in the history, T (1 - a / 2) |v|^2 / eta a coordinate, is T without it and
with small steps; what it has above T the draws have in their variance too, about.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.sgmcmc.sampler import Stage, StochasticGradientMethod
from bnn_symm.inference.sgmcmc.stationary import StationarySampler
from bnn_symm.settings import NonNegative, Positive, settings


@settings
class MomentumSampler(StochasticGradientMethod):
    """Settings of samplers with momentum.

    Attributes:
        momentum_decay: a, the share of the momentum that a step takes away; 0.1 is the momentum 0.9
            of SGD.
        noise_estimate: b, which takes the place of as much of the noise that is added; below
            momentum_decay.
    """

    momentum_decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    noise_estimate: NonNegative = 0.0

    @property
    def noise(self) -> float:
        """Factor of the noise that is added to a momentum in units of its own law, sqrt(2 (a -
        b)).
        """
        return math.sqrt(2 * (self.momentum_decay - self.noise_estimate))

    def check(self, dataset: Dataset) -> None:
        """Also that noise is left to add."""
        if self.noise_estimate >= self.momentum_decay:
            raise ConfigError(
                f"inference.noise_estimate is {self.noise_estimate:g}, wanted less than "
                "inference.momentum_decay "
                f"({self.momentum_decay:g}): no noise would be left to add; lower it, or raise "
                "momentum_decay"
            )
        super().check(dataset)


@settings
class SGHMC(MomentumSampler, StationarySampler):
    """Settings of SGHMC (config `inference: {name: sghmc}`)."""

    name: Literal["sghmc"] = "sghmc"
    learning_rate: Positive = 0.05

    def stage(self, step: int) -> Stage:
        """The same noise at every step, warm-up included."""
        return self._stage(step, momentum_decay=self.momentum_decay, noise=self.noise)
