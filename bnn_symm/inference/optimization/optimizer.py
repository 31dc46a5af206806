"""Minibatch optimization with Adam, the common part of VI, MAP and deep ensembles.

A method states an `OptimizationProblem`; `AdamStepper` takes its steps in the training loop. The
learning rate depends only on the step, so a state consists of the optimized tensors, Adam's two
moments and a step number.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import FitState, State, to_numpy
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.method import Method
from bnn_symm.inference.minibatches import resolve_batch_size
from bnn_symm.inference.optimization.optimality import mode_warnings
from bnn_symm.inference.training_loop import EarlyStopping, Stepper, train
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import NonNegativeInt, Positive, PositiveInt, settings


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

    clips_norms: ClassVar[bool] = True

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


def optimize_single_chain(
    fit: FitContext, problem: OptimizationProblem, stepper: Stepper | None = None
) -> tuple[State, bool]:
    """Run an optimizer as the only chain of a fit, and record the final state.

    Args:
        fit: the arguments of the fit.
        problem: the optimization problem.
        stepper: takes the steps; by default Adam.

    Returns:
        The final state, and whether a callback stopped the optimization.
    """
    stepper = stepper or AdamStepper(problem)
    state, stopped = train(stepper, fit.callbacks, fit.fit_state.states.get(0))
    fit.recorder.keep_state(0, state)
    return state, stopped


class GradientStepper(Stepper):
    """Steps along the gradient of the objective on a minibatch.

    Args:
        problem: the optimization problem.
    """

    def __init__(self, problem: OptimizationProblem):
        super().__init__(problem.settings, problem.train, problem.seed, problem.chain)
        self.problem, self.tensors = problem, dict(problem.tensors)
        self._leaves = list(problem.tensors.values())

    def take(self, step: int) -> dict[str, float]:
        """Take one step; if the objective is not finite, the tensors do not change.

        Args:
            step: its number.

        Returns:
            `objective` and the other terms.
        """
        problem = self.problem
        if not problem.writes_gradients:
            for leaf in self._leaves:
                leaf.grad = None
        objective, others = problem.objective(step, *self.minibatches.take(step))
        terms = {name: _number(term) for name, term in {"objective": objective, **others}.items()}
        if not math.isfinite(terms["objective"]):
            return terms
        if isinstance(objective, Tensor) and not problem.writes_gradients:
            self._loss(objective).backward()
        if problem.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._leaves, problem.settings.clip_norm)
        self._update(step)
        return terms

    @abstractmethod
    def _loss(self, objective: Tensor) -> Tensor:
        """Return the loss whose gradient is used, from the objective of the whole data."""

    @abstractmethod
    def _update(self, step: int) -> None:
        """Change the tensors by their gradients."""

    def validate(self, step: int) -> dict[str, float | None]:
        """Return the scores of a row.

        Args:
            step: number of steps taken.
        """
        return self.problem.validate(step)


class ScheduledStepper(GradientStepper):
    """Steps with the learning rate of a schedule, which may stop early."""

    def __init__(self, problem: OptimizationProblem):
        super().__init__(problem)
        self.early_stopping = problem.settings.early_stopping

    def _loss(self, objective: Tensor) -> Tensor:
        # Per point, so that clip_norm does not depend on the size of the data.
        return objective / self.num_points

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, by the schedule.

        Args:
            step: its number.
        """
        method = self.problem.settings
        rate = method.learning_rate
        if step < method.warmup_steps:
            rate *= (step + 1) / method.warmup_steps
        if method.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / method.num_steps))
        return rate

    @property
    def step_settings(self) -> str:
        """Return the learning rate and the clipping of gradients."""
        rate = self.problem.settings.learning_rate
        return f"inference.learning_rate (now {rate:g}) or inference.clip_norm=1.0"

    def is_valid(self) -> bool:
        """Return whether all tensors are finite, and the problem accepts them."""
        return super().is_valid() and self.problem.is_valid()


class AdamStepper(ScheduledStepper):
    """Steps of fused Adam; each depends on its number, the tensors and the moments only."""

    def __init__(self, problem: OptimizationProblem):
        super().__init__(problem)
        self._adam = torch.optim.Adam(self._leaves, lr=problem.settings.learning_rate, fused=True)

    def _update(self, step: int) -> None:
        for group in self._adam.param_groups:
            group["lr"] = self.learning_rate(step)
        self._adam.step()

    def state(self) -> State:
        """Return the tensors and their moments."""
        state = super().state()
        for name, tensor in self.tensors.items():
            moments: dict[str, Any] = self._adam.state.get(tensor, {})
            zeros = torch.zeros_like(tensor)
            state |= to_numpy({f"{name}.{m}": moments.get(m, zeros) for m in _MOMENTS})
        return state

    def restore(self, state: State) -> None:
        """Restore the tensors and their moments.

        Args:
            state: a previous state.
        """
        super().restore(state)
        for name, tensor in self.tensors.items():
            # Fused Adam counts its steps in a float32 tensor on the device of the parameter. It
            # updates its moments in place, so they are copied.
            count = torch.tensor(float(state["step"]), device=tensor.device)
            moments = {
                m: torch.tensor(state[f"{name}.{m}"], device=tensor.device) for m in _MOMENTS
            }
            if count:
                self._adam.state[tensor] = {"step": count, **moments}


_MOMENTS = ("exp_avg", "exp_avg_sq")


def _number(term: Tensor | float) -> float:
    return float(term.detach()) if isinstance(term, Tensor) else term
