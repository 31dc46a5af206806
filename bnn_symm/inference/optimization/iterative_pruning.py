"""Iterative magnitude pruning with rewinding: a sequence of networks of increasing sparsity.

The first level is a MAP fit of all weights. Then, for every further level: of the weights that are
left, the fraction with the smallest magnitudes is removed, those that remain are rewound to their
values at an early step, and they are trained as before from that step on, in the same order of the
data and with the same learning rates. So level k has (1 - fraction)^k of the weights.

Weights of all layers are compared together. Tensors of two or more dimensions are pruned (matrices
and kernels); biases and norms are not. A removed weight is zero.

The result is the network of the last level. The states at the ends of all levels are preserved in a
run (`Run.checkpoints`), with their masks.

References:
    Frankle, Dziugaite, Roy & Carbin 2020, "Linear mode connectivity and the lottery ticket
    hypothesis", arXiv:1912.05671; Sharma et al. 2024, arXiv:2404.06498 (20 levels of 20 %).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference.callbacks import Callback, FitState, State, to_numpy
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.optimization.map import ModeMethod, mode_problem
from bnn_symm.inference.optimization.optimality import curve_warnings
from bnn_symm.inference.optimization.optimizer import AdamStepper
from bnn_symm.inference.training_loop import train
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.settings import NonNegativeInt, Positive, PositiveInt, settings

# With rewind_step auto, a part of the steps of a level: 5 of 160 epochs, as Sharma et al. have it.
_REWIND = 32


@settings
class IterativePruning(ModeMethod):
    """Settings of iterative pruning (config `inference: {name: iterative_pruning}`).

    Attributes:
        num_steps: gradient steps of the first level; each further one has `rewind_step` fewer.
        num_levels: levels after the first one, which is not pruned.
        fraction: fraction of the remaining weights that is removed before each level.
        rewind_step: step of the first level to whose weights the others are rewound; 0 for the
            initial values; `auto` is a thirty-second of the steps.
    """

    name: Literal["iterative_pruning"] = "iterative_pruning"
    learning_rate: Positive = 0.003
    num_levels: PositiveInt = 20
    fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    rewind_step: NonNegativeInt | Literal["auto"] = "auto"

    @property
    def rewound_to(self) -> int:
        """Return the step of the first level to whose weights the others are rewound."""
        return self.num_steps // _REWIND if self.rewind_step == "auto" else self.rewind_step

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Return the steps at which the levels end."""
        further = self.num_steps - self.rewound_to
        return tuple(self.num_steps + level * further for level in range(self.num_levels + 1))

    @property
    def steps_per_chain(self) -> int:
        """Return the number of steps of all levels."""
        return self.kept_steps[-1]

    def num_left(self, num_weights: int, level: int) -> int:
        """Return the number of weights that are left at a level, at least one.

        Args:
            num_weights: number of weights that can be pruned.
            level: 0 for the first.

        Example:
            >>> [IterativePruning().num_left(1000, level) for level in (0, 1, 2, 20)]
            [1000, 800, 640, 12]
        """
        return max(1, round(num_weights * (1 - self.fraction) ** level))

    def check(self, dataset: Dataset) -> None:
        """Check the rewinding step, and that no level stops early.

        Args:
            dataset: the data to fit.

        Raises:
            ConfigError: if a level would have no steps, or could stop early.
        """
        super().check(dataset)
        if self.rewound_to >= self.num_steps:
            raise ConfigError(
                f"inference.rewind_step={self.rewind_step}: the first level ends at step "
                f"{self.num_steps}; name an earlier step"
            )
        if self.early_stopping is not None:
            raise ConfigError(
                "inference.early_stopping: all levels of iterative_pruning have equally many "
                "steps; leave it out, or lower inference.num_steps"
            )

    def fit_mask(
        self,
        model: BayesianModel,
        dataset: Dataset,
        *,
        seed: int,
        rewind: Float[Tensor, " parameter"],
        mask: Bool[Tensor, " parameter"],
    ) -> SamplePosterior:
        """Train one level with a given mask, such as that of another network.

        Args:
            model: the model.
            dataset: the training split is fitted.
            seed: determines the order of the data. With the seed, the rewound values and the mask
                of a level, the result is that level.
            rewind: the values to which the weights are rewound.
            mask: which entries are left.

        Returns:
            The network as a posterior of one draw.

        Example:
            >>> import torch
            >>> from bnn_symm import BayesianModel, Categorical, Prior, load_dataset
            >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
            >>> start, mask = model.initial(), torch.arange(15) > 2
            >>> method, data = IterativePruning(num_steps=8), load_dataset("iris")
            >>> method.fit_mask(model, data, seed=0, rewind=start, mask=mask).mean()[:3].tolist()
            [0.0, 0.0, 0.0]
        """
        fit = self._context(model, dataset, seed, None, (), None, None)
        before = {"level": np.zeros(()), "step": np.asarray(float(self.num_steps))}
        level = _Level(self, fit, self.density(fit), 1, rewind * mask, mask, rewind)
        state, _ = train(level, Callback(), before)
        draw = torch.from_numpy(state["position"])[None, None]
        return SamplePosterior.from_draws(model, draw, dataset.scaling)

    def _run(self, fit: FitContext) -> bool:
        state, density = fit.fit_state.states.get(0), self.density(fit)
        while (level := self._next_level(state)) <= self.num_levels:
            position, mask, rewind = self._begin(fit, state, level)
            stepper = _Level(self, fit, density, level, position, mask, rewind)
            state, stopped = train(stepper, fit.callbacks, state)
            fit.recorder.keep_state(0, state)
            if stopped:
                return True
            # The next level starts without moments, so that the end of this one needs none.
            end = {name: own for name, own in state.items() if not name.startswith("position.")}
            fit.callbacks.on_state(0, lambda end=end: end, essential=True)
        return False

    def _next_level(self, state: State | None) -> int:
        """Return the level that the state is in, or the one after it if the state is its end."""
        if state is None:
            return 0
        level = int(state["level"])
        return level + (int(state["step"]) == self.kept_steps[level])

    def _begin(
        self, fit: FitContext, state: State | None, level: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return position, mask and rewound values at the start of a level, or at a state in it."""
        if state is None:
            start = initial_position(fit)
            return start, torch.ones_like(start, dtype=torch.bool), start
        position, mask, rewind = (
            torch.from_numpy(state[name]).to(fit.model.device)
            for name in ("position", "mask", "rewind")
        )
        if int(state["level"]) < level:
            weights = prunable_weights(fit.model)
            mask = magnitude_mask(position, mask, weights, self.num_left(int(weights.sum()), level))
            position = rewind * mask
        return position, mask, rewind

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return a message if the last level ended while its objective still decreased."""
        rows = [row for row in fit_state.history if row["level"] == self.num_levels]
        return [note for note in curve_warnings(self, rows, fit.model.num_parameters) if note]

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        return outcome.last_positions()


def prunable_weights(model: BayesianModel) -> Bool[Tensor, " parameter"]:
    """Return which entries of the flat vector can be pruned: those of matrices and kernels.

    Args:
        model: the model.

    Example:
        >>> import torch
        >>> from bnn_symm import BayesianModel, Categorical, Prior
        >>> model = BayesianModel(torch.nn.Linear(2, 3), Prior(), Categorical())
        >>> prunable_weights(model).tolist()  # a matrix of six entries, then three biases
        [True, True, True, True, True, True, False, False, False]
    """
    values = model.unflatten(model.initial())
    whole = model.layer_values(values)
    chosen = {
        name: torch.full_like(value, float(name in whole and whole[name].dim() > 1))
        for name, value in values.items()
    }
    return model.flatten(chosen).bool()


def weights_left(posterior: Posterior) -> Bool[Tensor, " parameter"]:
    """Return which entries of the flat vector are not pruned: those that are not weights of zero.

    Args:
        posterior: a network, as a posterior of one draw.
    """
    return (posterior.mean() != 0) | ~prunable_weights(posterior.model)


def magnitude_mask(
    position: Float[Tensor, " parameter"],
    mask: Bool[Tensor, " parameter"],
    weights: Bool[Tensor, " parameter"],
    left: int,
) -> Bool[Tensor, " parameter"]:
    """Return the mask that keeps the largest of the weights that are left.

    Args:
        position: trained values.
        mask: which entries are left so far.
        weights: which entries can be pruned; all others stay as they are.
        left: number of weights to keep.

    Returns:
        The new mask.

    Example:
        >>> import torch
        >>> position, every = torch.tensor([0.3, -2.0, 0.1, 0.0]), torch.ones(4, dtype=torch.bool)
        >>> magnitude_mask(position, every, torch.tensor([True, True, True, False]), 2).tolist()
        [True, True, False, True]
    """
    magnitudes = torch.where(mask & weights, position.abs(), -1.0)
    kept = magnitudes.argsort(descending=True, stable=True)[:left]
    chosen = torch.zeros_like(mask)
    chosen[kept] = True
    return torch.where(weights, chosen & mask, mask)


class _Level(AdamStepper):
    """Steps of one level; all but the first start at the step to which weights are rewound.

    Args:
        method: its settings.
        fit: the arguments of the fit.
        density: the tempered posterior.
        level: 0 for the first.
        position: (parameter,), where the level starts.
        mask: (parameter,), which entries are left.
        rewind: (parameter,), the values to which the next level is rewound.
    """

    def __init__(
        self,
        method: IterativePruning,
        fit: FitContext,
        density: MinibatchDensity,
        level: int,
        position: Tensor,
        mask: Tensor,
        rewind: Tensor,
    ):
        problem = mode_problem(
            method,
            density,
            fit.dataset,
            fit.seed,
            0,
            position,
            transform=lambda step, position: position * mask,
        )
        super().__init__(problem)
        self.level, self._mask, self._rewind = level, mask, rewind.detach().clone()
        self._rewound_to = method.rewound_to
        self.num_steps = method.kept_steps[level]
        self.first = method.kept_steps[level - 1] if level else 0
        self._offset = self.first - self._rewound_to if level else 0
        self._weights = prunable_weights(fit.model)

    def take(self, step: int) -> dict[str, float]:
        """Take one step, with the data and the learning rate of its place in the level."""
        return super().take(step - self._offset)

    def collects(self, step: int) -> bool:
        """Return whether later levels are rewound to this step."""
        return self.level == 0 and step == self._rewound_to

    def collect(self, step: int, callbacks: Callback) -> None:
        """Store the values to which later levels are rewound."""
        self._rewind.copy_(self.tensors["position"].detach())

    def row(self, step: int, seconds: float, means: Mapping[str, float]) -> dict[str, Any]:
        """Return a row of the history, with the level and the fraction of the weights left."""
        row = super().row(step - self._offset, seconds, means)
        left = float(self._mask[self._weights].double().mean())
        work = {
            "step": step,
            "epoch": step * self.batch_size / self.num_points,
            "gradient_evaluations": step,
        }
        return row | work | {"level": self.level, "weights_left": left}

    def state(self) -> State:
        """Return the tensors, their moments, the mask and the values to rewind to."""
        own = to_numpy({"mask": self._mask, "rewind": self._rewind})
        return super().state() | own | {"level": np.asarray(self.level, dtype=np.float64)}

    def restore(self, state: State) -> None:
        """Restore a state of this level; the end of the one before leaves a fresh start.

        Args:
            state: a previous state.
        """
        if int(state["level"]) == self.level:
            super().restore({**state, "step": np.asarray(state["step"] - self.first)})
