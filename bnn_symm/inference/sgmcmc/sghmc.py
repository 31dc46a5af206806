"""Stochastic-gradient Hamiltonian Monte Carlo (SGHMC).

The update is equation 15 of Chen et al.:

    v' = (1 - a) v - eta grad U(w) + Normal(0, 2 (a - b) eta)
    w' = w + v',     eta = T learning_rate / N

a is `momentum_decay`, one minus the momentum of SGD. Gradients of minibatches add their own noise,
of variance V. b = eta V / 2 is its contribution, if known; with b = 0 it heats the chain.
`kinetic_temperature` in the history, T (1 - a / 2) |v|^2 / eta per coordinate, is T without this
noise and with small steps. Approximately, the variance of the draws exceeds that of the posterior
by the same factor as this temperature exceeds T.

References:
    Chen, Fox & Guestrin 2014, arXiv:1402.4102.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.sgmcmc.langevin import LangevinMethod, LangevinStage
from bnn_symm.inference.sgmcmc.stationary import StationarySampler
from bnn_symm.settings import NonNegative, Positive, settings


@settings
class MomentumSampler(LangevinMethod):
    """Settings of samplers with momentum.

    Attributes:
        momentum_decay: a, the fraction of the momentum that a step removes; 0.1 corresponds to the
            momentum 0.9 of SGD.
        noise_estimate: b, which is subtracted from the added noise; below momentum_decay.
    """

    momentum_decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    noise_estimate: NonNegative = 0.0

    @property
    def noise(self) -> float:
        """Return the scale of the noise added to a normalized momentum, sqrt(2 (a - b))."""
        return math.sqrt(2 * (self.momentum_decay - self.noise_estimate))

    def check(self, dataset: Dataset) -> None:
        """Check that the noise estimate is below the momentum decay.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if it is not.
        """
        if self.noise_estimate >= self.momentum_decay:
            raise ConfigError(
                f"inference.noise_estimate is {self.noise_estimate:g}, expected less than "
                f"inference.momentum_decay ({self.momentum_decay:g}); lower it, or raise "
                "inference.momentum_decay"
            )
        super().check(dataset)


@settings
class SGHMC(MomentumSampler, StationarySampler):
    """Settings of SGHMC (config `inference: {name: sghmc}`)."""

    name: Literal["sghmc"] = "sghmc"
    learning_rate: Positive = 0.05

    def stage(self, step: int) -> LangevinStage:
        """Return the settings of a step; the noise is the same at every step, warm-up included.

        Args:
            step: counted from 0.
        """
        return self._stage(step, momentum_decay=self.momentum_decay, noise=self.noise)
