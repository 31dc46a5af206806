r"""Splits by group: rows of one group, such as one patient, never lie in two parts.

A part is a set of whole groups whose number of rows of each class is near the wanted one. With n_c
the rows of class c, s_c those of the part and f n_c those wanted, the distance is

    sum_c (s_c - f n_c)^2 / n_c + (s - f n)^2 / n,

where the last term is over all rows; without classes it is the only one. Groups are considered in
random order, and one is added if it reduces the distance; of several random orders the one with the
smallest distance is taken. Stratification is therefore approximate, as near as whole groups allow.
A group that alone has the remaining rows of a class stays for training.

Folds are filled greedily: groups, from the largest, go to the fold where they increase the same sum
of squares least.

References:
    The greedy assignment of groups to folds is that of scikit-learn's `StratifiedGroupKFold`.
"""

from dataclasses import dataclass

import numpy as np

from bnn_symm.data.splits.rule import too_few, too_few_for_folds
from bnn_symm.errors import InvalidData
from bnn_symm.randomness import numpy_generator

# Random orders of groups that are tried, and the groups that are considered in all of them.
_MAX_ORDERS, _MAX_CONSIDERED = 20, 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupRule:
    """Split whole groups at random.

    Args:
        groups: group indices (point,), from 0 without gaps.
        name: name of the column with the groups, in quotation marks.
        seed: seed of the shuffle.
        classes: class indices (point,) for an approximately stratified split; None for none.
    """

    groups: np.ndarray
    name: str
    seed: int
    classes: np.ndarray | None = None

    @property
    def order(self) -> np.ndarray:
        """Return all rows in random order."""
        return numpy_generator(self.seed, "split").permutation(len(self.groups))

    def take(self, rows: np.ndarray, fraction: float, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of random groups, and the rest, which has at least one group."""
        if fraction == 0:
            return rows[:0], rows
        present = np.unique(self.groups[rows])
        if len(present) < 2:
            raise too_few(f"{len(present)} groups of {self.name}", part, fraction)
        counts = self._counts(rows, present)
        random = numpy_generator(self.seed, "split groups", part)
        num_orders = max(1, min(_MAX_ORDERS, _MAX_CONSIDERED // len(present)))
        candidates = [
            _near(counts, fraction, random.permutation(len(present))) for _ in range(num_orders)
        ]
        distance, chosen = min(candidates, key=lambda candidate: candidate[0])
        if not np.isfinite(distance):
            raise InvalidData(
                f"every group of {self.name} is the only one with some class, so none is left for "
                f"a {part} split; use more groups, or another target"
            )
        inside = np.isin(self.groups[rows], present[chosen])
        return rows[inside], rows[~inside]

    def fold(self, number: int, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the groups of a fold, and the others."""
        present = np.unique(self.groups)
        if len(present) < num_folds:
            got = f"{len(present)} groups of {self.name}"
            raise too_few_for_folds(got, num_folds, least=num_folds)
        random = numpy_generator(self.seed, "split groups", "folds")
        order = self.order
        folds = _folds(self._counts(order, present), num_folds, random.permutation(len(present)))
        inside = (folds == number)[self.groups[order]]
        return order[inside], order[~inside]

    def limit(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return the first rows; a group may keep some of its rows only."""
        return rows[:count]

    def describe(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> str:
        """Return the rule in words, with the number of groups of each part."""
        parts = {"training": train, "validation": validation, "test": test}
        counts = ", ".join(
            f"{len(np.unique(self.groups[rows]))} {name}" for name, rows in parts.items()
        )
        stratified = "" if self.classes is None else ", approximately stratified by class"
        return f"by groups of {self.name} ({counts}){stratified} (seed {self.seed})"

    def _counts(self, rows: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Return the rows of each group (group, class), with all classes in the last column."""
        groups = np.searchsorted(present, self.groups[rows])
        classes = np.zeros(len(rows), dtype=int)
        if self.classes is not None:
            _, classes = np.unique(self.classes[rows], return_inverse=True)
        num_classes = int(classes.max()) + 1
        counts = np.bincount(groups * num_classes + classes, minlength=len(present) * num_classes)
        counts = counts.reshape(len(present), num_classes).astype(float)
        if num_classes == 1:
            return counts
        return np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)


def _near(counts: np.ndarray, fraction: float, order: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the distance of a set of groups from a fraction, and the set; infinite for none."""
    total = counts.sum(axis=0)
    wanted, taken = fraction * total, np.zeros_like(total)
    chosen = np.zeros(len(counts), dtype=bool)
    best = None  # the group to take if none reduces the distance
    for group in order:
        own = counts[group]
        if (taken + own == total).any():
            continue
        change = float((own * (own + 2 * (taken - wanted)) / total).sum())
        if change < 0:
            chosen[group], taken = True, taken + own
        elif not chosen.any() and (best is None or change < best[0]):
            best = change, group
    if not chosen.any():
        if best is None:
            return np.inf, chosen
        chosen[best[1]], taken = True, counts[best[1]]
    return float(((taken - wanted) ** 2 / total).sum()), chosen


def _folds(counts: np.ndarray, num_folds: int, order: np.ndarray) -> np.ndarray:
    """Return the fold of each group; each fold has at least one."""
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    total = counts.sum(axis=0)
    sums, sizes = np.zeros((num_folds, counts.shape[1])), np.zeros(num_folds, dtype=int)
    folds = np.zeros(len(counts), dtype=int)
    for position, group in enumerate(order):
        change = (counts[group] * (counts[group] + 2 * sums) / total).sum(axis=1)
        if len(order) - position <= (sizes == 0).sum():
            change[sizes > 0] = np.inf
        fold = int(np.lexsort((sizes, np.round(change, 12)))[0])
        folds[group], sizes[fold] = fold, sizes[fold] + 1
        sums[fold] += counts[group]
    return folds
