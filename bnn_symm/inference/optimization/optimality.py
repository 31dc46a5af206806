"""Measures of the distance between the end of an optimization and its optimum, and warnings.

Three quantities are used, each in nats or in posterior standard deviations, so that one limit
applies to every model:

- The decrease of the objective by L-BFGS, in at most thirty full-batch steps from the end. Near the
  optimum, this is half the squared distance to it in posterior standard deviations. Too few steps
  give a lower bound.
- For a fitted distribution with spread, E_q[(w - m)^T grad U(w)] / D. It is 1 if the covariance has
  the right size (exactly so for an optimal normal): it is the ratio of its variances to those of
  the posterior.
- If neither is affordable, the decrease of the objective over the last eighth of its history, where
  a decaying learning rate is almost zero, and the rise of the objective above its minimum.

Draws of the posterior of D weights are about D / 2 nats above its mode, and sqrt(D) standard
deviations from it. An end closer than a third of that is as good as the mode.

The work is a fraction of that of the fit, so for long fits to many points, distances are lower
bounds from few iterations.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.formatting import number
from bnn_symm.inference.minibatches import minibatch_potential
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import ClosedFormPosterior, Posterior

# Acceptable squared distance in posterior variances: this fraction of D, and at least the second
# number.
_NEAR, _LEAST = 0.1, 1.0
# Maximum iterations of L-BFGS, the fraction of the work of a fit that they may take, and the number
# of points times parameters up to which the maximum is always used.
_ITERATIONS, _WORK, _SMALL = 30, 0.1, 3e7
# Acceptable range of relative variances.
_NARROW, _WIDE = 0.4, 2.5
# Chains that are checked, draws of a distribution, and points per gradient evaluation.
_CHAINS, _DEVIATIONS, _POINTS = 5, 16, 512
# Minimum rows of the history for the drift, and standard errors by which it must differ from 0.
_ROWS, _STANDARD_ERRORS = 8, 5.0

History = Sequence[Mapping[str, Any]]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(position, x, y) -> the objective of the whole training split in nats, estimated from these
points."""


def squared_distance_limit(num_parameters: int) -> float:
    """Return the squared distance from the optimum, in posterior variances, that is acceptable.

    Args:
        num_parameters: number of optimized parameters.
    """
    return max(_LEAST, _NEAR * num_parameters)


def iterations(num_points: int, num_parameters: int, work: float | int) -> int:
    """Return the number of affordable iterations of L-BFGS, relative to the work of the fit.

    Args:
        num_points: size of the training split.
        num_parameters: number of optimized parameters.
        work: points of all gradients of the fit, divided by the gradients that one evaluation of
            the objective needs.
    """
    affordable = int(_WORK * work / num_points / 2)
    if num_points * num_parameters <= _SMALL:
        affordable = _ITERATIONS
    return min(_ITERATIONS, 2 * num_parameters, max(0, affordable))


def squared_distance(
    objectives: Sequence[Objective],
    position: Float[Tensor, " parameter"],
    part: Split,
    *,
    points_at_once: int,
    iterations: int,
) -> float:
    """Return twice the decrease of the objective in further full-batch steps of L-BFGS.

    For a quadratic objective and enough steps, this is the squared distance to the optimum in
    posterior variances. Otherwise it is a lower bound.

    Args:
        objectives: one objective, or two independent estimates of one. The steps minimize the
            first, and the decrease of the second counts.
        position: end of the optimization.
        part: the training split.
        points_at_once: points per gradient evaluation.
        iterations: iterations of L-BFGS, at least one.
    """
    first, last = objectives[0], objectives[-1]
    point = position.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point],
        max_iter=iterations,
        history_size=iterations,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value, point.grad = _value_and_gradient(first, point, part, points_at_once)
        return value

    optimizer.step(closure)
    before, after = (_value(last, end, part, points_at_once) for end in (position, point))
    return 2 * max(0.0, before - after) if math.isfinite(after) else 0.0


def relative_variance(
    objective: Objective,
    mean: Float[Tensor, " parameter"],
    deviations: Iterable[Float[Tensor, " parameter"]],
    part: Split,
    *,
    points_at_once: int,
) -> float:
    """Return the mean ratio of the variances of a distribution to those of the posterior.

    Args:
        objective: U.
        mean: mean of the distribution.
        deviations: deviations of draws from the mean.
        part: the training split.
        points_at_once: points per gradient evaluation.
    """
    values = []
    for d in deviations:
        _, gradient = _value_and_gradient(objective, mean + d, part, points_at_once)
        values.append(float(d.double() @ gradient.double()))
    return float(np.mean(values)) / len(mean)


def _distance_warning(
    method: Any, square: float, num_parameters: int, member: str = ""
) -> str | None:
    """Return a message if the end of an optimization is far from its optimum, otherwise None."""
    limit = squared_distance_limit(num_parameters)
    if not square > limit:
        return None
    return (
        f"{method.name}{member} ended {number(math.sqrt(square), 2)} posterior standard deviations "
        f"from its optimum (limit {number(math.sqrt(limit), 2)}): further full-batch steps lower "
        f"the objective by {number(square / 2)} nats; fit for longer: "
        f"{method.longer_fit_override()}"
    )


def _variance_warning(
    method: Any, ratio: float, advice: str, *, narrow: float = _NARROW, wide: float = _WIDE
) -> str | None:
    """Return a message if variances differ much from those of the posterior, otherwise None."""
    if narrow <= ratio <= wide:
        return None
    return (
        f"variances of {method.name} are {number(ratio)} times those of the posterior "
        f"(limits {number(narrow)} to {number(wide)}): {advice}"
    )


def drift_warning(
    name: str, rows: Sequence[Mapping[str, Any]], num_parameters: int, advice: str
) -> str | None:
    """Return a message if an objective is still decreasing, or ended far above its minimum.

    Args:
        name: name of the method.
        rows: rows of one chain, with `step` and `objective`.
        num_parameters: number of optimized parameters.
        advice: override of the configuration that lengthens the fit.
    """
    values = np.array([row["objective"] for row in rows], dtype=np.float64)
    steps = np.array([row["step"] for row in rows], dtype=np.float64)
    if len(values) < 2 * _ROWS or not np.isfinite(values).all():
        return None
    kept = max(_ROWS, len(values) // 8)
    x, y = steps[-kept:] - steps[-kept:].mean(), values[-kept:]
    slope = float(x @ y / (x @ x))
    noise = float(np.sqrt(np.square(y - y.mean() - slope * x).sum() / (kept - 2) / (x @ x)))
    fall, limit = -slope * (x[-1] - x[0]), 0.5 * squared_distance_limit(num_parameters)
    if fall > limit and -slope > _STANDARD_ERRORS * noise:
        return (
            f"{name}: the objective was still decreasing at the end, by {number(fall)} nats over "
            f"the last {kept} rows of the history (limit {number(limit)}); fit for longer: {advice}"
        )
    means = np.convolve(values, np.full(_ROWS, 1 / _ROWS), "valid")
    spread = float(y.std(ddof=2)) / math.sqrt(_ROWS)
    rise = float(means[-1] - means.min())
    if rise > limit + 2 * _STANDARD_ERRORS * spread:
        return (
            f"{name}: the objective ended {number(rise)} nats above its minimum (limit "
            f"{number(limit)}); lower inference.learning_rate"
        )
    return None


class _End:
    """The end of a fit, with the gradients that are affordable relative to its work."""

    def __init__(self, method: Any, fit: Any):
        self.method, self.model, self.train = method, fit.model, fit.dataset.train
        self.size = self.model.num_parameters
        self.objective = potential(method, self.model, len(self.train))
        batch_size = method.points_per_gradient(len(self.train))
        self.work = batch_size * method.num_steps
        self.passes = self.work / len(self.train)
        self._at_once = max(batch_size, _POINTS)

    def iterations(self, per_evaluation: int = 1) -> int:
        """Return the affordable iterations, if an evaluation needs several gradients."""
        return iterations(len(self.train), self.size, self.work / per_evaluation)

    def squared_distance(
        self, objectives: Sequence[Objective], position: Tensor, number: int
    ) -> float:
        """Return the squared distance of a position from the optimum."""
        return squared_distance(
            objectives, position, self.train, points_at_once=self._at_once, iterations=number
        )

    def relative_variance(self, mean: Tensor, deviations: Sequence[Tensor]) -> float:
        """Return the relative variance of a distribution, from deviations with both signs."""
        both = [side * d for d in deviations for side in (1, -1)]
        return relative_variance(
            self.objective, mean, both, self.train, points_at_once=self._at_once
        )


def mode_warnings(
    method: Any, fit: Any, history: History, positions: Mapping[int, np.ndarray]
) -> list[str]:
    """Return messages for optimizations of positions that ended far from a mode.

    If the distance is not affordable, the history is checked instead.

    Args:
        method: its settings.
        fit: has the model and the data.
        history: its rows.
        positions: chain -> final position.
    """
    end = _End(method, fit)
    number = end.iterations()
    if not number:
        return _distinct(curve_warnings(method, history, end.size))
    notes = []
    for chain, position in list(positions.items())[:_CHAINS]:
        at = torch.from_numpy(position).to(end.model.device, end.model.dtype)
        square = end.squared_distance([end.objective], at, number)
        member = "" if len(positions) == 1 else f", member {chain},"
        notes.append(_distance_warning(method, square, end.size, member))
    return _distinct(notes)


def distribution_warnings(
    method: Any, fit: Any, history: History, posterior: Posterior, *, has_distance: bool = True
) -> list[str]:
    """Return messages on the distance, the drift and the variances of a fitted distribution.

    Args:
        method: its settings.
        fit: has the model and the data.
        history: its rows.
        posterior: the fitted distribution.
        has_distance: whether the optimal mean has a zero expected gradient of the potential.
    """
    end = _End(method, fit)
    mean, deviations = _spread(posterior, end.passes)
    number = end.iterations(len(deviations))
    if has_distance and number and len(deviations) >= 2:
        halves = [_expected(end.objective, half) for half in (deviations[::2], deviations[1::2])]
        square = end.squared_distance(halves, mean, number)
        notes = [_distance_warning(method, square, end.size)]
    else:
        notes = curve_warnings(method, history, end.size)
    if len(deviations) >= 2:
        ratio = end.relative_variance(mean, deviations)
        advice = f"fit for longer: {method.longer_fit_override()}"
        notes.append(_variance_warning(method, ratio, advice))
    return _distinct(notes)


def curve_warnings(method: Any, history: History, num_parameters: int) -> list[str | None]:
    """Return messages on the ends of the objective curves of all chains.

    Args:
        method: its settings.
        history: its rows.
        num_parameters: number of optimized parameters.
    """
    chains = dict.fromkeys(row.get("chain", 0) for row in history)
    return [
        drift_warning(
            method.name if len(chains) == 1 else f"{method.name}, member {chain}",
            [row for row in history if row.get("chain", 0) == chain],
            num_parameters,
            method.longer_fit_override(),
        )
        for chain in chains
    ]


def potential(method: Any, model: BayesianModel, size: int) -> Objective:
    """Return minus the tempered log density, estimated from a subset of the points.

    Args:
        method: has temperature and prior weight.
        model: the model.
        size: size of the training split.
    """

    def objective(position: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return minibatch_potential(method, model, position, x, y, size)[0]

    return objective


def iterate_warnings(
    method: Any, fit: Any, posterior: Posterior, *, limit: float, advice: str
) -> list[str]:
    """Return messages on a distribution of iterates that is far from the mode or much too wide.

    Its mean may be as far from the mode as draws of the posterior are.

    Args:
        method: its settings.
        fit: has the model and the data.
        posterior: the fitted distribution.
        limit: largest acceptable relative variance.
        advice: what to do above the limit.
    """
    end = _End(method, fit)
    mean, deviations = _spread(posterior, end.passes)
    number = end.iterations()
    notes = []
    if number:
        square = end.squared_distance([end.objective], mean, number)
        if square > max(_LEAST, end.size):
            notes.append(_distance_warning(method, square, end.size))
    ratio = end.relative_variance(mean, deviations)
    return _distinct([*notes, _variance_warning(method, ratio, advice, narrow=0.0, wide=limit)])


def _spread(posterior: Posterior, passes: float) -> tuple[Tensor, list[Tensor]]:
    """Return the mean of a distribution and deviations of draws, as many as are affordable."""
    number = min(_DEVIATIONS, max(2, int(_WORK * passes / 2)))
    if not isinstance(posterior, ClosedFormPosterior):
        number = min(number, posterior.shape[0] * posterior.shape[1])
    draws = posterior.draws(number, seed=0).to(posterior.model.device)
    mean = (
        posterior.mean().to(posterior.model.device)
        if isinstance(posterior, ClosedFormPosterior)
        else _mean(posterior)
    )
    return mean, list(draws - mean)


def _mean(posterior: Posterior) -> Tensor:
    total, number = (
        torch.zeros(
            posterior.model.num_parameters, dtype=torch.float64, device=posterior.model.device
        ),
        0,
    )
    for chunk in posterior.iter_draws():
        total, number = total + chunk.double().sum(0), number + len(chunk)
    return (total / number).to(posterior.model.dtype)


def _expected(objective: Objective, deviations: Sequence[Tensor]) -> Objective:
    """Return the mean of an objective over deviations with both signs."""
    both = [side * d for d in deviations for side in (1, -1)]

    def expected(position: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([objective(position + d, x, y) for d in both]).mean()

    return expected


def _distinct(notes: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(note for note in notes if note is not None))


def _chunks(part: Split, size: int) -> Iterable[tuple[Tensor, Tensor, float]]:
    """Yield chunks of points, and the fraction of all points in each."""
    for start in range(0, len(part), size):
        chunk = slice(start, start + size)
        yield part.x[chunk], part.targets[chunk], len(part.x[chunk]) / len(part)


def _value_and_gradient(
    objective: Objective, position: Tensor, part: Split, size: int
) -> tuple[float, Tensor]:
    total, gradient = 0.0, torch.zeros_like(position)
    for x, y, share in _chunks(part, size):
        leaf = position.detach().clone().requires_grad_()
        value = objective(leaf, x, y)
        total += share * float(value.detach())
        gradient += share * torch.autograd.grad(value, leaf)[0]
    return total, gradient


def _value(objective: Objective, position: Tensor, part: Split, size: int) -> float:
    with torch.no_grad():
        return sum(share * float(objective(position, x, y)) for x, y, share in _chunks(part, size))
