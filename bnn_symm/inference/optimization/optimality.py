r"""Has an optimization come to its optimum? A warning where it ended far from it.

Three numbers say so, each in nats or in posterior standard deviations, so that one limit serves
every model:

- how far L-BFGS lowers the objective from there, in at most thirty full-batch steps. Near the
  optimum this is half the squared distance to it in posterior standard deviations; fewer steps than
  it takes give a lower bound;
- of a fitted law with spread, E_q[(w - m)^T grad U(w)] / D, which is 1 where the covariance has the
  right size (of an optimal normal exactly): its variances in units of those of the posterior;
- where neither is affordable, the fall of the objective over the last eighth of its history, where
  a learning rate that ends has all but ended, and how far it ended above its best.

Draws of the posterior of D weights lie some D / 2 nats above its mode, and sqrt(D) standard
deviations from it. An end that is nearer than a third of that is as good as the mode.

The work is a share of that of the fit, so that of long fits to many points distances are bounds
from few iterations.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import ClosedFormPosterior, Posterior

# A squared distance of this share of D posterior variances is near; at least so many variances.
_NEAR, _LEAST = 0.1, 1.0
# Iterations of L-BFGS, the share of the work of a fit that they may take, and the
# number of points times parameters up to which they are made in any case.
_ITERATIONS, _WORK, _SMALL = 30, 0.1, 3e7
# Variances in units of the posterior's that are of the right size.
_NARROW, _WIDE = 0.4, 2.5
# Chains that are looked at, draws of a law, and points that are taken at once.
_CHAINS, _DEVIATIONS, _POINTS = 5, 16, 512
# Rows of the history that the drift is taken from, and standard errors that it must be from 0.
_ROWS, _CERTAIN = 8, 5.0

History = Sequence[Mapping[str, Any]]
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(position, x, y) -> the objective of the whole training part in nats, as estimated from these
points."""


def squared_distance_limit(num_parameters: int) -> float:
    """Return the squared distance from the optimum, in posterior variances, that counts as none."""
    return max(_LEAST, _NEAR * num_parameters)


def iterations(num_points: int, num_parameters: int, work: float | int) -> int:
    """Return how many iterations of L-BFGS a fit is worth.

    Args:
        num_points: of the training part.
        num_parameters: that are optimized.
        work: points of all gradients of the fit, less those that one iteration needs more of.
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
    """Return twice the fall of the objective under further full-batch steps of L-BFGS.

    Of a quadratic objective, and of enough steps, this is the squared distance to the optimum in
    posterior variances; otherwise it is a lower bound.

    Args:
        objectives: one, or two independent estimates of one: what the steps on the first gain
            counts as far as the second confirms it.
        position: where the optimization ended.
        part: the training part.
        points_at_once: of one gradient.
        iterations: of L-BFGS, one at least.
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
        point.grad = _gradient(first, point, part, points_at_once)
        return _value(first, point, part, points_at_once)

    optimizer.step(closure)
    before, after = (_value(last, at, part, points_at_once) for at in (position, point))
    return 2 * max(0.0, before - after) if math.isfinite(after) else 0.0


def relative_variance(
    objective: Objective,
    mean: Float[Tensor, " parameter"],
    deviations: Iterable[Float[Tensor, " parameter"]],
    part: Split,
    *,
    points_at_once: int,
) -> float:
    """Return the variances of a law in units of those of the posterior, as a mean over directions.

    Args:
        objective: U.
        mean: of the law.
        deviations: of draws from their mean.
        part: the training part.
        points_at_once: of one gradient.
    """
    values = [
        float(d.double() @ _gradient(objective, mean + d, part, points_at_once).double())
        for d in deviations
    ]
    return float(np.mean(values)) / len(mean)


def distance_warning(
    name: str, square: float | None, num_parameters: int, advice: str
) -> str | None:
    """Return a sentence if the end of an optimization is far from its optimum."""
    limit = squared_distance_limit(num_parameters)
    if square is None or not square > limit:
        return None
    return (
        f"{name} ended {math.sqrt(square):.2g} posterior standard deviations from its optimum "
        "(limit "
        f"{math.sqrt(limit):.2g}): further full-batch steps lower the objective by {square / 2:.3g} "
        "nats; fit for longer: "
        f"--set {advice}"
    )


def variance_warning(
    name: str, ratio: float, advice: str, *, narrow: float = _NARROW, wide: float = _WIDE
) -> str | None:
    """Return a sentence if the variances of a law are far from those of the posterior."""
    if narrow <= ratio <= wide:
        return None
    return f"variances of {name} are {ratio:.3g} times those of the posterior (limits {narrow:g} to {wide:g}): {advice}"


def drift_warning(
    name: str, rows: Sequence[Mapping[str, Any]], num_parameters: int, advice: str
) -> str | None:
    """Return a sentence if an objective is still falling at its end, or ended far above its best.

    Args:
        name: of what was optimized.
        rows: of one chain, with `step` and `objective`.
        num_parameters: that were optimized.
        advice: what `--set` takes for more time.
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
    if fall > limit and -slope > _CERTAIN * noise:
        return (
            f"{name}: the objective was still falling at the end, by {fall:.3g} nats over the last "
            f"{kept} rows of the history (limit {limit:.3g}); fit for longer: --set {advice}"
        )
    means = np.convolve(values, np.full(_ROWS, 1 / _ROWS), "valid")
    spread = float(y.std(ddof=2)) / math.sqrt(_ROWS)
    rise = float(means[-1] - means.min())
    if rise > limit + 2 * _CERTAIN * spread:
        return (
            f"{name}: the objective ended {rise:.3g} nats above its best (limit {limit:.3g}); "
            "lower "
            f"inference.learning_rate"
        )
    return None


def mode_warnings(
    method: Any, fit: Any, history: History, positions: Mapping[int, np.ndarray]
) -> list[str]:
    """Return what is wrong with the ends of optimizations of positions: the distance to a mode, or
    else the drift.

    Args:
        method: its settings.
        fit: the model and the data.
        history: its rows.
        positions: chain -> where it ended.
    """
    model, train = fit.model, fit.dataset.train
    notes: list[str | None] = []
    size = method.points_per_gradient(len(train))
    number = iterations(len(train), model.num_parameters, size * method.num_steps)
    for chain, position in list(positions.items())[:_CHAINS]:
        if number:
            square = squared_distance(
                [potential(method, model, len(train))],
                torch.from_numpy(position).to(model.device, model.dtype),
                train,
                points_at_once=max(size, _POINTS),
                iterations=number,
            )
            name = method.name if len(positions) == 1 else f"{method.name}, member {chain},"
            notes.append(
                distance_warning(name, square, model.num_parameters, method.longer_fit_override())
            )
    return _distinct(notes if number else curve_warnings(method, history, model.num_parameters))


def distribution_warnings(
    method: Any, fit: Any, history: History, law: Posterior, *, has_distance: bool = True
) -> list[str]:
    """Return what is wrong with the end of an optimization of a law: its distance or drift, and its
    variances.

    Args:
        method: its settings.
        fit: the model and the data.
        history: its rows.
        law: that was fitted.
        has_distance: whether its mean is where the expected gradient of the potential is 0.
    """
    model, train = fit.model, fit.dataset.train
    notes: list[str | None] = []
    size = method.points_per_gradient(len(train))
    own, work = potential(method, model, len(train)), size * method.num_steps
    mean, deviations = _spread(law, work / len(train))
    number = iterations(len(train), model.num_parameters, work / len(deviations))
    square = None
    if has_distance and number and len(deviations) >= 2:
        halves = [_expected(own, half) for half in (deviations[::2], deviations[1::2])]
        square = squared_distance(
            halves, mean, train, points_at_once=max(size, _POINTS), iterations=number
        )
        notes.append(
            distance_warning(
                method.name, square, model.num_parameters, method.longer_fit_override()
            )
        )
    if square is None:
        notes += curve_warnings(method, history, model.num_parameters)
    if len(deviations) >= 2:
        both = [side * d for d in deviations for side in (1, -1)]
        ratio = relative_variance(own, mean, both, train, points_at_once=max(size, _POINTS))
        notes.append(
            variance_warning(
                method.name, ratio, f"fit for longer: --set {method.longer_fit_override()}"
            )
        )
    return _distinct(notes)


def curve_warnings(method: Any, history: History, num_parameters: int) -> list[str | None]:
    """Return what is wrong with the ends of the curves of all chains."""
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
    """Return minus the tempered log density, as estimated from some of so many points."""

    def objective(position: Tensor, x: Tensor, y: Tensor) -> Tensor:
        log_likelihood = model.log_likelihood(position, x, y).sum(dtype=torch.float64) * (
            size / len(x)
        )
        return -log_likelihood / method.temperature - method.prior_weight * model.log_prior(
            position
        )

    return objective


def iterate_warnings(
    method: Any, fit: Any, law: Posterior, *, limit: float, advice: str
) -> list[str]:
    """Return what is wrong with a law of iterates: a mean as far from the mode as draws are, or
    much wider draws.

    Args:
        method: its settings.
        fit: the model and the data.
        law: that was fitted.
        limit: variances of its draws in units of those of the posterior.
        advice: what to do where they are above.
    """
    model, train = fit.model, fit.dataset.train
    size = method.points_per_gradient(len(train))
    own, work = potential(method, model, len(train)), size * method.num_steps
    mean, deviations = _spread(law, work / len(train))
    number, at_once = iterations(len(train), model.num_parameters, work), max(size, _POINTS)
    notes = []
    if number:
        square = squared_distance([own], mean, train, points_at_once=at_once, iterations=number)
        if square > max(_LEAST, model.num_parameters):
            notes.append(
                distance_warning(
                    method.name, square, model.num_parameters, method.longer_fit_override()
                )
            )
    both = [side * d for d in deviations for side in (1, -1)]
    ratio = relative_variance(own, mean, both, train, points_at_once=at_once)
    return _distinct([*notes, variance_warning(method.name, ratio, advice, narrow=0.0, wide=limit)])


def _spread(law: Posterior, passes: float) -> tuple[Tensor, list[Tensor]]:
    """Return the mean of a law and deviations of draws from it, as many as some passes over the
    data allow.
    """
    number = min(_DEVIATIONS, max(2, int(_WORK * passes / 2)))
    if not isinstance(law, ClosedFormPosterior):
        number = min(number, law.shape[0] * law.shape[1])
    draws = law.draws(number, seed=0).to(law.model.device)
    mean = law.mean().to(law.model.device) if isinstance(law, ClosedFormPosterior) else _mean(law)
    return mean, list(draws - mean)


def _mean(law: Posterior) -> Tensor:
    total, number = (
        torch.zeros(law.model.num_parameters, dtype=torch.float64, device=law.model.device),
        0,
    )
    for chunk in law.iter_draws():
        total, number = total + chunk.double().sum(0), number + len(chunk)
    return (total / number).to(law.model.dtype)


def _expected(objective: Objective, deviations: Sequence[Tensor]) -> Objective:
    """Return the mean of an objective over deviations in both directions."""
    both = [side * d for d in deviations for side in (1, -1)]

    def expected(position: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([objective(position + d, x, y) for d in both]).mean()

    return expected


def _distinct(notes: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(note for note in notes if note is not None))


def _chunks(part: Split, size: int) -> Iterable[tuple[Tensor, Tensor, float]]:
    """Yield points a few at a time, with their share of all."""
    for start in range(0, len(part), size):
        own = slice(start, start + size)
        yield part.x[own], part.y[own], len(part.x[own]) / len(part)


def _gradient(objective: Objective, position: Tensor, part: Split, size: int) -> Tensor:
    total = torch.zeros_like(position)
    for x, y, share in _chunks(part, size):
        leaf = position.detach().clone().requires_grad_()
        total += share * torch.autograd.grad(objective(leaf, x, y), leaf)[0]
    return total


def _value(objective: Objective, position: Tensor, part: Split, size: int) -> float:
    with torch.no_grad():
        return sum(share * float(objective(position, x, y)) for x, y, share in _chunks(part, size))
