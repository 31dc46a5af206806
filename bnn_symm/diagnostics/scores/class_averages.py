"""Score classes one by one and average them: AUC, balanced accuracy, and the confusion matrix.

Accuracy is the average over points, in which a rare class hardly counts; here all classes that have
points count the same. Weights are those of `ranking`: counts (resample, point).
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bnn_symm.diagnostics.scores.ranking import PerResample, Weights, tie_starts


def macro_auroc(
    weights: Weights,
    probabilities: Float[np.ndarray, "point class"],
    y: Int[np.ndarray, " point"],
) -> PerResample:
    """Return the AUC of two classes, or the mean over classes of that of one against the rest.

    A class without points, or with all of them, has no AUC and does not count.

    Args:
        weights: Counts (resample, point).
        probabilities: Class probabilities.
        y: Class indices.

    Returns:
        One area per resample, NaN if no class has one.
    """
    classes = probabilities.shape[1]
    by_point = np.ascontiguousarray(weights.T)
    areas = []
    for index in [1] if classes == 2 else range(classes):
        # The odds rank as the probability does, but do not round to ties near 1.
        others = np.delete(probabilities, index, axis=1).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = probabilities[:, index] / others
        areas.append(_auroc(by_point, odds, y == index))
    return _mean_of_defined(np.array(areas).reshape(-1, len(weights)))


def _auroc(
    weights: Float[np.ndarray, "point resample"],
    score: Float[np.ndarray, " point"],
    positive: Bool[np.ndarray, " point"],
) -> PerResample:
    """Return what `ranking.auroc` does, for many classes with few points each.

    With P and N the numbers of positives and negatives, and ranks r in the middle of ties, the area
    is (sum of r over positives - P^2 / 2) / (P N): only the ranks of positives are needed.
    """
    if np.isnan(score).any():
        return np.full(weights.shape[1], np.nan)
    order = np.argsort(score, kind="stable")
    starts = tie_starts(score[order])
    ends = np.append(starts[1:], len(order))
    through = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(weights[order], axis=0)])
    places = np.flatnonzero(positive[order])
    group = np.searchsorted(starts, places, side="right") - 1
    hits = weights[order[places]]
    ranks = 0.5 * (through[starts[group]] + through[ends[group]])
    positives, total = hits.sum(0), through[-1]
    pairs = positives * (total - positives)
    area = (hits * ranks).sum(0) - 0.5 * np.square(positives)
    return np.divide(area, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)


def balanced_accuracy(
    weights: Weights, right: Bool[np.ndarray, " point"], y: Int[np.ndarray, " point"]
) -> PerResample:
    """Return the mean over classes with points of the accuracy at their points.

    Args:
        weights: Counts (resample, point).
        right: Whether the predicted class is the true one.
        y: Class indices.

    Returns:
        One number per resample.
    """
    is_class = (y[:, None] == np.unique(y)).astype(np.float64)
    points, hits = weights @ is_class, weights @ (is_class * right[:, None])
    recalls = np.divide(hits, points, out=np.full(points.shape, np.nan), where=points > 0)
    return _mean_of_defined(recalls.T)


def confusion_matrix(
    probabilities: Float[np.ndarray, "point class"], y: Int[np.ndarray, " point"]
) -> Int[np.ndarray, "class class"]:
    """Return the numbers of points by their true class (row) and the predicted one (column).

    Args:
        probabilities: Class probabilities; the first of tied classes is predicted.
        y: Class indices.
    """
    classes = probabilities.shape[1]
    pairs = y * classes + probabilities.argmax(1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _mean_of_defined(values: Float[np.ndarray, "class resample"]) -> Any:
    """Return the mean over classes where the value is defined; NaN where none is."""
    is_defined = ~np.isnan(values)
    number = is_defined.sum(0)
    total = np.where(is_defined, values, 0.0).sum(0)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
