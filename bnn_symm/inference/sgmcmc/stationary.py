"""Stochastic-gradient samplers with one warm-up and evenly spaced draws."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bnn_symm.inference.sgmcmc.langevin import LangevinMethod, LangevinStage
from bnn_symm.inference.sgmcmc.sampler import Stage, StochasticGradientMethod
from bnn_symm.settings import NonNegativeInt, PositiveInt, settings


@settings
class EvenlySpacedDraws(StochasticGradientMethod):
    """Settings of samplers with one warm-up.

    Attributes:
        num_warmup: discarded steps, in which scales adapt.
        num_draws: draws per chain.
        thinning: steps between draws.
    """

    warmup_setting: ClassVar[str] = "num_warmup"

    num_warmup: NonNegativeInt = 3000
    num_draws: PositiveInt = 100
    thinning: PositiveInt = 30

    @property
    def num_steps(self) -> int:
        """Return the steps of the warm-up, and `thinning` steps per draw."""
        return self.num_warmup + self.num_draws * self.thinning

    def stage(self, step: int) -> Stage:
        """Return what a step is for.

        Args:
            step: counted from 0.
        """
        since = step + 1 - self.num_warmup
        return Stage(
            phase="warmup" if since <= 0 else "sampling",
            is_draw=since > 0 and since % self.thinning == 0,
        )


@settings
class StationarySampler(EvenlySpacedDraws, LangevinMethod):
    """Settings of SGLD and SGHMC.

    Attributes:
        schedule: `constant`; `polynomial`: learning_rate (1 + step / decay_steps)^-decay_exponent
            from the first step on, as in Welling & Teh. All draws have equal weight. Their step
            sizes are the statistic `step_size`.
        decay_steps: scale of the polynomial schedule.
        decay_exponent: exponent of the polynomial schedule; above 1/2, as is needed for
            convergence, and at most 1.
    """

    schedule: Literal["constant", "polynomial"] = "constant"
    decay_steps: PositiveInt = 1000
    decay_exponent: Annotated[float, Field(gt=0.5, le=1)] = 0.55

    def _stage(self, step: int, *, momentum_decay: float, noise: float) -> LangevinStage:
        rate, stage = self.learning_rate, EvenlySpacedDraws.stage(self, step)
        if self.schedule == "polynomial":
            rate *= (1 + step / self.decay_steps) ** -self.decay_exponent
        return LangevinStage(
            phase=stage.phase,
            is_draw=stage.is_draw,
            learning_rate=rate,
            momentum_decay=momentum_decay,
            noise=noise,
        )
