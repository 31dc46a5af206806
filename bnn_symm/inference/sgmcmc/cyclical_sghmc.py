r"""Cyclical SGHMC (Zhang et al. 2020, arXiv:1902.03932): exploration with large steps, then draws
with small ones.

In each of the cycles the learning rate falls from its highest to nearly zero,

    learning_rate / 2 (1 + cos(pi k / K)),     k = 0, ..., K - 1 the step in the cycle,

and each begins with a share of exploration, without noise: gradient descent with momentum, from
    mode to mode. In the
rest SGHMC samples the mode that was found, and draws are made there alone. The preconditioner
learns while exploring.

All cycles count alike, however much mass their modes have. A cycle's draws spread only as far as
its small steps carry them from where exploration ended: in wide directions less than the posterior
does, unless cycles are long.
"""

import math
from typing import ClassVar, Literal

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.method import FitContext
from bnn_symm.inference.sgmcmc.chain import run_stochastic_gradient_chains
from bnn_symm.inference.sgmcmc.sampler import Stage
from bnn_symm.inference.sgmcmc.sghmc import MomentumSampler
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings


@settings
class CyclicalSGHMC(MomentumSampler):
    """Settings of cyclical SGHMC (config `inference: {name: cyclical_sghmc}`).

    Attributes:
        learning_rate: at its highest, at the start of each cycle.
        num_cycles: cycles of each chain.
        cycle_steps: K, steps of a cycle.
        exploration: share of each cycle before noise is added and draws are made.
        draws_per_cycle: draws kept of each cycle, at even distances, the last at its end.
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
        """Of all cycles."""
        return self.num_cycles * self.cycle_steps

    def _run(self, fit: FitContext) -> bool:
        return run_stochastic_gradient_chains(self, fit)

    def stage(self, step: int) -> Stage:
        """Of exploration, or of sampling."""
        done = step % self.cycle_steps
        exploring = done < self.num_warmup
        thinning = (self.cycle_steps - self.num_warmup) // self.draws_per_cycle
        left = self.cycle_steps - 1 - done
        return Stage(
            phase="exploration" if exploring else "sampling",
            learning_rate=0.5
            * self.learning_rate
            * (1 + math.cos(math.pi * done / self.cycle_steps)),
            momentum_decay=self.momentum_decay,
            noise=0.0 if exploring else self.noise,
            is_draw=left % thinning == 0 and left // thinning < self.draws_per_cycle,
        )

    def num_draws_override(self, number: int) -> str:
        """By more cycles, since draws of one cycle are of one mode."""
        return f"inference.num_cycles={math.ceil(number / self.draws_per_cycle)}"

    @property
    def num_warmup(self) -> int:
        """Steps before the first cycle samples."""
        return round(self.exploration * self.cycle_steps)

    def check(self, dataset: Dataset) -> None:
        """Also that a cycle has steps left for its draws."""
        left = self.cycle_steps - self.num_warmup
        if left < self.draws_per_cycle:
            raise ConfigError(
                f"inference.draws_per_cycle is {self.draws_per_cycle}, but {left} of the "
                f"{self.cycle_steps} steps of a cycle are left after its exploration; raise "
                "inference.cycle_steps or lower inference.exploration"
            )
        super().check(dataset)
