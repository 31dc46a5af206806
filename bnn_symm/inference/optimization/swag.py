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
import time
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import FitState, State, to_numpy
from bnn_symm.inference.method import FitContext, initial_position
from bnn_symm.inference.optimization.map import mode_problem, posterior_of_states
from bnn_symm.inference.optimization.minibatches import Minibatches
from bnn_symm.inference.optimization.optimality import iterate_warnings
from bnn_symm.inference.optimization.training_loop import (
    OptimizationMethod,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.posteriors.lazy_draws import LazyDraws
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Fraction, Positive, PositiveInt, settings

# Minibatches with batch_size auto: at most a tenth of the data, because iterates spread only by the
# noise of minibatches.
_MINIBATCH = 256
_BATCHES = 10
_WINDOW = "window."
# Maximum automatic learning rate of SGD, and the number of minibatches that determine it.
_LARGEST_RATE, _RATE_BATCHES = 0.05, 32
# Relative variance of draws above which SGD has left the mode.
_WIDE = 10.0


@settings
class SWAG(OptimizationMethod):
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
                "every step, but SWAG needs the noise of minibatches; type --set "
                f"inference.batch_size={max(1, points // _BATCHES)}"
            )
        if self.collect_steps < 2 * self.steps_between(points):
            wanted = math.ceil(2 * self.steps_between(points) / self.collect_fraction) + 1
            raise ConfigError(
                f"inference.num_steps={self.num_steps} and "
                f"collect_fraction={self.collect_fraction:g} give {self.collect_steps} steps of "
                "SGD and fewer than two iterates, one every "
                f"{self.steps_between(points)} steps; type --set inference.num_steps={wanted}"
            )

    def _run(self, fit: FitContext) -> bool:
        state = fit.fit_state.states.get(0)
        if state is None or "count" not in state:
            to_mode = replace(self, num_steps=self.num_steps - self.collect_steps)
            problem = mode_problem(
                to_mode, fit.model, fit.dataset, fit.seed, 0, initial_position(fit)
            )
            state, stopped = optimize_single_chain(fit, problem)
            if stopped:
                return True
        state, stopped = self._collect(fit, state)
        fit.recorder.keep_state(0, state)
        return stopped

    def _collect(self, fit: FitContext, state: State) -> tuple[State, bool]:
        """Run SGD from a mode or a previous state; return the state and whether SGD was stopped."""
        start = torch.from_numpy(state["position"]).to(fit.model.device)
        problem = mode_problem(self, fit.model, fit.dataset, fit.seed, 0, start)
        rate = float(state["rate"]) if "rate" in state else self._rate(problem)
        descent = _SGD(self, problem, state, rate)
        size, every = len(fit.dataset.train), self.steps_between(len(fit.dataset.train))
        log_every = self.log_every if self.log_every != "auto" else max(1, self.num_steps // 200)
        started = time.perf_counter() - descent.seconds
        good = descent.state()
        while descent.taken < self.collect_steps:
            if descent.taken % log_every == 0:
                fit.callbacks.on_state(0, descent.state)
            if fit.callbacks.should_stop():
                return descent.state(), True
            if not descent.take():
                raise _diverged(descent, good)
            if descent.taken % every == 0:
                descent.iterates.add(descent.position)
            if descent.taken % log_every == 0 or descent.taken == self.collect_steps:
                if not bool(torch.isfinite(descent.position).all()):
                    raise _diverged(descent, good)
                descent.seconds = time.perf_counter() - started
                row = {
                    "chain": 0,
                    "step": descent.step,
                    "epoch": descent.step * self.points_per_gradient(size) / size,
                    "seconds": descent.seconds,
                    "gradient_evaluations": descent.step,
                    "learning_rate": rate,
                    **descent.means(descent.taken % log_every or log_every),
                    **problem.validate(descent.step),
                }
                fit.callbacks.on_history(row)
                good = descent.state()
        return descent.state(), False

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

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        state = fit_state.states.get(0, {})
        kept = min(int(state.get("count", 0)), self.rank)
        if kept < 2:
            # The fit stopped before there were enough iterates: return the current position.
            return posterior_of_states(model, scaling, fit_state.states, keywords)
        where = {"device": model.device, "dtype": model.dtype}
        draw = _Draw(
            mean=torch.from_numpy(state["mean"]).to(**where),
            scale=torch.from_numpy(np.sqrt(state["squares"] / int(state["count"]) / 2)).to(**where),
            factors=torch.from_numpy(state["deviations"][:kept]).to(**where)
            / math.sqrt(2 * (kept - 1)),
            seed=seed,
        )
        positions = LazyDraws.from_function(draw, self.num_draws, model.num_parameters)
        return SamplePosterior(model, scaling, positions=positions, **keywords)


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


class _SGD:
    """SGD with momentum, whose steps depend only on their number and on the state.

    Args:
        method: its settings.
        problem: its tensor `position` is optimized.
        state: the state of the mode, or a previous state of SGD.
        rate: the learning rate.
    """

    def __init__(self, method: SWAG, problem: OptimizationProblem, state: State, rate: float):
        self._method, self._problem = method, problem
        self.rate = rate
        self._tensor = problem.tensors["position"]
        self._batches = Minibatches(
            problem.train, method.points_per_gradient(len(problem.train)), problem.seed
        )
        self._velocity = torch.zeros_like(self.position)
        self._window: dict[str, float] = {}
        self.iterates = _IterateMoments(self.position, method.rank)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._first = int(state.get("first", self.step))
        if "count" not in state:
            return
        self.iterates.count = int(state["count"])
        for name, tensor in {"velocity": self._velocity, **self.iterates.arrays()}.items():
            tensor.copy_(torch.from_numpy(state[name]))
        self._window = {
            n.removeprefix(_WINDOW): float(state[n]) for n in state if n.startswith(_WINDOW)
        }

    @property
    def position(self) -> Tensor:
        """Return the current position of SGD."""
        return self._tensor.detach()

    @property
    def taken(self) -> int:
        """Return the number of steps since the mode."""
        return self.step - self._first

    def take(self) -> bool:
        """Take one step, unless the objective is not finite; return whether it was taken."""
        size = len(self._problem.train)
        objective, others = self._problem.objective(self.step, *self._batches.take(self.step))
        assert isinstance(objective, Tensor)
        everything = {"objective": objective, **others}
        terms = {name: float(torch.as_tensor(term).detach()) for name, term in everything.items()}
        if not math.isfinite(terms["objective"]):
            return False
        self._tensor.grad = None
        (objective * (self._method.temperature / size)).backward()
        if self._method.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([self._tensor], self._method.clip_norm)
        assert self._tensor.grad is not None
        self._velocity.mul_(self._method.momentum).add_(self._tensor.grad)
        self.position.sub_(self._velocity, alpha=self.rate)
        self.step += 1
        for name, term in terms.items():
            self._window[name] = self._window.get(name, 0.0) + term
        return True

    def means(self, steps: int) -> dict[str, float]:
        """Return the means of terms over the last steps, and reset them."""
        window, self._window = self._window, {}
        return {name: total / steps for name, total in window.items()}

    def state(self) -> State:
        """Return a copy of everything on which later steps depend."""
        numbers = {
            "step": self.step,
            "first": self._first,
            "seconds": self.seconds,
            "count": self.iterates.count,
        }
        numbers["rate"] = self.rate
        numbers |= {_WINDOW + name: total for name, total in self._window.items()}
        state = to_numpy(
            {"position": self.position, "velocity": self._velocity, **self.iterates.arrays()}
        )
        return {
            **state,
            **{name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()},
        }


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


def _diverged(descent: _SGD, good: State) -> FitDiverged:
    message = (
        f"SGD left the mode at step {descent.step}; the state at step {int(good['step'])} was "
        f"kept; try a lower inference.collect_learning_rate (now {descent.rate:g}) or "
        "inference.clip_norm=1.0"
    )
    return FitDiverged(message, {0: good})
