"""Reduce the predictions of a posterior to a few numbers per point, for the scores.

Points are predicted in slices, so that memory does not grow with draws times points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.diagnostics.scores.crps import crps
from bnn_symm.models.likelihoods import has_events, is_count, is_ordered
from bnn_symm.posteriors import Posterior, Predictive
from bnn_symm.randomness import numpy_generator

# Widths of the central intervals whose coverage and width are scored.
INTERVALS = (0.5, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassPredictions:
    """Class predictions at some points.

    Attributes:
        probabilities: (point, class), of the mixture over draws.
        y: Class indices.
        log_prob: Log probability of the class under the mixture, in nats.
        entropy: Entropy of the mixture, in nats.
        mutual_information: Between class and draw, in nats: the disagreement of the draws.
        is_ordered: Whether the order of the classes has a meaning.
        weight: Numbers of observations for which the points stand; None for one each.
    """

    probabilities: Float[np.ndarray, "point class"]
    y: Int[np.ndarray, " point"]
    log_prob: Float[np.ndarray, " point"]
    entropy: Float[np.ndarray, " point"]
    mutual_information: Float[np.ndarray, " point"]
    is_ordered: bool = False
    weight: Float[np.ndarray, " point"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def doubt(self) -> Float[np.ndarray, " point"]:
        """Return 1 - confidence as the sum of all but the largest probability, which is exact."""
        return np.sort(self.probabilities, axis=1)[:, :-1].sum(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberPredictions:
    """Predictions of numbers or counts at some points, in the target's own units.

    Attributes:
        target: True values.
        mean: Mean of the mixture over draws.
        sd: Standard deviation of the mixture.
        epistemic_sd: Standard deviation over draws of E[y | x, draw].
        log_prob: Log density of the mixture at the target, in nats.
        crps: Continuous ranked probability score.
        pit: Probability integral transform, F(y); randomized for counts, F(y - 1) + u p(y) with u
            uniform, which is uniform for correct predictions, as F(y) is for continuous targets
            (Czado et al. 2009, doi:10.1111/j.1541-0420.2009.01191.x).
        low: (interval, point), lower ends of the central intervals `INTERVALS`.
        high: Upper ends.
        weight: Numbers of observations for which the points stand; None for one each.
    """

    target: Float[np.ndarray, " point"]
    mean: Float[np.ndarray, " point"]
    sd: Float[np.ndarray, " point"]
    epistemic_sd: Float[np.ndarray, " point"]
    log_prob: Float[np.ndarray, " point"]
    crps: Float[np.ndarray, " point"]
    pit: Float[np.ndarray, " point"]
    low: Float[np.ndarray, "interval point"]
    high: Float[np.ndarray, "interval point"]
    weight: Float[np.ndarray, " point"] | None = None

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnPredictions:
    """Predictions of several target columns at some points.

    Attributes:
        columns: Name -> predictions of the column alone.
        log_prob: Log density of the mixture at all columns together, in nats.
        weight: Numbers of observations for which the points stand; None for one each.
    """

    columns: Mapping[str, NumberPredictions]
    log_prob: Float[np.ndarray, " point"]
    weight: Float[np.ndarray, " point"] | None = None

    def __len__(self) -> int:
        return len(self.log_prob)


@dataclass(frozen=True, kw_only=True, eq=False)
class TimePredictions:
    """Predictions of times at some points, in the target's own units.

    Attributes:
        time: Times at which the event was seen, or after which it comes.
        event: 1 if the event was seen, 0 if the time is censored.
        median: Median of the mixture over draws.
        log_prob: Log density of the mixture at events, and log probability that the event comes
            after a censored time, in nats.
        pit: Probability integral transform, F(t); F(t) + u (1 - F(t)) with u uniform for censored
            times, which is uniform for correct predictions whatever the times of censoring (Haider
            et al. 2020, arXiv:1811.11347).
        low: (interval, point), lower ends of the central intervals `INTERVALS`.
        high: Upper ends.
        weight: Numbers of observations for which the points stand; None for one each.
    """

    time: Float[np.ndarray, " point"]
    event: Float[np.ndarray, " point"]
    median: Float[np.ndarray, " point"]
    log_prob: Float[np.ndarray, " point"]
    pit: Float[np.ndarray, " point"]
    low: Float[np.ndarray, "interval point"]
    high: Float[np.ndarray, "interval point"]
    weight: Float[np.ndarray, " point"] | None = None

    def __len__(self) -> int:
        return len(self.time)


OneTarget = ClassPredictions | NumberPredictions | TimePredictions
PointPredictions = OneTarget | ColumnPredictions


def predict_points(posterior: Posterior, part: Split, *, seed: int = 0) -> PointPredictions:
    """Return the predictions of a posterior at the points of a part.

    Args:
        posterior: Any posterior.
        part: At least one point.
        seed: Seed of the randomized transform of counts.

    Returns:
        A few numbers per point.

    Raises:
        ValueError: If the part has no points.
    """
    if len(part) == 0:
        raise ValueError("there are no points to predict; give a part that has points")
    collected: dict[str, dict[str, list[Tensor]]] = {}
    start, ordered = 0, False
    for predictive in posterior.iter_predict(part.x):
        ordered = is_ordered(predictive.likelihood)
        y = part.y[start : start + predictive.outputs.shape[2]].cpu()
        for column, own in _pointwise(predictive, y, start, seed).items():
            for name, value in own.items():
                collected.setdefault(column, {}).setdefault(name, []).append(value)
        start += len(y)
    return _joined(collected, part, ordered)


def reduce_predictive(predictive: Predictive, part: Split, *, seed: int = 0) -> PointPredictions:
    """Return the predictions of a predictive distribution, as `predict_points` does.

    Args:
        predictive: At the points of the part.
        part: The points.
        seed: Seed of the randomized transform of counts.

    Returns:
        A few numbers per point.
    """
    columns = _pointwise(predictive, part.y.cpu(), 0, seed)
    collected = {
        column: {name: [value] for name, value in own.items()} for column, own in columns.items()
    }
    return _joined(collected, part, is_ordered(predictive.likelihood))


def _pointwise(
    predictive: Predictive, y: Tensor, start: int, seed: int
) -> dict[str, dict[str, Tensor]]:
    """Return name of a column -> attribute -> values; the empty name is all columns."""
    predictive, y = predictive.given(y)
    if predictive.is_classification:
        return {"": _classes(predictive, y)}
    if has_events(predictive.likelihood):
        return {"": _times(predictive, y, start, seed)}
    if len(predictive.columns) == 1:
        return {"": _numbers(predictive, y, start, seed)}
    columns = zip(predictive.column_names, predictive.columns, y.unbind(-1), strict=True)
    return {
        "": {"log_prob": predictive.log_prob(y)},
        **{name: _numbers(own, z, start, seed) for name, own, z in columns},
    }


def _joined(
    collected: dict[str, dict[str, list[Tensor]]], part: Split, ordered: bool
) -> PointPredictions:
    along = {"low": 1, "high": 1}
    weight = {} if part.weight is None else {"weight": part.observations.cpu().numpy()}
    joined: dict[str, Any] = {
        column: {
            name: torch.cat(values, along.get(name, 0)).numpy() for name, values in own.items()
        }
        | weight
        for column, own in collected.items()
    }
    first = joined.pop("")
    if joined:
        columns = {name: NumberPredictions(**own) for name, own in joined.items()}
        return ColumnPredictions(columns=columns, **first)
    if "y" in first:
        return ClassPredictions(**first, is_ordered=ordered)
    return TimePredictions(**first) if "event" in first else NumberPredictions(**first)


def _classes(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    return {
        "probabilities": predictive.probabilities(),
        "y": y.long(),
        "log_prob": predictive.log_prob(y),
        "entropy": predictive.entropy(),
        "mutual_information": predictive.mutual_information(),
    }


def _times(predictive: Predictive, y: Tensor, start: int, seed: int) -> dict[str, Tensor]:
    time, event = predictive.observed(y), y[:, 1]
    low, high = _central_intervals(predictive)
    above = predictive.survival(time)
    return {
        "time": time,
        "event": event.double(),
        "median": predictive.quantiles([0.5])[0],
        "log_prob": predictive.log_prob(y),
        "pit": 1 - torch.where(event > 0, 1.0, _uniform(seed, start, len(y))) * above,
        "low": low,
        "high": high,
    }


def _central_intervals(predictive: Predictive) -> tuple[Tensor, Tensor]:
    """Return the lower and the upper ends of the central intervals, each (interval, point)."""
    levels = [(1 - width) / 2 for width in INTERVALS]
    quantiles = predictive.quantiles([*levels, *(1 - level for level in levels)])
    return quantiles[: len(levels)], quantiles[len(levels) :]


def _uniform(seed: int, start: int, size: int) -> Tensor:
    """Return random numbers of the randomized transform, between 0 and 1."""
    return torch.from_numpy(numpy_generator(seed, "randomized transform", start).uniform(size=size))


def _numbers(predictive: Predictive, y: Tensor, start: int, seed: int) -> dict[str, Tensor]:
    target = predictive.in_own_units(y)
    low, high = _central_intervals(predictive)
    pit = predictive.cdf(target)
    if is_count(predictive.likelihood):
        below = predictive.cdf(target - 1)
        pit = below + _uniform(seed, start, len(y)) * (pit - below)
    return {
        "target": target,
        "mean": predictive.mean(),
        "sd": predictive.standard_deviation(),
        "epistemic_sd": predictive.epistemic_sd(),
        "log_prob": predictive.log_prob(y),
        "crps": crps(predictive, target),
        "pit": pit,
        "low": low,
        "high": high,
    }
