"""Cutting points into train, validation and test.

The shuffle is keyed by `split_seed` alone, so the same seed cuts the same number of points the same
way.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.errors import InvalidData
from bnn_symm.randomness import numpy_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitIndices:
    """Row indices of the three parts: disjoint, train and validation in the order of the keyed
    shuffle.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def sha256(self) -> str:
        """Return the SHA-256 of the rows of train, validation and test, in their order."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.test):
            digest.update(f"{len(rows)};".encode())
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        return digest.hexdigest()


def split_points(
    num_points: int,
    config: DataConfig,
    *,
    classes: np.ndarray | None = None,
    fixed: tuple[np.ndarray, np.ndarray] | None = None,
    gap_values: np.ndarray | None = None,
) -> SplitIndices:
    """Cuts `num_points` rows into three parts.

    Args:
        num_points: how many rows there are.
        config: fractions, key and limit.
        classes: class indices (point,); given, each part gets the classes in proportion, and the
            training part keeps at least one point of each.
        fixed: the set's own (train, test) indices, used in place of `test_fraction`.
        gap_values: a feature (point,); given, the test part is its middle third (`gap_mask`).

    Raises:
        InvalidData: if there are too few rows for a part that was asked for.
    """
    order = numpy_generator(config.split_seed, "split").permutation(num_points)
    if gap_values is not None:
        inside = gap_mask(gap_values)
        test, rest = np.flatnonzero(inside), order[~inside[order]]
    elif fixed is not None:
        test, rest = fixed[1], order[np.isin(order, fixed[0])]
    else:
        test, rest = _take(order, classes, config.test_fraction, "test")
    rest = rest[: config.limit]
    validation, train = _take(rest, classes, config.validation_fraction, "validation")
    if len(train) < 2:
        raise InvalidData(
            f"{num_points} rows leave {len(train)} for training, wanted at least 2; give more "
            "data, or use --set data.test_fraction=0 --set data.validation_fraction=0"
        )
    return SplitIndices(train=train, validation=validation, test=test)


def gap_mask(values: np.ndarray) -> np.ndarray:
    """True for the points between the first and the second tercile of a feature, both included.

    Training on the outer thirds and testing on the middle asks for uncertainty *between* the data.

    Args:
        values: (point,).

    Raises:
        InvalidData: if ties leave nothing on one side of the gap.

    References:
        Foong et al. (2019), 'In-Between' Uncertainty in Bayesian Neural Networks, arXiv:1906.11537.
    """
    lower, upper = np.quantile(values, [1 / 3, 2 / 3])
    inside = (values >= lower) & (values <= upper)
    if not inside.any() or lower <= values.min() or upper >= values.max():
        raise InvalidData(
            f"the gap feature has too few distinct values ({len(np.unique(values))}) for points on "
            "both sides of its middle third; choose another with --set data.gap_feature=COLUMN"
        )
    return inside


def _take(
    order: np.ndarray, classes: np.ndarray | None, fraction: float, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """The first `fraction` of `order`, class by class where there are classes, and the rest."""
    if fraction == 0:
        return order[:0], order
    count = round(len(order) * fraction)
    chosen = np.arange(len(order)) < count
    if classes is not None:
        chosen = np.zeros(len(order), dtype=bool)
        _, labels = np.unique(classes[order], return_inverse=True)
        for label, take in enumerate(_allocate(np.bincount(labels), count)):
            chosen[np.flatnonzero(labels == label)[:take]] = True
    if not chosen.any():
        raise InvalidData(
            f"{len(order)} rows are too few for a {part} part of {fraction:g}; give more data, or "
            f"use --set data.{part}_fraction=0"
        )
    return order[chosen], order[~chosen]


def _allocate(sizes: np.ndarray, count: int) -> np.ndarray:
    """How many of each class to take: in proportion, by largest remainder, leaving at least one of
    each.
    """
    quotas = sizes * count / max(sizes.sum(), 1)
    take = np.minimum(np.floor(quotas).astype(int), sizes - 1)
    for label in np.argsort(-(quotas - np.floor(quotas)), kind="stable"):
        if take.sum() >= count:
            break
        take[label] += take[label] < sizes[label] - 1
    return take
