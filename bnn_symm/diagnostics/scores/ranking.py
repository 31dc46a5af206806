"""Measure how well a score ranks points, for many resamples at once.

Every function takes weights (resample, point), the count of a point in each resample, and returns
one number per resample; weights of one give the value of the data. Libraries compute one resample
at a time, which takes minutes for the thousand of a bootstrap. Points with equal scores are tied:
the result is the mean over all of their orders. It is NaN if a resample lacks one of the two kinds,
and everywhere if a score is NaN.

Scores are equal if they differ by at most `TIE` of their size (`tie_starts`): seven votes of ten
are one probability, in whatever order they are summed, in double or in single precision. Scores
that measure a distance to 0, such as 1 - confidence, keep their order however small they are.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

Weights = Float[np.ndarray, "resample point"]
PerResample = Float[np.ndarray, " resample"]

# Relative difference of scores that is considered rounding: a few units in the last place of single
# precision.
TIE = 1e-6


def tie_starts(ascending: Float[np.ndarray, " point"]) -> Int[np.ndarray, " group"]:
    """Return the first position of every group of sorted scores that are equal up to rounding.

    A group spans at most `TIE` of its size, so that many close scores do not become one group.

    Args:
        ascending: Scores in ascending order.

    Returns:
        Positions of the groups.
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
    """Return the area under the ROC curve: P(positive scores higher than negative) + P(equal) / 2.

    Args:
        weights: Counts (resample, point), see the module docstring.
        score: A score that should be higher for positives.
        positive: Which points are positive.

    Returns:
        One area per resample.
    """
    hits, misses = _by_score(weights, score, positive)
    below = np.cumsum(misses, axis=1) - misses
    pairs = hits.sum(1) * misses.sum(1)
    return _ratio((hits * (below + 0.5 * misses)).sum(1), pairs)


def average_precision(
    weights: Weights, score: Float[np.ndarray, " point"], positive: Bool[np.ndarray, " point"]
) -> PerResample:
    """Return the area under the precision-recall curve as a step function.

    AP = sum_g (recall_g - recall_{g-1}) precision_g over the distinct scores g in descending order:
    the mean precision at each positive.

    Args:
        weights: Counts (resample, point).
        score: A score that should be higher for positives.
        positive: Which points are positive.

    Returns:
        One average precision per resample.
    """
    hits, misses = (counts[:, ::-1] for counts in _by_score(weights, score, positive))
    true_positives = np.cumsum(hits, axis=1)
    precision = _ratio(true_positives, true_positives + np.cumsum(misses, axis=1))
    # Before the first score that counts in a resample nothing is selected, and nothing is added.
    total = (hits * np.where(np.isnan(precision), 0.0, precision)).sum(1)
    return np.where(misses.sum(1) > 0, _ratio(total, hits.sum(1)), np.nan)


def false_positive_rate(
    weights: Weights,
    score: Float[np.ndarray, " point"],
    positive: Bool[np.ndarray, " point"],
    *,
    recall: float = 0.95,
) -> PerResample:
    """Return the false positive rate of the highest threshold with at least this recall.

    Args:
        weights: Counts (resample, point).
        score: A score that should be higher for positives.
        positive: Which points are positive.
        recall: Fraction of the positives at or above the threshold.

    Returns:
        One rate per resample.
    """
    hits, misses = (counts[:, ::-1] for counts in _by_score(weights, score, positive))
    true_positives, false_positives = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    # Reduced by a rounding error: 19 of 20 are 95 %.
    needed = recall * hits.sum(1, keepdims=True) * (1 - 1e-12)
    first = np.argmax(true_positives >= needed, axis=1)
    rate = _ratio(np.take_along_axis(false_positives, first[:, None], 1)[:, 0], misses.sum(1))
    return np.where(hits.sum(1) > 0, rate, np.nan)


def area_under_risk_coverage(
    weights: Weights, confidence: Float[np.ndarray, " point"], wrong: Bool[np.ndarray, " point"]
) -> PerResample:
    """Return the mean over k = 1..n of the error rate of the k most confident points.

    It is 0 without errors and the error rate for an uninformative confidence; lower is better
    (Geifman et al. 2019, arXiv:1805.08206).

    Args:
        weights: Counts (resample, point).
        confidence: Confidence of every point.
        wrong: Which points are errors.

    Returns:
        One area per resample.
    """
    errors, right = (counts[:, ::-1] for counts in _by_score(weights, confidence, wrong))
    counts, errors = np.cumsum(errors + right, axis=1), np.cumsum(errors, axis=1)
    result = np.empty(len(weights))
    for resample in range(len(weights)):
        if not counts[resample, -1] > 0:
            result[resample] = np.nan
            continue
        covered = np.arange(1, round(counts[resample, -1]) + 1)
        # Among tied confidences, errors are spread evenly.
        accumulated = np.interp(
            covered, np.append(0.0, counts[resample]), np.append(0.0, errors[resample])
        )
        result[resample] = np.mean(accumulated / covered)
    return result


def kendall_tau(
    weights: Weights, score: Float[np.ndarray, " point"], target: Float[np.ndarray, " point"]
) -> PerResample:
    """Return Kendall's tau-b of a score and a target: 1 for the same order, -1 for the reverse.

    Among pairs of points, the difference between the numbers of concordant and discordant ones,
    divided by the geometric mean of the numbers of pairs that are not tied in the score and in the
    target (Kendall 1945, doi:10.1093/biomet/33.3.239).

    Args:
        weights: Counts (resample, point).
        score: The score of every point.
        target: The target of every point.

    Returns:
        One tau per resample; NaN where all scores or all targets are equal.

    Example:
        >>> kendall_tau(np.ones((1, 4)), np.array([1.0, 2.0, 4.0, 3.0]), np.arange(4.0)).tolist()
        [0.6666666666666666]
    """
    if np.isnan(score).any() or np.isnan(target).any():
        return np.full(len(weights), np.nan)
    orders = [np.sign(values[:, None] - values[None]) for values in (score, target)]
    pairs = (orders[0] * orders[1], np.abs(orders[0]), np.abs(orders[1]))
    agreement, in_score, in_target = (((weights @ own) * weights).sum(1) for own in pairs)
    return _ratio(agreement, np.sqrt(in_score * in_target))


def _by_score(
    weights: np.ndarray, score: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return positives and negatives at each distinct score, ascending, (resample, score)."""
    order = np.argsort(score, kind="stable")
    starts = tie_starts(score[order])
    ordered = weights[:, order] if not np.isnan(score).any() else np.full(weights.shape, np.nan)
    chosen = ordered * positive[order]
    hits = np.add.reduceat(chosen, starts, axis=1)
    return hits, np.add.reduceat(ordered - chosen, starts, axis=1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN if the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0
    )
