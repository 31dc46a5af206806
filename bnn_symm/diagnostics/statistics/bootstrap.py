"""Compute bootstrap intervals over points, for many scores at once.

A resample draws n of the n points with replacement, so it is described by how often each point
occurs. Scores are computed from these counts, in chunks of resamples: a thousand resamples of ten
thousand points take seconds. Intervals describe the variation of a score over points of the same
origin, not over fits.

There are two kinds of interval. The percentile interval [q_low, q_high] contains the middle `level`
of the resampled scores (Davison and Hinkley 1997, section 5.3; doi:10.1017/CBO9780511802843). A
calibration error is a mean of absolute values, which noise inflates, and the noise of resampling
inflates it once more: percentiles are too high. Its interval extends as far below the value v as
the percentiles do above it, [2 v - q_high, q_high], but not below 0. For the ECE of 300 points, 95
% intervals of this kind covered the true value in 97 % of 200 data sets where it was 0.09 and in 96
% where it was 0.03 (percentiles: 82 % and 10 %). Where it is 0 no interval of the error does (60 %
and 0 %): whether an error exceeds chance is tested by `calibration_tests`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bnn_symm.randomness import Key, numpy_generator
from bnn_symm.summaries import Result

# Counts in memory at once (8 MB in float64).
_NUMBERS_AT_ONCE = 2**20
# With fewer resamples in which a score is defined, percentiles are not informative.
_LEAST_RESAMPLES = 20

Statistics = Callable[
    [Float[np.ndarray, "resample point"]], Mapping[str, Float[np.ndarray, " resample"]]
]


@dataclass(frozen=True, kw_only=True)
class Score(Result):
    """One score with its interval.

    Attributes:
        value: None if not defined; infinite if a point has probability 0.
        low: Lower end of the interval; None if there is none.
        high: Upper end of the interval.
        note: Why there is no value or no interval, or a caveat; None otherwise.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


def resample_counts(
    num_points: int, num_resamples: int, *key: Key, at_once: int | None = None
) -> Iterator[Float[np.ndarray, "resample point"]]:
    """Iterate over bootstrap resamples in chunks, as counts of every point.

    Args:
        num_points: Number of points of the data, and of each resample.
        num_resamples: Total number of resamples.
        *key: Key of the random numbers.
        at_once: Resamples per chunk; default, as many as fit in 8 MB. The draws do not depend on
            it.

    Yields:
        Counts of the next resamples.
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
    """Return scores of the data with their bootstrap intervals.

    Args:
        statistics: counts (resample, point) -> name -> one number per resample, NaN if not defined.
        groups: Number of points of each sample; the samples are concatenated and resampled
            separately.
        reasons: Name -> why the score is not defined, for scores that may be undefined.
        inflated: Names of the scores that noise increases (see the module docstring).
        num_resamples: Number of resamples; 0 for no intervals.
        level: Level of the intervals, strictly between 0 and 1.
        seed: Seed of the resamples.

    Returns:
        Name -> score.

    Raises:
        ValueError: If the level or the number of resamples is out of range, or there are no points.
    """
    if not 0 < level < 1 or num_resamples < 0 or min(groups, default=0) < 1:
        raise ValueError(
            "expected a level between 0 and 1, num_resamples of 0 or more and at least one point; "
            f"got {level:g}, {num_resamples} and {groups}"
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
    # Between a finite and an infinite resample, use the nearest resample; interpolation is not
    # possible.
    tails = [(1 - level) / 2, (1 + level) / 2]
    method = "linear" if np.isfinite(defined).all() else "nearest"
    low, high = map(float, np.quantile(defined, tails, method=method))
    if is_inflated:
        high = max(value, high)
        low = max(0.0, 2 * value - high)
    note = None
    if len(defined) < len(draws):
        note = f"interval from {len(defined)} of {len(draws)} resamples, where it is defined"
    return Score(value=value, low=low, high=high, note=note)


def weighted_mean(
    weights: Float[np.ndarray, "resample point"], values: Float[np.ndarray, "point column"]
) -> Float[np.ndarray, "resample column"]:
    """Return the mean of every column in each resample; infinite if a resampled value is.

    Args:
        weights: Counts (resample, point).
        values: Values of every point.

    Returns:
        One mean per resample and column.
    """
    infinite = np.isinf(values)
    result = (weights @ np.where(infinite, 0.0, values)) / weights.sum(1, keepdims=True)
    for sign in (np.inf, -np.inf) if infinite.any() else ():
        result[(weights @ (values == sign)) > 0] += (
            sign  # NaN if infinite values of both signs meet
        )
    return result
