"""SWAG: the normal distribution of the iterates of SGD around a mode.

From a mode (`map`), SGD with momentum and a constant learning rate continues over minibatches. Of
its iterates, one every `collect_every` steps, the mean m, the variances s^2 and the last K
deviations from the running mean, D, are stored. Then

    w = m + s z_1 / sqrt(2) + D z_2 / sqrt(2 (K - 1)),     z ~ Normal(0, 1)

which halves the sum of the diagonal and the low-rank covariance (Maddox et al., equation 1). The
noise of minibatches spreads the iterates, so the width depends on the learning rate and the batch
size. SGD with momentum mu has the width of the posterior at the learning rate (Mandt et al.,
section 4.2)

    (1 - mu) 2 D T / (N tr C),

with C the covariance over minibatches of the gradient of the mean loss at the mode.

References:
    Maddox, Garipov, Izmailov, Vetrov & Wilson 2019, arXiv:1902.02476; Mandt, Hoffman & Blei 2017,
    arXiv:1704.04289.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import Callback, FitState, State
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.minibatches import Minibatches
from bnn_symm.inference.optimization.map import ModeMethod, mode_problem
from bnn_symm.inference.optimization.optimality import iterate_warnings
from bnn_symm.inference.optimization.optimizer import (
    GradientStepper,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.inference.training_loop import train
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings

# Minibatches with batch_size auto: at most a tenth of the data, because iterates spread only by the
# noise of minibatches.
_MINIBATCH = 256
_BATCHES = 10
# Maximum automatic learning rate of SGD, and the number of minibatches that determine it.
_LARGEST_RATE, _RATE_BATCHES = 0.05, 32
# Relative variance of draws above which SGD has left the mode.
_WIDE = 10.0


@settings
class SWAG(ModeMethod):
    """Settings of SWAG (config `inference: {name: swag}`).

    The settings that it shares with `map` are those of the optimization to the mode.

    Attributes:
        num_steps: total steps of Adam, which finds the mode, and of SGD.
        batch_size: points per step, fewer than all; `auto` is a tenth of them, at most 256.
        collect_fraction: fraction of the steps that SGD takes.
        collect_learning_rate: constant learning rate of SGD on the mean loss T U / N. With `auto`,
            its iterates have the spread of the posterior if the curvature of the loss is the same
            in all directions. At most 0.05.
        momentum: momentum of SGD.
        collect_every: steps between collected iterates; `auto` is an epoch, or fewer if that gives
            less than 2 `rank` iterates.
        rank: K, the number of stored deviations.
        num_draws: draws that represent the posterior in predictions and in files.
    """

    has_independent_draws: ClassVar[bool] = True

    name: Literal["swag"] = "swag"
    learning_rate: Positive = 0.003
    collect_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    collect_learning_rate: Positive | Literal["auto"] = "auto"
    momentum: Fraction = 0.9
    collect_every: PositiveInt | Literal["auto"] = "auto"
    rank: Annotated[int, Field(ge=2)] = 20
    num_draws: PositiveInt = 200

    @property
    def collect_steps(self) -> int:
        """Return the number of steps of SGD, which leaves at least one step of Adam."""
        return min(round(self.num_steps * self.collect_fraction), self.num_steps - 1)

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size.

        Args:
            num_points: size of the training split.
        """
        if self.batch_size != "auto":
            return min(self.batch_size, num_points)
        return max(1, min(_MINIBATCH, num_points // _BATCHES))

    def steps_between(self, num_points: int) -> int:
        """Return the number of steps between collected iterates.

        Args:
            num_points: size of the training split.
        """
        if self.collect_every != "auto":
            return self.collect_every
        epoch = num_points // self.points_per_gradient(num_points)
        return max(1, min(epoch, self.collect_steps // (2 * self.rank)))

    def check(self, dataset: Dataset) -> None:
        """Check that minibatches have noise, and that there are enough iterates.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if they have none, or there are fewer than two iterates.
        """
        super().check(dataset)
        points = len(dataset.train)
        if self.points_per_gradient(points) == points:
            raise ConfigError(
                f"inference.batch_size={self.batch_size} uses all {points} training points at "
                "every step, but SWAG needs the noise of minibatches; set "
                f"inference.batch_size={max(1, points // _BATCHES)}"
            )
        if self.collect_steps < 2 * self.steps_between(points):
            wanted = math.ceil(2 * self.steps_between(points) / self.collect_fraction) + 1
            raise ConfigError(
                f"inference.num_steps={self.num_steps} and "
                f"collect_fraction={self.collect_fraction:g} give {self.collect_steps} steps of "
                "SGD and fewer than two iterates, one every "
                f"{self.steps_between(points)} steps; set inference.num_steps={wanted}"
            )

    def _run(self, fit: FitContext) -> bool:
        state, density = fit.fit_state.states.get(0), self.density(fit)
        if state is None or "count" not in state:
            to_mode = replace(self, num_steps=self.num_steps - self.collect_steps)
            start = initial_position(fit)
            problem = mode_problem(to_mode, density, fit.dataset, fit.seed, 0, start)
            state, stopped = optimize_single_chain(fit, problem)
            if stopped:
                return True
        state, stopped = self._collect(fit, density, state)
        fit.recorder.keep_state(0, state)
        return stopped

    def _collect(
        self, fit: FitContext, density: MinibatchDensity, state: State
    ) -> tuple[State, bool]:
        """Run SGD from a mode or a previous state; return the state and whether SGD was stopped."""
        start = torch.from_numpy(state["position"]).to(fit.model.device)
        problem = mode_problem(self, density, fit.dataset, fit.seed, 0, start)
        rate = float(state["rate"]) if "rate" in state else self._rate(problem)
        return train(
            _SGD(self, problem, int(state.get("first", state["step"])), rate), fit.callbacks, state
        )

    def _rate(self, problem: OptimizationProblem) -> float:
        """Return the learning rate of SGD: the setting, or a match of the noise at the mode."""
        if self.collect_learning_rate != "auto":
            return self.collect_learning_rate
        size, tensor = len(problem.train), problem.tensors["position"]
        batches = Minibatches(problem.train, self.points_per_gradient(size), problem.seed)
        gradients = []
        for step in range(_RATE_BATCHES):
            objective, _ = problem.objective(step, *batches.take(step))
            assert isinstance(objective, Tensor)
            (gradient,) = torch.autograd.grad(objective * (self.temperature / size), tensor)
            gradients.append(gradient.double())
        noise = float(torch.stack(gradients).var(0).sum())
        most = _LARGEST_RATE * size * noise
        wanted = (1 - self.momentum) * 2 * len(tensor) * self.temperature
        return _LARGEST_RATE if wanted >= most else wanted / (size * noise)

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        advice = "SGD left the mode, or had not reached it; lower inference.collect_learning_rate"
        return iterate_warnings(self, fit, posterior, limit=_WIDE, advice=advice)

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        state, model = outcome.fit_state.states.get(0, {}), outcome.model
        kept = min(int(state.get("count", 0)), self.rank)
        if kept < 2:
            # The fit stopped before there were enough iterates: return the current position.
            return outcome.last_positions()
        where = {"device": model.device, "dtype": model.dtype}
        draw = _Draw(
            mean=torch.from_numpy(state["mean"]).to(**where),
            scale=torch.from_numpy(np.sqrt(state["squares"] / int(state["count"]) / 2)).to(**where),
            factors=torch.from_numpy(state["deviations"][:kept]).to(**where)
            / math.sqrt(2 * (kept - 1)),
            seed=outcome.seed,
        )
        return outcome.from_function(draw, self.num_draws)


class _IterateMoments:
    """Moments of the iterates, in float64, and the last deviations from their running mean."""

    def __init__(self, position: Tensor, rank: int):
        self.count = 0
        self.mean = torch.zeros_like(position, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)
        self.deviations = torch.zeros(
            rank, len(position), dtype=position.dtype, device=position.device
        )

    def add(self, position: Tensor) -> None:
        """Update the moments with an iterate."""
        before = position.double() - self.mean
        self.count += 1
        self.mean += before / self.count
        after = position.double() - self.mean
        self.squares += before * after
        self.deviations[(self.count - 1) % len(self.deviations)] = after.to(position.dtype)

    def arrays(self) -> dict[str, Tensor]:
        """Return the tensors that a state stores besides `count`."""
        return {"mean": self.mean, "squares": self.squares, "deviations": self.deviations}


class _SGD(GradientStepper):
    """SGD with momentum, which collects moments of its iterates.

    Args:
        method: its settings.
        problem: its tensor `position` is optimized.
        first: number of the first step.
        rate: the learning rate.
    """

    def __init__(self, method: SWAG, problem: OptimizationProblem, first: int, rate: float):
        super().__init__(problem)
        self._method, self._rate = method, rate
        self.first, self.num_steps = first, first + method.collect_steps
        self._every = method.steps_between(self.num_points)
        self._position = self.tensors["position"]
        self._iterates = _IterateMoments(self._position.detach(), method.rank)
        self._velocity = torch.zeros_like(self._iterates.mean, dtype=self._position.dtype)
        self.tensors |= {"velocity": self._velocity, **self._iterates.arrays()}

    def _loss(self, objective: Tensor) -> Tensor:
        return objective * (self._method.temperature / self.num_points)

    def _update(self, step: int) -> None:
        assert self._position.grad is not None
        self._velocity.mul_(self._method.momentum).add_(self._position.grad)
        self._position.detach().sub_(self._velocity, alpha=self._rate)

    def collects(self, step: int) -> bool:
        """Return whether the iterate after a number of steps is collected."""
        return (step - self.first) % self._every == 0

    def collect(self, step: int, callbacks: Callback) -> None:
        """Update the moments with the iterate."""
        self._iterates.add(self._position.detach())

    def learning_rate(self, step: int) -> float:
        """Return the learning rate, which is constant."""
        return self._rate

    @property
    def step_settings(self) -> str:
        """Return the learning rate of SGD and the clipping of gradients."""
        return f"inference.collect_learning_rate (now {self._rate:g}) or inference.clip_norm=1.0"

    def state(self) -> State:
        """Return the tensors, and the numbers of SGD."""
        numbers = {"first": self.first, "count": self._iterates.count, "rate": self._rate}
        return super().state() | {
            name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()
        }

    def restore(self, state: State) -> None:
        """Restore the tensors of SGD; they are new if the state is that of the mode.

        Args:
            state: a previous state, or that of the mode.
        """
        if "count" in state:
            super().restore(state)
            self._iterates.count = int(state["count"])


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """Draws mean + scale z_1 + factors^T z_2, keyed by their index."""

    mean: Tensor
    scale: Tensor
    factors: Tensor
    seed: int

    def __call__(self, number: int) -> Tensor:
        generator = torch_generator(self.seed, "draw", number)
        noise = torch.randn(
            len(self.mean) + len(self.factors), generator=generator, dtype=self.mean.dtype
        )
        independent, shared = noise.to(self.mean.device).split([len(self.mean), len(self.factors)])
        return self.mean + self.scale * independent + shared @ self.factors
