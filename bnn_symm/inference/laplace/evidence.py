"""The evidence of the Laplace approximation, and the scale of a normal prior that maximizes it.

    log p(y | s) ~ log p(y | w*) + log p(w* | s) + (n / 2) log(2 pi) - (1 / 2) log det P

in nats, in the target's own units (with the Jacobian of the standardization), for all n
coordinates. At a fixed mode, with eigenvalues e of the curvature H and lambda = 1 / s^2,

    2 d log p(y | s) / d log lambda = sum_i e_i / (e_i + lambda) - lambda |w* - mean|^2,

which has one root, because the first term (the number of well-determined parameters) falls with
lambda and the second one rises. The mode depends on s in turn. So the scale is chosen while the
mode is optimized: at fixed steps, it is set to the root at the current position. Where both are at
rest, s is a stationary point of the evidence of a linear Gaussian model, exactly, and of the
Laplace evidence otherwise, except that the change of H with the mode is neglected. All of this
depends on the step and the position alone, so a resumed fit is bitwise identical.

References:
    MacKay 1992, doi:10.1162/neco.1992.4.3.415; Immer et al. 2021, arXiv:2104.04975, algorithm 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Dataset, Split
from bnn_symm.inference.callbacks import State
from bnn_symm.inference.laplace.blocks import Block, Factor
from bnn_symm.inference.optimization.optimizer import AdamStepper, OptimizationProblem
from bnn_symm.models import BayesianModel

PRIOR_SCALE = "prior_scale"
"""The name of the scale in states, rows of the history, and `info`."""

# The scale changes at this many steps, in this part of the fit.
_NUM_UPDATES = 12
_FIRST_UPDATE, _LAST_UPDATE = 0.25, 0.85
# Limits of a scale, beyond which a prior is as good as a point, or flat.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-4, 1e4
_BISECTIONS = 60
_POINTS_AT_ONCE = 1024
# Largest change of the logarithm of a scale that has settled.
_SETTLED = 0.05


def log_evidence(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    factors: Sequence[Factor],
    dataset: Dataset,
) -> float:
    """Return the log evidence of the Laplace approximation in nats, in the target's own units.

    Args:
        model: the model.
        position: the mode.
        factors: of the precision of all coordinates, at temperature 1.
        dataset: has the training split.
    """
    with torch.no_grad():
        total = _log_likelihood(model, position, dataset.train)
        total += float(model.log_prior(position))
    total -= dataset.train.total(dataset.scaling.log_jacobian(dataset.train.y))
    total += 0.5 * model.num_parameters * math.log(2 * math.pi)
    return total - 0.5 * sum(factor.log_determinant() for factor in factors)


def _log_likelihood(model: BayesianModel, position: Tensor, part: Split) -> float:
    return sum(
        float(model.log_likelihood(position, x, y).sum(dtype=torch.float64))
        for x, y in zip(
            part.x.split(_POINTS_AT_ONCE), part.targets.split(_POINTS_AT_ONCE), strict=True
        )
    )


def best_scale(
    model: BayesianModel, position: Float[Tensor, " parameter"], blocks: Sequence[Block]
) -> float:
    """Return the scale of the prior that maximizes the evidence at a fixed mode.

    Args:
        model: the model, whose prior is normal with one scale.
        position: the mode.
        blocks: the curvature of all coordinates.
    """
    end = model.num_net_parameters
    weights = position[:end].detach().double()
    prior = model.prior_standard_deviations(position.detach().double()).pow(-2)
    values = torch.cat([block.eigenvalues(prior, end) for block in blocks]).double()
    square = float((weights - model.parameter_prior.means(weights)).square().sum())
    low, high = (-2 * math.log(scale) for scale in (_LARGEST_SCALE, _SMALLEST_SCALE))
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        precision = math.exp(middle)
        if float((values / (values + precision)).sum()) > precision * square:
            low = middle
        else:
            high = middle
    return math.exp(-0.5 * low)


def with_prior_scale(model: BayesianModel, scale: float) -> BayesianModel:
    """Return the model with another scale of its prior.

    Args:
        model: the model.
        scale: of the prior.
    """
    return BayesianModel(model.net, replace(model.prior, scale=scale), model.likelihood)


def is_settled(scale: float, best: float) -> bool:
    """Return whether a scale is near the one that maximizes the evidence at the mode.

    Args:
        scale: of the prior.
        best: of `best_scale`.
    """
    return abs(math.log(scale / best)) <= _SETTLED


class EvidenceStepper(AdamStepper):
    """Steps of Adam to a mode, between which the scale of the prior is chosen.

    Args:
        problem: the optimization of `position`, whose objective has the first scale.
        with_scale: scale -> the same problem with this scale of the prior.
        choose: (scale, position) -> the next scale.
        first_scale: of the prior.
    """

    def __init__(
        self,
        problem: OptimizationProblem,
        with_scale: Callable[[float], OptimizationProblem],
        choose: Callable[[float, Tensor], float],
        first_scale: float,
    ):
        super().__init__(problem)
        self._with_scale, self._choose = with_scale, choose
        self._scale = first_scale
        span = (_LAST_UPDATE - _FIRST_UPDATE) / (_NUM_UPDATES - 1)
        self._updates = {
            int(self.num_steps * (_FIRST_UPDATE + span * number)) for number in range(_NUM_UPDATES)
        }

    def take(self, step: int) -> dict[str, float]:
        """Take one step, before which the scale may change.

        Args:
            step: its number.

        Returns:
            The terms of the objective, and the scale.
        """
        if step in self._updates:
            position = self.tensors["position"].detach()
            if bool(torch.isfinite(position).all()):
                self._use(self._choose(self._scale, position))
        return {**super().take(step), PRIOR_SCALE: self._scale}

    def _use(self, scale: float) -> None:
        self._scale = scale
        self.problem = replace(self.problem, objective=self._with_scale(scale).objective)

    def state(self) -> State:
        """Return the state of Adam, and the scale."""
        return {**super().state(), PRIOR_SCALE: np.asarray(self._scale)}

    def restore(self, state: State) -> None:
        """Restore the state of Adam, and the scale.

        Args:
            state: a previous state.
        """
        super().restore(state)
        self._use(float(state[PRIOR_SCALE]))
