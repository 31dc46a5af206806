"""Cyclical SGHMC: exploration with large steps alternates with sampling with small ones.

In each cycle the learning rate decreases from its maximum to almost zero,

    learning_rate / 2 (1 + cos(pi k / K)),     k = 0, ..., K - 1 the step in the cycle.

A cycle starts with exploration without noise: gradient descent with momentum, which moves between
modes. In the rest of the cycle, SGHMC samples the current mode, and only there draws are collected.
The preconditioner adapts during exploration.

All cycles have equal weight, regardless of the mass of their modes. The draws of a cycle spread
only as far as its small steps carry them from the end of exploration: in wide directions less than
the posterior, unless cycles are long.

References:
    Zhang et al. 2020, arXiv:1902.03932.
"""

import math
from typing import ClassVar, Literal

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.sgmcmc.langevin import LangevinStage
from bnn_symm.inference.sgmcmc.sghmc import MomentumSampler
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings


@settings
class CyclicalSGHMC(MomentumSampler):
    """Settings of cyclical SGHMC (config `inference: {name: cyclical_sghmc}`).

    Attributes:
        learning_rate: maximum learning rate, at the start of each cycle.
        num_cycles: cycles per chain.
        cycle_steps: K, steps per cycle.
        exploration: fraction of each cycle before noise is added and draws are collected.
        draws_per_cycle: draws per cycle, evenly spaced, the last one at its end.
    """

    warmup_setting: ClassVar[str] = "cycle_steps"

    name: Literal["cyclical_sghmc"] = "cyclical_sghmc"
    learning_rate: Positive = 0.1
    num_cycles: PositiveInt = 4
    cycle_steps: PositiveInt = 1000
    exploration: Fraction = 0.8
    draws_per_cycle: PositiveInt = 10

    @property
    def num_steps(self) -> int:
        """Return the total number of steps of all cycles."""
        return self.num_cycles * self.cycle_steps

    def stage(self, step: int) -> LangevinStage:
        """Return the settings of a step, of exploration or of sampling.

        Args:
            step: counted from 0.
        """
        done = step % self.cycle_steps
        exploring = done < self.num_warmup
        thinning = (self.cycle_steps - self.num_warmup) // self.draws_per_cycle
        left = self.cycle_steps - 1 - done
        return LangevinStage(
            phase="exploration" if exploring else "sampling",
            learning_rate=0.5
            * self.learning_rate
            * (1 + math.cos(math.pi * done / self.cycle_steps)),
            momentum_decay=self.momentum_decay,
            noise=0.0 if exploring else self.noise,
            is_draw=left % thinning == 0 and left // thinning < self.draws_per_cycle,
        )

    def num_draws_override(self, number: int) -> str:
        """Return the override for more cycles; draws of one cycle are from one mode.

        Args:
            number: draws per chain.
        """
        return f"inference.num_cycles={math.ceil(number / self.draws_per_cycle)}"

    @property
    def num_warmup(self) -> int:
        """Return the number of steps before the first cycle starts sampling."""
        return round(self.exploration * self.cycle_steps)

    def check(self, dataset: Dataset) -> None:
        """Check that a cycle has enough steps for its draws.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if it does not.
        """
        left = self.cycle_steps - self.num_warmup
        if left < self.draws_per_cycle:
            raise ConfigError(
                f"inference.draws_per_cycle is {self.draws_per_cycle}, but {left} of the "
                f"{self.cycle_steps} steps of a cycle remain after exploration; raise "
                "inference.cycle_steps or lower inference.exploration"
            )
        super().check(dataset)
