"""Split of points into train, validation and test.

The shuffle depends on `split_seed` and the number of points alone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.errors import InvalidData
from bnn_symm.randomness import numpy_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitIndices:
    """Row indices of the three splits.

    The splits are disjoint; train and validation are in the order of the keyed shuffle.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def sha256(self) -> str:
        """Return the SHA-256 of the rows of train, validation and test, in this order."""
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
    """Split `num_points` rows into train, validation and test.

    Args:
        num_points: number of rows.
        config: fractions, seed and limit.
        classes: class indices (point,) for a stratified split, in which the training split has at
            least one point of each class.
        fixed: (train, test) indices of a fixed split, used instead of `test_fraction`.
        gap_values: feature (point,) whose middle third becomes the test split (`gap_mask`).

    Raises:
        InvalidData: if there are too few rows for a split.
    """
    order = numpy_generator(config.split_seed, "split").permutation(num_points)
    if gap_values is not None:
        inside = gap_mask(gap_values)
        test, rest = np.flatnonzero(inside), order[~inside[order]]
    elif fixed is not None:
        test, rest = fixed[1], order[np.isin(order, fixed[0])]
    else:
        test, rest = _take_fraction(order, classes, config.test_fraction, "test")
    rest = rest[: config.limit]
    validation, train = _take_fraction(rest, classes, config.validation_fraction, "validation")
    if len(train) < 2:
        raise InvalidData(
            f"{num_points} rows leave {len(train)} for training, expected at least 2; use more "
            f"data, or {advise_setting('data.test_fraction=0', 'data.validation_fraction=0')}"
        )
    return SplitIndices(train=train, validation=validation, test=test)


def gap_mask(values: np.ndarray) -> np.ndarray:
    """Return True for the points between the first and second terciles of a feature, inclusive.

    Training on the outer thirds and testing on the middle third evaluates the uncertainty *between*
    the data.

    Args:
        values: (point,).

    Raises:
        InvalidData: if ties leave no points on one side of the gap.

    References:
        Foong et al. (2019), 'In-Between' Uncertainty in Bayesian Neural Networks, arXiv:1906.11537.
    """
    lower, upper = np.quantile(values, [1 / 3, 2 / 3])
    inside = (values >= lower) & (values <= upper)
    if not inside.any() or lower <= values.min() or upper >= values.max():
        raise InvalidData(
            f"the gap feature has too few distinct values ({len(np.unique(values))}), expected "
            "values on both sides of its middle third; choose another with "
            f"{advise_setting('data.gap_feature=COLUMN')}"
        )
    return inside


def _take_fraction(
    order: np.ndarray, classes: np.ndarray | None, fraction: float, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `fraction` of `order`, per class where there are classes, and the rest."""
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
            f"{len(order)} rows are too few for a {part} split of {fraction:g}; use more data, or "
            f"{advise_setting(f'data.{part}_fraction=0')}"
        )
    return order[chosen], order[~chosen]


def _allocate(sizes: np.ndarray, count: int) -> np.ndarray:
    """Return how many points to take of each class, and leave at least one of each.

    Numbers are proportional to the sizes, rounded by largest remainders.
    """
    quotas = sizes * count / max(sizes.sum(), 1)
    take = np.minimum(np.floor(quotas).astype(int), sizes - 1)
    for label in np.argsort(-(quotas - np.floor(quotas)), kind="stable"):
        if take.sum() >= count:
            break
        take[label] += take[label] < sizes[label] - 1
    return take
