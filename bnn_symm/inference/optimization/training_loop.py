"""Minibatch optimization with Adam, the common part of VI, MAP and deep ensembles.

The learning rate and the order of the data depend only on (seed, step). So a state consists of the
optimized tensors, Adam's two moments and a step number, and a fit that resumes from it gives the
same results as an uninterrupted one.

A row of the history has means over the steps since the previous row, each on its own minibatch:
`objective` (the minimized function for the whole training split, in nats), `nll` (of the training
part, in nats per point, in the target's own units) and further terms of the method. In addition, it
has `validation_nll` and `validation_accuracy` at that step.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import Callbacks, FitState, State, to_numpy
from bnn_symm.inference.method import FitContext, Method
from bnn_symm.inference.optimization.minibatches import Minibatches, resolve_batch_size
from bnn_symm.inference.optimization.optimality import mode_warnings
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import NonNegativeInt, Positive, PositiveInt, settings

# Points of the validation split that are used in a history row. It is bounded to keep monitoring
# cheap.
VALIDATION_POINTS = 1000


@settings
class EarlyStopping:
    """Stop when the smoothed validation NLL has not improved for a number of logged steps.

    Attributes:
        patience: logged steps without a new best smoothed value before stopping.
        smoothing: weight of the past in the exponential moving average.
    """

    patience: PositiveInt = 20
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.8


@settings
class OptimizationMethod(Method):
    """Settings of methods that optimize with Adam.

    Attributes:
        num_steps: number of gradient steps.
        batch_size: points per step; `auto` is all of up to 512, otherwise 256.
        learning_rate: maximum learning rate of Adam.
        schedule: `cosine` decreases to zero over the fit; `constant` does not.
        warmup_steps: steps over which the learning rate rises linearly at the start.
        clip_norm: gradients (of the objective per point) with a larger norm are scaled down to it;
            null for no clipping.
        early_stopping: stop when the validation NLL no longer improves, which needs a validation
            split; null for never.
        log_every: steps between rows of the history; `auto` gives about 200 rows.
    """

    num_steps: PositiveInt = 4000
    batch_size: PositiveInt | Literal["auto"] = "auto"
    learning_rate: Positive = 0.02
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    clip_norm: Positive | None = None
    early_stopping: EarlyStopping | None = None
    log_every: PositiveInt | Literal["auto"] = "auto"

    def check(self, dataset: Dataset) -> None:
        """Check that early stopping has a validation split.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if there is no validation split.
        """
        if self.early_stopping is not None and len(dataset.validation) == 0:
            raise ConfigError(
                "inference.early_stopping needs a validation split; raise data.validation_fraction"
            )

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return a message if a fit that was not to stop early ended far from its optimum.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: its result.
        """
        if self.early_stopping is not None:
            return []
        return self._end_warnings(fit, fit_state, posterior)

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return a message for each of the first positions that ended far from a mode."""
        positions = {chain: state["position"] for chain, state in fit_state.states.items()}
        return mode_warnings(self, fit, fit_state.history, positions)

    def points_per_gradient(self, num_points: int) -> int:
        """Return the batch size.

        Args:
            num_points: size of the training split.
        """
        return resolve_batch_size(self.batch_size, num_points)

    def truncate_to_checkpoint(self, fit_state: FitState) -> FitState:
        """Return the fit state at the last state of each chain.

        Args:
            fit_state: the state of an interrupted fit.
        """
        ends = {chain: int(state["step"]) for chain, state in fit_state.states.items()}
        history = [row for row in fit_state.history if row["step"] <= ends.get(row["chain"], -1)]
        return FitState(dict(fit_state.states), {}, history)


Objective = Callable[[int, Tensor, Tensor], tuple[Tensor | float, Mapping[str, Tensor | float]]]
Validate = Callable[[int], dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class OptimizationProblem:
    """The definition of one optimization problem.

    Attributes:
        settings: settings of the method.
        tensors: name -> leaf tensor to optimize in place.
        objective: (step, x, y) -> the objective of the whole data in nats, and further named terms
            to log.
        validate: step -> scores of the validation split in a row of the history: `validation_nll`
            (None without one) and, for classification, `validation_accuracy`.
        train: the training split.
        seed: determines the order of the data.
        chain: index of the ensemble member.
        writes_gradients: whether `objective` itself writes its gradient, divided by the number of
            points, to the `grad` of every tensor. Otherwise autograd computes it.
        is_valid: whether finite tensors define a posterior.
    """

    settings: OptimizationMethod
    tensors: dict[str, Tensor]
    objective: Objective
    validate: Validate
    train: Split
    seed: int
    chain: int = 0
    writes_gradients: bool = False
    is_valid: Callable[[], bool] = lambda: True


def optimize(
    problem: OptimizationProblem, callbacks: Callbacks, state: State | None = None
) -> tuple[State, bool]:
    """Run Adam from the current values of the tensors, or from a previous state.

    Args:
        problem: the optimization problem.
        callbacks: receive history and states.
        state: the state to resume from, if any.

    Returns:
        The final state, and whether a callback stopped the optimization.

    Raises:
        FitDiverged: if the objective or a tensor is not finite; it has the last finite state.
    """
    settings, train = problem.settings, problem.train
    steps = AdamStepper(problem)
    batch_size, optimizer = steps.batch_size, steps.optimizer
    log_every = (
        settings.log_every if settings.log_every != "auto" else max(1, settings.num_steps // 200)
    )
    run = _Progress()
    if state is not None:
        run = _restore(state, problem.tensors, optimizer)
    started = time.perf_counter() - run.seconds
    good = latest = _state(problem.tensors, optimizer, run)
    while run.step < settings.num_steps and not _has_stopped_early(settings, run):
        if run.step % log_every == 0:
            callbacks.on_state(problem.chain, lambda: _state(problem.tensors, optimizer, run))
        if callbacks.should_stop():
            return _state(problem.tensors, optimizer, run), True
        terms = steps.take(run.step)
        if not math.isfinite(terms["objective"]):
            raise _diverged(problem, terms["objective"], run.step, good)
        good = latest
        run.step += 1
        for name, term in terms.items():
            run.window[name] = run.window.get(name, 0.0) + term
        if run.step % log_every == 0 or run.step == settings.num_steps:
            steps_in_window = run.step % log_every or log_every
            finite = all(bool(torch.isfinite(tensor).all()) for tensor in problem.tensors.values())
            if not finite or not problem.is_valid():
                raise _diverged(problem, math.nan, run.step, good)
            run.seconds = time.perf_counter() - started
            row = {
                "chain": problem.chain,
                "step": run.step,
                "epoch": run.step * batch_size / len(train),
                "seconds": run.seconds,
                "gradient_evaluations": run.step,
                "learning_rate": _learning_rate(settings, run.step - 1),
                **{name: total / steps_in_window for name, total in run.window.items()},
            }
            run.window = {}
            row.update(problem.validate(run.step))
            callbacks.on_history(row)
            _watch(settings, run, row["validation_nll"])
            latest = _state(problem.tensors, optimizer, run)
    return _state(problem.tensors, optimizer, run), False


def optimize_single_chain(fit: FitContext, problem: OptimizationProblem) -> tuple[State, bool]:
    """Run `optimize` as the only chain of a fit, and record the final state.

    Args:
        fit: the arguments of the fit.
        problem: the optimization problem.
    """
    state, stopped = optimize(problem, fit.callbacks, fit.fit_state.states.get(0))
    fit.recorder.keep_state(0, state)
    return state, stopped


class AdamStepper:
    """The steps of one optimization; each depends on its number, the tensors and the moments only.

    Args:
        problem: the optimization problem.

    Attributes:
        batch_size: points per step.
        optimizer: fused Adam over the tensors.
    """

    def __init__(self, problem: OptimizationProblem):
        self._problem = problem
        self._tensors = list(problem.tensors.values())
        self.batch_size = problem.settings.points_per_gradient(len(problem.train))
        self.optimizer = torch.optim.Adam(
            self._tensors, lr=problem.settings.learning_rate, fused=True
        )
        self._minibatches = Minibatches(problem.train, self.batch_size, problem.seed)

    def take(self, step: int) -> dict[str, float]:
        """Take one step; if the objective is not finite, the tensors do not change.

        Args:
            step: its number.

        Returns:
            `objective` and the other terms.
        """
        problem, optimizer = self._problem, self.optimizer
        x, y = self._minibatches.take(step)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(problem.settings, step)
        if not problem.writes_gradients:
            optimizer.zero_grad(set_to_none=True)
        objective, others = problem.objective(step, x, y)
        terms = {name: _number(term) for name, term in {"objective": objective, **others}.items()}
        if not math.isfinite(terms["objective"]):
            return terms
        if isinstance(objective, Tensor) and not problem.writes_gradients:
            # Per point, so that clip_norm does not depend on the size of the data.
            (objective / len(problem.train)).backward()
        if problem.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._tensors, problem.settings.clip_norm)
        optimizer.step()
        return terms


def _number(term: Tensor | float) -> float:
    return float(term.detach()) if isinstance(term, Tensor) else term


@dataclass
class _Progress:
    """The progress of an optimization; `window` sums logged terms since the last row."""

    step: int = 0
    seconds: float = 0.0
    smoothed: float = math.nan
    best: float = math.inf
    rows_since_best: int = 0
    window: dict[str, float] = field(default_factory=dict)


def _learning_rate(settings: OptimizationMethod, step: int) -> float:
    rate = settings.learning_rate
    if step < settings.warmup_steps:
        rate *= (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / settings.num_steps))
    return rate


def _watch(settings: OptimizationMethod, run: _Progress, validation_nll: float | None) -> None:
    """Count the rows since the smoothed validation NLL was at its best."""
    stopping = settings.early_stopping
    if stopping is None or validation_nll is None:
        return
    past = stopping.smoothing if math.isfinite(run.smoothed) else 0.0
    run.smoothed = (past * run.smoothed if past else 0.0) + (1 - past) * validation_nll
    if run.smoothed < run.best:
        run.best, run.rows_since_best = run.smoothed, 0
    else:
        run.rows_since_best += 1


def _has_stopped_early(settings: OptimizationMethod, run: _Progress) -> bool:
    return (
        settings.early_stopping is not None
        and run.rows_since_best >= settings.early_stopping.patience
    )


def _diverged(problem: OptimizationProblem, value: float, step: int, good: State) -> FitDiverged:
    if step == 0:
        advice = (
            "no step was taken yet; check the data, likelihood.noise and prior.scale, or try "
            "dtype=float64"
        )
    else:
        advice = (
            f"the state at step {int(good['step'])} was kept; try a lower inference.learning_rate "
            f"(now {problem.settings.learning_rate:g}) or inference.clip_norm=1.0"
        )
    return FitDiverged(
        f"the objective became {value} at step {step}; {advice}", {problem.chain: good}
    )


_WINDOW = "window."
_PROGRESS = ("step", "seconds", "smoothed", "best", "rows_since_best")


def _state(tensors: Mapping[str, Tensor], optimizer: torch.optim.Adam, run: _Progress) -> State:
    state = to_numpy(tensors)
    for name, tensor in tensors.items():
        moments: dict[str, Any] = optimizer.state.get(tensor, {})
        for moment in ("exp_avg", "exp_avg_sq"):
            state[f"{name}.{moment}"] = to_numpy(
                {"m": moments.get(moment, torch.zeros_like(tensor))}
            )["m"]
    for name in _PROGRESS:
        state[name] = np.asarray(getattr(run, name), dtype=np.float64)
    for name, total in run.window.items():
        state[_WINDOW + name] = np.asarray(total, dtype=np.float64)
    return state


def _restore(state: State, tensors: Mapping[str, Tensor], optimizer: torch.optim.Adam) -> _Progress:
    run = _Progress(
        step=int(state["step"]),
        seconds=float(state["seconds"]),
        smoothed=float(state["smoothed"]),
        best=float(state["best"]),
        rows_since_best=int(state["rows_since_best"]),
        window={
            name.removeprefix(_WINDOW): float(state[name])
            for name in state
            if name.startswith(_WINDOW)
        },
    )
    for name, tensor in tensors.items():
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(state[name]))
        if run.step:
            optimizer.state[tensor] = {
                # Fused Adam counts its steps in a float32 tensor on the device of the parameter.
                # It updates its moments in place, so they are copied.
                "step": torch.tensor(float(run.step), device=tensor.device),
                "exp_avg": torch.tensor(state[f"{name}.exp_avg"], device=tensor.device),
                "exp_avg_sq": torch.tensor(state[f"{name}.exp_avg_sq"], device=tensor.device),
            }
    return run
