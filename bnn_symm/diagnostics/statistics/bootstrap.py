"""Bootstrap intervals over points, of many scores at once.

A resample draws n of the n points with replacement, so that it is told by how often each point
occurs. Scores are computed from these counts, a chunk of resamples at a time: a thousand resamples
of ten thousand points take seconds. Intervals say how far a score would move with other points of
the same origin; not how it would with another fit.

Two kinds of interval. The percentile interval [q_low, q_high] holds the middle `level` of the
resampled scores (Davison and Hinkley 1997, section 5.3; doi:10.1017/CBO9780511802843). A
calibration error is a mean of absolute values, which noise inflates, and the noise of resampling
inflates it once more: percentiles lie too high. Its interval reaches as far below the value v as
the percentiles do above it, [2 v - q_high, q_high], not below 0. Of the ECE of 300 points, 95 %
intervals of this kind held the truth in 97 % of 200 data sets where it was 0.09 and in 96 % where
it was 0.03 (percentiles: in 82 and 10 %). Where it is 0 no interval of the error does (60 and 0 %):
whether an error is more than chance is for `calibration_tests` to say.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bnn_symm.randomness import Key, numpy_generator

# Counts held at once (8 MB in float64).
_NUMBERS_AT_ONCE = 2**20
# With fewer resamples in which a score is defined, no percentile means anything.
_LEAST_RESAMPLES = 20

Statistics = Callable[
    [Float[np.ndarray, "resample point"]], Mapping[str, Float[np.ndarray, " resample"]]
]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score.

    Attributes:
        value: None where it is not defined; infinite where a point was given probability 0.
        low: lower end of its interval; None where there is none.
        high: upper end.
        note: why there is no value or no interval, or what to mind; None if there is nothing to
            say.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, float | str | None]:
        """As JSON types."""
        return {"value": self.value, "low": self.low, "high": self.high, "note": self.note}


def resample_counts(
    num_points: int, num_resamples: int, *key: Key, at_once: int | None = None
) -> Iterator[Float[np.ndarray, "resample point"]]:
    """How often every point occurs in each of some resamples, a chunk of them at a time.

    Args:
        num_points: of the data, and of each resample.
        num_resamples: how many in all.
        *key: of the draws.
        at_once: resamples a chunk; default, as many as 8 MB hold. The draws do not depend on it.
    """
    generator = numpy_generator(*key)
    at_once = at_once or max(1, _NUMBERS_AT_ONCE // max(1, num_points))
    for start in range(0, num_resamples, at_once):
        size = min(at_once, num_resamples - start)
        drawn = (
            generator.integers(0, num_points, (size, num_points))
            + num_points * np.arange(size)[:, None]
        )
        yield (
            np.bincount(drawn.ravel(), minlength=size * num_points)
            .reshape(size, num_points)
            .astype(np.float64)
        )


def bootstrap_scores(
    statistics: Statistics,
    groups: tuple[int, ...],
    *,
    reasons: Mapping[str, str] | None = None,
    inflated: tuple[str, ...] = (),
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Score]:
    """Scores of the data with their intervals.

    Args:
        statistics: counts (resample, point) -> name -> one number a resample, NaN where it is not
            defined.
        groups: how many points there are; of several samples one after the other, of each,
            resampled apart.
        reasons: name -> why the score is not defined, for those that may not be.
        inflated: names of the scores that noise makes larger; see the module.
        num_resamples: 0 for no intervals.
        level: of the intervals, strictly between 0 and 1.
        seed: of the resamples.

    Raises:
        ValueError: for a level or a number of resamples out of range, or no points.
    """
    if not 0 < level < 1 or num_resamples < 0 or min(groups, default=0) < 1:
        raise ValueError(
            "wanted a level between 0 and 1, no negative number of resamples and at least one "
            "point; got "
            f"{level:g}, {num_resamples} and {groups}"
        )
    values = {
        name: float(value[0]) for name, value in statistics(np.ones((1, sum(groups)))).items()
    }
    resampled: dict[str, list[np.ndarray]] = {name: [] for name in values}
    if max(groups) > 1:
        at_once = max(1, _NUMBERS_AT_ONCE // sum(groups))
        samples = [
            resample_counts(size, num_resamples, seed, "bootstrap", number, at_once=at_once)
            for number, size in enumerate(groups)
        ]
        for chunks in zip(*samples, strict=True):
            for name, value in statistics(np.concatenate(chunks, axis=1)).items():
                resampled[name].append(value)
    scores = {}
    for name, value in values.items():
        draws = np.concatenate(resampled[name]) if resampled[name] else np.empty(0)
        reason = (reasons or {}).get(name, "it is not defined for these points")
        why_none = "one point has no interval" if max(groups) == 1 and num_resamples else None
        scores[name] = _score(value, draws, level, reason, why_none, name in inflated)
    return scores


def _score(
    value: float,
    draws: np.ndarray,
    level: float,
    reason: str,
    why_none: str | None,
    is_inflated: bool,
) -> Score:
    if math.isnan(value):
        return Score(value=None, note=f"undefined: {reason}")
    if math.isinf(value):
        return Score(value=value, note="infinite")
    defined = draws[~np.isnan(draws)]
    if len(draws) == 0 or len(defined) < min(len(draws), _LEAST_RESAMPLES):
        note = why_none or (
            f"no interval: defined in {len(defined)} of {len(draws)} resamples"
            if len(draws)
            else None
        )
        return Score(value=value, note=note)
    # Between a finite and an infinite resample, the percentile is that resample, not something in
    # between.
    tails = [(1 - level) / 2, (1 + level) / 2]
    method = "linear" if np.isfinite(defined).all() else "nearest"
    low, high = map(float, np.quantile(defined, tails, method=method))
    if is_inflated:
        high = max(value, high)
        low = max(0.0, 2 * value - high)
    note = None
    if len(defined) < len(draws):
        note = f"the interval is of the {len(defined)} resamples of {len(draws)} in which it is defined"
    return Score(value=value, low=low, high=high, note=note)


def weighted_mean(
    weights: Float[np.ndarray, "resample point"], values: Float[np.ndarray, "point column"]
) -> Float[np.ndarray, "resample column"]:
    """The mean of every column in each resample; infinite where a resample holds a point whose
    value is.
    """
    infinite = np.isinf(values)
    result = (weights @ np.where(infinite, 0.0, values)) / weights.sum(1, keepdims=True)
    if infinite.any():
        result[(weights @ infinite) > 0] = np.inf
    return result
