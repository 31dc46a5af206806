"""The training loop, the one owner of steps, history rows, checkpoints and stopping.

A method describes its step as a `Stepper`; `train` does everything else. The step, and the order of
the data, depend only on (seed, step) and on the state of the stepper. So a fit that resumes from a
state gives the same results as an uninterrupted one.

A row of the history has means over the steps since the previous row, each on its own minibatch:
`objective` (the minimized function for the whole training split, in nats), `nll` (of the training
part, in nats per point, in the target's own units) and further terms of the method. In addition, it
has `validation_nll` and `validation_accuracy` at that step.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.errors import FitDiverged
from bnn_symm.inference.callbacks import Callback, State, to_numpy
from bnn_symm.inference.minibatches import Minibatches
from bnn_symm.settings import PositiveInt, settings


@settings
class EarlyStopping:
    """Stop when the smoothed validation NLL has not improved for a number of logged steps.

    Attributes:
        patience: logged steps without a new best smoothed value before stopping.
        smoothing: weight of the past in the exponential moving average.
    """

    patience: PositiveInt = 20
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.8


@runtime_checkable
class _LoopSettings(Protocol):
    """The settings of a method on which the loop depends."""

    @property
    def num_steps(self) -> int: ...
    @property
    def log_every(self) -> int | Literal["auto"]: ...
    def points_per_gradient(self, num_points: int) -> int: ...


class Stepper(ABC):
    """The steps of one chain.

    Args:
        method: the settings.
        train: the training split.
        seed: determines the order of the data.
        chain: index of the chain or ensemble member.

    Attributes:
        tensors: name -> tensor of the state. They change in place.
        first: number of the first step, from which the steps between rows are counted.
        num_steps: number at which the last step ends.
        early_stopping: None for none.
    """

    tensors: dict[str, Tensor]
    first: int = 0
    early_stopping: EarlyStopping | None = None

    def __init__(self, method: _LoopSettings, train: Split, seed: int, chain: int):
        self.chain, self.num_points, self.num_steps = chain, len(train), method.num_steps
        self.log_every = (
            max(1, method.num_steps // 200) if method.log_every == "auto" else method.log_every
        )
        self.batch_size = method.points_per_gradient(len(train))
        self.minibatches = Minibatches(train, self.batch_size, seed)

    @abstractmethod
    def take(self, step: int) -> Mapping[str, float]:
        """Take one step; if the objective is not finite, the tensors do not change.

        Args:
            step: its number.

        Returns:
            `objective` and other terms before the step, on its minibatch.
        """

    @abstractmethod
    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: its number.
        """

    @abstractmethod
    def validate(self, step: int) -> dict[str, float | None]:
        """Return `validation_nll` (None without a validation split) and other scores of a row.

        Args:
            step: number of steps taken.
        """

    @property
    @abstractmethod
    def step_settings(self) -> str:
        """Return the settings that make steps smaller, with their values, for messages."""

    def is_valid(self) -> bool:
        """Return whether the tensors define a posterior."""
        return all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors.values())

    def collects(self, step: int) -> bool:
        """Return whether `collect` is called after a number of steps."""
        return False

    def collect(self, step: int, callbacks: Callback) -> None:  # noqa: B027 - optional
        """Collect the current position.

        Args:
            step: number of steps taken.
            callbacks: receive draws.
        """

    def row(self, step: int, seconds: float, means: Mapping[str, float]) -> dict[str, Any]:
        """Return a row of the history.

        Args:
            step: number of steps taken.
            seconds: time that they took.
            means: of the terms since the last row.
        """
        return {
            "chain": self.chain,
            "step": step,
            "epoch": step * self.batch_size / self.num_points,
            "seconds": seconds,
            "gradient_evaluations": step,
            "learning_rate": self.learning_rate(step - 1),
            **means,
            **self.validate(step),
        }

    def state(self) -> State:
        """Return a copy of everything on which later steps depend, except for their number."""
        return to_numpy(self.tensors)

    def restore(self, state: State) -> None:
        """Restore a previous state.

        Args:
            state: returned by `state`.
        """
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(torch.from_numpy(state[name]))


def train(stepper: Stepper, callbacks: Callback, state: State | None = None) -> tuple[State, bool]:
    """Take all steps, from the current tensors or from a previous state.

    Args:
        stepper: takes the steps.
        callbacks: receive history, draws and states.
        state: the state to resume from, if any.

    Returns:
        The final state, and whether a callback stopped the fit.

    Raises:
        FitDiverged: if the objective or a tensor is not finite; it has the last finite state.
    """
    run = _Progress()
    if state is not None:
        run = _Progress.of(state)
        stepper.restore(state)
    started = time.perf_counter() - run.seconds

    def now() -> State:
        run.seconds = time.perf_counter() - started
        return {**stepper.state(), **run.state()}

    # The newest state may have caused the divergence, so `good` is one step older.
    good = latest = now()
    while run.step < stepper.num_steps and not run.is_over(stepper.early_stopping):
        if (run.step - stepper.first) % stepper.log_every == 0:
            callbacks.on_state(stepper.chain, now)
        if callbacks.should_stop():
            return now(), True
        terms = stepper.take(run.step)
        if not math.isfinite(terms["objective"]):
            raise _diverged(stepper, terms["objective"], run.step, good)
        good = latest
        run.add(terms)
        since = (run.step - stepper.first) % stepper.log_every
        row_is_due = since == 0 or run.step == stepper.num_steps
        collects = stepper.collects(run.step)
        if (row_is_due or collects) and not stepper.is_valid():
            raise _diverged(stepper, math.nan, run.step, good)
        if collects:
            stepper.collect(run.step, callbacks)
        if row_is_due:
            means = run.take_means(since or stepper.log_every)
            row = stepper.row(run.step, time.perf_counter() - started, means)
            callbacks.on_history(row)
            run.watch(stepper.early_stopping, row["validation_nll"])
            latest = now()
    return now(), False


_WINDOW = "window."
_NUMBERS = {"step": int, "seconds": float, "smoothed": float, "best": float, "rows_since_best": int}


@dataclass
class _Progress:
    """The progress of a fit; `window` sums terms since the last row."""

    step: int = 0
    seconds: float = 0.0
    smoothed: float = math.nan
    best: float = math.inf
    rows_since_best: int = 0
    window: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State) -> "_Progress":
        """Return the progress of a state."""
        numbers = {name: kind(state[name]) for name, kind in _NUMBERS.items() if name in state}
        sums = {n.removeprefix(_WINDOW): float(state[n]) for n in state if n.startswith(_WINDOW)}
        return cls(**numbers, window=sums)

    def state(self) -> State:
        """Return the numbers of a state."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        numbers |= {_WINDOW + name: total for name, total in self.window.items()}
        return {name: np.asarray(value, dtype=np.float64) for name, value in numbers.items()}

    def add(self, terms: Mapping[str, float]) -> None:
        """Count a step and add its terms."""
        self.step += 1
        for name, term in terms.items():
            self.window[name] = self.window.get(name, 0.0) + term

    def take_means(self, number: int) -> dict[str, float]:
        """Return the means of the terms over a number of steps, and reset the sums."""
        window, self.window = self.window, {}
        return {name: total / number for name, total in window.items()}

    def watch(self, stopping: EarlyStopping | None, validation_nll: float | None) -> None:
        """Count the rows since the smoothed validation NLL was at its best."""
        if stopping is None or validation_nll is None:
            return
        past = stopping.smoothing if math.isfinite(self.smoothed) else 0.0
        self.smoothed = (past * self.smoothed if past else 0.0) + (1 - past) * validation_nll
        if self.smoothed < self.best:
            self.best, self.rows_since_best = self.smoothed, 0
        else:
            self.rows_since_best += 1

    def is_over(self, stopping: EarlyStopping | None) -> bool:
        """Return whether the fit has stopped early."""
        return stopping is not None and self.rows_since_best >= stopping.patience


def _diverged(stepper: Stepper, value: float, step: int, good: State) -> FitDiverged:
    advice = (
        f"the state at step {int(good['step'])} was kept; try a lower {stepper.step_settings}"
        if step
        else "no step was taken yet; check the data, likelihood.noise and prior.scale, or try "
        "dtype=float64"
    )
    return FitDiverged(
        f"the objective of chain {stepper.chain} became {value} at step {step}; {advice}",
        {stepper.chain: good},
    )
