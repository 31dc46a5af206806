"""Reliability diagrams as numbers: how often predictions came true, against how often they said
they would.

Of classes: points in bins of confidence, the accuracy of each bin, and the consistency band
    (Bröcker and Smith 2007,
doi:10.1175/WAF993.1): where the accuracy of so many points lies if they come true exactly as often
as they say, quantiles of Binomial(count, mean confidence) / count. Of numbers: the share of targets
not above each predicted quantile, with the same band around the level. A point outside its band is
one that a calibrated model makes with a probability of at most 1 - `level`; of 15 bins, most often
none but not seldom one is.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.calibration_errors import NUM_BINS, equal_width_bins
from bnn_symm.diagnostics.scores.point_predictions import (
    ClassPredictions,
    NumberPredictions,
    predict_points,
)
from bnn_symm.posteriors import Posterior

# Levels of the quantiles of a diagram of numbers, in percent, so that they are exact fractions.
_PERCENT = range(5, 100, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassReliability:
    """Reliability of the predicted class. Bins without points are left out; edges are those of
    `calibration_errors`.

    Attributes:
        left: lower edge of every bin.
        right: upper edge.
        confidence: mean of its points.
        accuracy: share of its points that are right.
        count: of its points.
        low: lower end of the consistency band of the accuracy.
        high: upper end.
        level: of the band.
    """

    left: Float[np.ndarray, " bin"]
    right: Float[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    count: Int[np.ndarray, " bin"]
    low: Float[np.ndarray, " bin"]
    high: Float[np.ndarray, " bin"]
    level: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"kind": "classes", **_plain(asdict(self))}


@dataclass(frozen=True, kw_only=True, eq=False)
class NumberReliability:
    """Of predicted quantiles.

    Attributes:
        nominal: levels of the quantiles.
        observed: share of targets not above each; of counts, by the randomized transform.
        low: lower end of the consistency band of `observed`.
        high: upper end.
        num_points: behind it.
        level: of the band.
    """

    nominal: Float[np.ndarray, " quantile"]
    observed: Float[np.ndarray, " quantile"]
    low: Float[np.ndarray, " quantile"]
    high: Float[np.ndarray, " quantile"]
    num_points: int
    level: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"kind": "numbers", **_plain(asdict(self))}


@checked
def reliability(
    predicted: Posterior | Float[Tensor, "point class"],
    part: Split,
    *,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
    seed: int = 0,
) -> ClassReliability | NumberReliability:
    """The reliability diagram of predictions at the points of a part.

    Args:
        predicted: a posterior, or class probabilities at the points.
        part: at least one point.
        num_bins: of confidence, of equal width; of no use to numbers.
        level: of the band.
        seed: of the randomized transform of counts.

    Raises:
        ValueError: for a part without points, or of another length than the probabilities.
    """
    if isinstance(predicted, Tensor):
        if len(predicted) != len(part) or len(part) == 0:
            raise ValueError(
                f"got probabilities of {len(predicted)} points and {len(part)} targets; give as "
                "many"
            )
        return _of_classes(predicted.double().cpu().numpy(), part.y.cpu().numpy(), num_bins, level)
    return reliability_of(
        predict_points(predicted, part, seed=seed), num_bins=num_bins, level=level
    )


def reliability_of(
    predictions: ClassPredictions | NumberPredictions,
    *,
    num_bins: int = NUM_BINS,
    level: float = 0.95,
) -> ClassReliability | NumberReliability:
    """As `reliability`, of predictions that are there already."""
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
    """Quantiles of the share of `count` events of this chance that happen."""
    distribution = stats.binom(count, chance)
    return distribution.ppf((1 - level) / 2) / count, distribution.ppf((1 + level) / 2) / count


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in content.items()
    }
