"""Compute reliability diagrams: observed frequencies against predicted probabilities.

For classes: points in bins of confidence, the accuracy of each bin, and the consistency band
(Bröcker and Smith 2007, doi:10.1175/WAF993.1) of the accuracy of a calibrated model, by quantiles
of Binomial(count, mean confidence) / count. For numbers: the fraction of targets not above each
predicted quantile, with the same band around the level. For a calibrated model a bin is outside its
band with a probability of at most 1 - `level`; of 15 bins, usually none but often one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.calibration_errors import NUM_BINS, equal_width_bins
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    ColumnPredictions,
    OneTarget,
    predict_points,
)
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Result

# Levels of the quantiles in a diagram of numbers, in percent, so that they are exact fractions.
_PERCENT = range(5, 100, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassReliability(Result):
    """Reliability of the predicted class.

    Bins without points are excluded; edges are those of `calibration_errors`.

    Attributes:
        kind: What is predicted.
        left: Lower edge of every bin.
        right: Upper edge.
        confidence: Mean confidence of its points.
        accuracy: Accuracy of its points.
        count: Number of its points.
        low: Lower end of the consistency band of the accuracy.
        high: Upper end.
        level: Level of the band.
    """

    kind: Literal["classes"] = "classes"
    left: Float[np.ndarray, " bin"]
    right: Float[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    count: Int[np.ndarray, " bin"]
    low: Float[np.ndarray, " bin"]
    high: Float[np.ndarray, " bin"]
    level: float


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberReliability(Result):
    """Reliability of predicted quantiles.

    Attributes:
        kind: What is predicted.
        nominal: Levels of the quantiles.
        observed: Fraction of targets not above each quantile; by the randomized transform for
            counts.
        low: Lower end of the consistency band of `observed`.
        high: Upper end.
        num_points: Number of points.
        level: Level of the band.
    """

    kind: Literal["numbers"] = "numbers"
    nominal: Float[np.ndarray, " quantile"]
    observed: Float[np.ndarray, " quantile"]
    low: Float[np.ndarray, " quantile"]
    high: Float[np.ndarray, " quantile"]
    num_points: int
    level: float


@checked
def reliability(
    predicted: Posterior | Float[Tensor, "point class"],
    part: Split,
    *,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
    seed: int = 0,
) -> ClassReliability | NumberReliability:
    """Return the reliability diagram of predictions at the points of a part.

    Args:
        predicted: A posterior, or class probabilities at the points.
        part: At least one point.
        num_bins: Number of bins of confidence, of equal width; not used for numbers.
        level: Level of the band.
        seed: Seed of the randomized transform of counts.

    Returns:
        The diagram with its consistency band.

    Raises:
        ValueError: If the part has no points, or another number than the probabilities.

    Example:
        >>> import torch
        >>> from bnn_symm import load_dataset
        >>> part = load_dataset("iris").test
        >>> diagram = reliability(torch.full((len(part), 3), 1 / 3), part)
        >>> int(diagram.count.sum()) == len(part)
        True
    """
    if isinstance(predicted, Tensor):
        if len(predicted) != len(part) or len(part) == 0:
            raise ValueError(
                f"got probabilities of {len(predicted)} points and {len(part)} targets; their "
                "numbers must be equal and positive"
            )
        return _of_classes(predicted.double().cpu().numpy(), part.y.cpu().numpy(), num_bins, level)
    predictions = predict_points(predicted, part, seed=seed)
    if isinstance(predictions, ColumnPredictions):
        raise ConfigError(
            f"a reliability diagram is of one target, and there are {len(predictions.columns)} "
            "target columns; use reliability_of_predictions(predictions) for one of "
            "predict_points(posterior, part).columns"
        )
    return reliability_of_predictions(predictions, num_bins=num_bins, level=level)


def reliability_of_predictions(
    predictions: OneTarget,
    *,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
) -> ClassReliability | NumberReliability:
    """Return the reliability diagram of given predictions, as `reliability` does.

    Args:
        predictions: Predictions at the points.
        num_bins: Number of bins of confidence.
        level: Level of the band.

    Returns:
        The diagram with its consistency band.
    """
    if isinstance(predictions, ClassPredictions):
        return _of_classes(predictions.probabilities, predictions.y, num_bins, level)
    nominal = np.array(_PERCENT) / 100
    points = len(predictions)
    low, high = _band(np.full(len(nominal), points), nominal, level)
    return NumberReliability(
        nominal=nominal,
        observed=(predictions.pit[:, None] <= nominal).mean(0),
        low=low,
        high=high,
        num_points=points,
        level=level,
    )


def _of_classes(
    probabilities: np.ndarray, y: np.ndarray, num_bins: int, level: float
) -> ClassReliability:
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == y
    bins = equal_width_bins(confidence, num_bins)
    occupied, index, count = np.unique(bins, return_inverse=True, return_counts=True)
    mean = np.bincount(index, weights=confidence) / count
    low, high = _band(count, np.minimum(mean, 1.0), level)
    return ClassReliability(
        left=occupied / num_bins,
        right=(occupied + 1) / num_bins,
        confidence=mean,
        accuracy=np.bincount(index, weights=right.astype(np.float64)) / count,
        count=count,
        low=low,
        high=high,
        level=level,
    )


def _band(count: np.ndarray, chance: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return quantiles of the fraction of `count` events with this probability that occur."""
    distribution = scipy.stats.binom(count, chance)
    return distribution.ppf((1 - level) / 2) / count, distribution.ppf((1 + level) / 2) / count
