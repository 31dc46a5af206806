"""Find signs that scores are too good: repeated points, and features that give the target away."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.points import Split
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.io.memory import points_at_once

# A feature is a suspect above this R^2, or without any error, on at least as many points, of which
# each class has some. No more points and features are looked at than the last two numbers.
_R2, _MIN_POINTS, _MIN_OF_CLASS = 0.999, 100, 10
_MAX_POINTS, _MAX_FEATURES = 2000, 1000


def shared_points(points: Split, others: Split) -> np.ndarray:
    """Return which points are also in another split, with exactly equal features and target.

    Args:
        points: the points in question.
        others: points to compare with, encoded by the same preprocessing.

    Returns:
        True for shared points (point,).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> points = Split(x=x, y=x[:, 0])
        >>> shared_points(points, points.take([1])).tolist()
        [False, True, False]
    """
    known = set(_digests(others))
    return np.array([digest in known for digest in _digests(points)], dtype=bool)


def _digests(points: Split) -> Iterator[bytes]:
    """Yield a hash of the features and the target of each point, with one zero.

    Hashes in place of the values, in chunks, save a copy of large image sets.
    """
    at_once = points_at_once(points.x[:1].numel())
    for x, y in zip(points.x.split(at_once), points.y.split(at_once), strict=True):
        features = (x.detach().cpu().flatten(1) + 0.0).contiguous().numpy()
        targets = (y.detach().cpu() + 0).contiguous().numpy()
        for own, target in zip(features, targets, strict=True):
            yield blake2b(own.tobytes() + target.tobytes(), digest_size=16).digest()


def repeated_point_notes(train: Split, test: Split) -> list[str]:
    """Return a note if test points are training points too.

    Args:
        train: training split.
        test: test split.
    """
    count = int(shared_points(test, train).sum()) if len(test) else 0
    if not count:
        return []
    equal = "equals" if count == 1 else "equal"
    return [
        f"{count} of {len(test)} test points {equal} a training point in all features and the "
        "target; unless this is a coincidence, drop the duplicates, or keep them together with "
        f"{advise_setting('data.group=COLUMN')}"
    ]


def suspect_features(train: Split, names: Sequence[str], *, is_classification: bool) -> list[str]:
    """Return the features that determine a target almost perfectly, each alone.

    Training points are ordered by one feature, and the rank of each target is predicted by the mean
    of its two neighbors in this order, or its class by theirs. A feature is a suspect if R^2 is
    above 0.999, or if classes do not overlap in it at all. A copy of the target in other units, a
    code of the class or a value that is recorded after the target has this property; the best
    features of common data sets do not. Data with a single feature have no suspects, nor have fewer
    than 100 training points, or classes with fewer than 10.

    Args:
        train: training split with flat features.
        names: names of the features.
        is_classification: whether targets are class indices.
    """
    step = max(1, len(train) // _MAX_POINTS)
    x = train.x[::step].double().cpu().numpy()
    y = train.y[::step].double().cpu().numpy()
    if x.ndim != 2 or not 1 < x.shape[1] <= _MAX_FEATURES or len(y) < _MIN_POINTS:
        return []
    varies = x.max(axis=0) > x.min(axis=0)
    order = np.argsort(x, axis=0, kind="stable")
    found = np.zeros(len(names), dtype=bool)
    for column in y.reshape(len(y), -1).T:
        _, labels, counts = np.unique(column, return_inverse=True, return_counts=True)
        if len(counts) < 2 or (is_classification and counts.min() < _MIN_OF_CLASS):
            continue
        ordered = labels.astype(float)[order]  # ranks, or classes
        if is_classification:
            found |= (ordered[1:] != ordered[:-1]).sum(axis=0) == len(counts) - 1
            continue
        means = (ordered[2:] + ordered[:-2]) / 2
        neighbors = np.concatenate([ordered[1:2], means, ordered[-2:-1]])
        found |= 1 - np.square(ordered - neighbors).mean(axis=0) / ordered.var(axis=0) > _R2
    return [names[int(index)] for index in np.flatnonzero(found & varies)]


def suspect_notes(train: Split, names: Sequence[str], *, is_classification: bool) -> list[str]:
    """Return a note on features that may give the target away.

    Args:
        train: training split with flat features.
        names: names of the features.
        is_classification: whether targets are class indices.
    """
    suspects = suspect_features(train, names, is_classification=is_classification)
    if not suspects:
        return []
    listed = short_list([quoted(name) for name in suspects], 3, 100)
    each = "" if len(suspects) == 1 else " each"
    return [
        f"{listed} alone{each} determines the target almost perfectly; check that it is known "
        f"before the target is, or leave it out with {advise_setting('data.drop=COLUMN')}"
    ]
