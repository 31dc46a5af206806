"""How well a score ranks points: areas under curves, of many resamples at once.

Every function takes weights (resample, point), how often a point counts in each resample, and
returns one number a resample; ones give the number of the data themselves. Libraries compute one
resample at a time, which takes minutes for the thousand of a bootstrap. Points with equal scores
tie: what depends on their order is the mean over all of their orders. NaN stands where a resample
lacks one of the two kinds, and everywhere if a score is NaN.

Scores are equal if they differ by at most `TIE` of their size (`tie_starts`): seven votes of ten
    are one probability
whatever the order in which they are added up, in double or in single precision. Scores that measure
a distance to 0, as 1 - confidence does, therefore keep their order however small they are.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

Weights = Float[np.ndarray, "resample point"]
PerResample = Float[np.ndarray, " resample"]

# Relative difference of scores that counts as rounding: a few units in the last place of single
# precision.
TIE = 1e-6


def tie_starts(ascending: Float[np.ndarray, " point"]) -> Int[np.ndarray, " group"]:
    """Return the first place of every group of sorted scores that are equal up to rounding.

    A group spans at most `TIE` of its size, so that many scores close to one another do not become
    one group.

    Args:
        ascending: scores from the lowest to the highest.
    """
    size = np.maximum(np.abs(ascending[1:]), np.abs(ascending[:-1]))
    with np.errstate(invalid="ignore"):
        near = np.isfinite(size) & (np.diff(ascending) <= TIE * size)
    starts = np.flatnonzero(np.append(True, ~near & (ascending[1:] != ascending[:-1])))
    ends = np.append(starts[1:], len(ascending))
    with np.errstate(invalid="ignore"):
        span = ascending[ends - 1] - ascending[starts]
        wide = span > TIE * np.maximum(np.abs(ascending[starts]), np.abs(ascending[ends - 1]))
    extra = []
    for start, end in zip(starts[wide], ends[wide], strict=True):
        while start < end:
            extra.append(start)
            limit = ascending[start] + TIE * abs(ascending[start])
            start += max(1, np.searchsorted(ascending[start:end], limit, side="right"))
    return np.union1d(starts, np.array(extra, dtype=np.intp))


def auroc(
    weights: Weights, score: Float[np.ndarray, " point"], positive: Bool[np.ndarray, " point"]
) -> PerResample:
    """Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2.

    Args:
        weights: see the module.
        score: higher for positives, if it is any good.
        positive: which points are.
    """
    hits, misses = _by_score(weights, score, positive)
    below = np.cumsum(misses, axis=1) - misses
    pairs = hits.sum(1) * misses.sum(1)
    return _ratio((hits * (below + 0.5 * misses)).sum(1), pairs)


def average_precision(
    weights: Weights, score: Float[np.ndarray, " point"], positive: Bool[np.ndarray, " point"]
) -> PerResample:
    """Area under the precision-recall curve as a step function: the mean precision at each
    positive.

    AP = sum_g (recall_g - recall_{g-1}) precision_g over the distinct scores g from the highest
    down.
    """
    hits, misses = (counts[:, ::-1] for counts in _by_score(weights, score, positive))
    found = np.cumsum(hits, axis=1)
    precision = _ratio(found, found + np.cumsum(misses, axis=1))
    # Nothing is selected yet, and nothing is added, before the first score that counts in a
    # resample.
    total = (hits * np.where(np.isnan(precision), 0.0, precision)).sum(1)
    return np.where(misses.sum(1) > 0, _ratio(total, hits.sum(1)), np.nan)


def false_positive_rate(
    weights: Weights,
    score: Float[np.ndarray, " point"],
    positive: Bool[np.ndarray, " point"],
    *,
    recall: float = 0.95,
) -> PerResample:
    """Share of negatives at or above the highest threshold that finds at least this share of the
    positives.
    """
    hits, misses = (counts[:, ::-1] for counts in _by_score(weights, score, positive))
    found, wrong = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    # Less a rounding error: 19 of 20 are 95 %.
    first = np.argmax(found >= recall * hits.sum(1, keepdims=True) * (1 - 1e-12), axis=1)
    rate = _ratio(np.take_along_axis(wrong, first[:, None], 1)[:, 0], misses.sum(1))
    return np.where(hits.sum(1) > 0, rate, np.nan)


def area_under_risk_coverage(
    weights: Weights, confidence: Float[np.ndarray, " point"], wrong: Bool[np.ndarray, " point"]
) -> PerResample:
    """Mean over k = 1..n of the error rate of the k most confident points (Geifman et al. 2019,
    arXiv:1805.08206).

    0 if nothing is wrong, the error rate if confidence tells nothing; lower is better.
    """
    errors, right = (counts[:, ::-1] for counts in _by_score(weights, confidence, wrong))
    counts, errors = np.cumsum(errors + right, axis=1), np.cumsum(errors, axis=1)
    result = np.empty(len(weights))
    for resample in range(len(weights)):
        if not counts[resample, -1] > 0:
            result[resample] = np.nan
            continue
        covered = np.arange(1, round(counts[resample, -1]) + 1)
        # Between two distinct confidences, errors come at the mean rate of the points that tie.
        accumulated = np.interp(
            covered, np.append(0.0, counts[resample]), np.append(0.0, errors[resample])
        )
        result[resample] = np.mean(accumulated / covered)
    return result


def _by_score(
    weights: np.ndarray, score: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at each distinct score from the lowest up, each (resample, distinct
    score).
    """
    order = np.argsort(score, kind="stable")
    starts = tie_starts(score[order])
    ordered = weights[:, order] if not np.isnan(score).any() else np.full(weights.shape, np.nan)
    chosen = ordered * positive[order]
    hits = np.add.reduceat(chosen, starts, axis=1)
    return hits, np.add.reduceat(ordered - chosen, starts, axis=1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
