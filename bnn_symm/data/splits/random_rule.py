"""Random splits, stratified by class where there are classes.

The shuffle depends on the seed and the number of points alone.
"""

from dataclasses import dataclass

import numpy as np

from bnn_symm.data.splits.rule import too_few, too_few_for_folds
from bnn_symm.randomness import numpy_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomRule:
    """Split points at random.

    Args:
        num_points: number of points.
        seed: seed of the shuffle.
        classes: class indices (point,) for a stratified split, in which a fraction leaves at least
            one point of each class; None for none.
    """

    num_points: int
    seed: int
    classes: np.ndarray | None = None

    @property
    def order(self) -> np.ndarray:
        """Return all rows in the order of the shuffle."""
        return numpy_generator(self.seed, "split").permutation(self.num_points)

    def take(self, rows: np.ndarray, fraction: float, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the first rows, per class where there are classes, and the rest."""
        if fraction == 0:
            return rows[:0], rows
        count = round(len(rows) * fraction)
        chosen = np.arange(len(rows)) < count
        if self.classes is not None:
            chosen = np.zeros(len(rows), dtype=bool)
            _, labels = np.unique(self.classes[rows], return_inverse=True)
            for label, take in enumerate(_allocate(np.bincount(labels), count)):
                chosen[np.flatnonzero(labels == label)[:take]] = True
        if not chosen.any():
            raise too_few(f"{len(rows)} rows", part, fraction)
        return rows[chosen], rows[~chosen]

    def fold(self, number: int, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a fold and the others.

        Folds are dealt out to the rows in turn, class by class, so that their sizes differ by at
        most one point, of each class as well.
        """
        if self.num_points < num_folds:
            raise too_few_for_folds(f"{self.num_points} rows", num_folds, least=num_folds)
        order, dealt = self.order, np.arange(self.num_points)
        if self.classes is not None:
            dealt = np.argsort(self.classes[order], kind="stable")
        chosen = np.zeros(self.num_points, dtype=bool)
        chosen[dealt[number::num_folds]] = True
        return order[chosen], order[~chosen]

    def limit(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return the first rows."""
        return rows[:count]

    def describe(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> str:
        """Return the rule in words."""
        return f"random{'' if self.classes is None else ' within classes'} (seed {self.seed})"


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
