"""Permutation training: weights are only rearranged, and keep the values that they started with.

Adam takes `period` steps. Then the weights of each row (the inputs of one unit) are replaced by
their initial values, in the order of the present ones: the smallest value goes to the place of the
smallest weight, and so on; Adam continues from there. A fit changes where values are, and not
which they are. Biases, weights of norms and the parameters of the likelihood are optimized as
usual. The result, and the validation scores of the history, are those of arranged weights.

References:
    Qiu & Suda 2020, Train-by-Reconnect, NeurIPS 33, algorithm 1 (LaPerm).
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.architectures import free_parameters, weight_shapes
from bnn_symm.inference.callbacks import FitState, State, to_numpy
from bnn_symm.inference.fit_context import FitContext, FitOutcome
from bnn_symm.inference.optimization.deep_ensemble import DeepEnsemble
from bnn_symm.inference.optimization.optimizer import AdamStepper, OptimizationProblem
from bnn_symm.inference.training_loop import Stepper
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import PositiveInt, settings


@settings
class PermutationTraining(DeepEnsemble):
    """Settings of permutation training (config `inference: {name: permutation_training}`).

    Attributes:
        num_members: number of networks, each with initial values of its own.
        period: steps of Adam between rearrangements.
    """

    name: Literal["permutation_training"] = "permutation_training"  # pyright: ignore[reportIncompatibleVariableOverride]
    num_members: PositiveInt = 1
    period: PositiveInt = 20

    def _stepper(self, model: BayesianModel, problem: OptimizationProblem) -> Stepper:
        return _PermutationStepper(problem, model, self.period)

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        # The objective rises with each rearrangement, and an arrangement is no mode.
        weights = _row_numbers(fit.model).numpy() >= 0
        is_unmoved = [
            bool(weights.any())
            and np.array_equal(_arranged(fit.model, state)[weights], state["initial"][weights])
            for state in fit_state.states.values()
        ]
        if not any(is_unmoved):
            return []
        remedy = advise("inference.period or inference.learning_rate", "period or learning_rate")
        return [
            f"every weight is where it started, in {sum(is_unmoved)} of {len(is_unmoved)} "
            f"networks: Adam changed no order within a period; raise {remedy}"
        ]

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        states = {
            chain: {**state, "position": _arranged(outcome.model, state)}
            for chain, state in outcome.fit_state.states.items()
        }
        arranged = replace(outcome.fit_state, states=states)
        return replace(outcome, fit_state=arranged).last_positions()


def _arranged(model: BayesianModel, state: State) -> Float[np.ndarray, " parameter"]:
    """Return the initial values of a state in the order of its position."""
    initial, position = (torch.from_numpy(state[name]) for name in ("initial", "position"))
    return Rearrangement(model, initial)(position).numpy()


class Rearrangement:
    """Arrange the values of each row of a network's weights in the order of other values.

    Args:
        model: The model.
        values: (parameter,), the values, which every result has in each row.
    """

    def __init__(self, model: BayesianModel, values: Float[Tensor, " parameter"]) -> None:
        rows = _row_numbers(model).to(values.device)
        self._places = (rows >= 0).nonzero().squeeze(1)
        self._rows = rows[self._places]
        self._sorted = values[self._sorted_places(values)]

    def __call__(self, position: Float[Tensor, " parameter"]) -> Float[Tensor, " parameter"]:
        """Return the values, each row in the order of `position`.

        Args:
            position: (parameter,); entries that belong to no row are returned unchanged.
        """
        result = position.clone()
        result[self._sorted_places(position)] = self._sorted
        return result

    def _sorted_places(self, position: Tensor) -> Int[Tensor, " entry"]:
        """Return the places of all entries of rows, sorted by the row and by the value."""
        by_value = position[self._places].argsort(stable=True)
        return self._places[by_value[self._rows[by_value].argsort(stable=True)]]


def _row_numbers(model: BayesianModel) -> Int[Tensor, " parameter"]:
    """Return the number of the row of every parameter, -1 for those that are not rearranged.

    Rows are those of weights with two axes or more. Only entries that are inferred belong to one.
    """
    whole, count = {}, 0
    for name, shape in weight_shapes(model.net).items():
        if name in model.shapes and len(shape) > 1:
            numbers = torch.arange(count, count + shape[0])
            whole[name] = numbers.view(-1, *[1] * (len(shape) - 1)).expand(shape)
            count += shape[0]
    rows = free_parameters(model.net, whole)
    return torch.cat(
        [
            rows[name].flatten() if name in rows else torch.full((shape.numel(),), -1)
            for name, shape in model.shapes.items()
        ]
    )


class _PermutationStepper(AdamStepper):
    """Steps of Adam, after every `period` of which the initial values are rearranged."""

    def __init__(self, problem: OptimizationProblem, model: BayesianModel, period: int) -> None:
        super().__init__(problem)
        self._model, self._period = model, period
        self._initial = self.tensors["position"].detach().clone()
        self._rearrange = Rearrangement(model, self._initial)

    @torch.no_grad()
    def _update(self, step: int) -> None:
        super()._update(step)
        if (step + 1) % self._period == 0:
            position = self.tensors["position"]
            position.copy_(self._rearrange(position))

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float | None]:
        """Return the scores of the arrangement.

        Args:
            step: number of steps taken.
        """
        position = self.tensors["position"]
        present = position.clone()
        position.copy_(self._rearrange(present))
        row = super().validate(step)
        position.copy_(present)
        return row

    def state(self) -> State:
        """Return the state of Adam, and the initial values."""
        return {**super().state(), **to_numpy({"initial": self._initial})}

    def restore(self, state: State) -> None:
        """Restore the state of Adam, and the initial values.

        Args:
            state: a previous state.
        """
        super().restore(state)
        self._initial.copy_(torch.from_numpy(state["initial"]))
        self._rearrange = Rearrangement(self._model, self._initial)
