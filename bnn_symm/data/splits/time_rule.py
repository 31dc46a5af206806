"""Splits by time: train before validation before test; rows of one time stay together.

Folds are blocks of time. With K folds there are K + 1 blocks of about equal size: fold i tests on
block i + 1 and trains on the blocks before it (forward chaining). The first block is never tested,
and the blocks after the tested one are unused.

References:
    Hyndman and Athanasopoulos (2021), Forecasting: Principles and Practice, section 5.10
    (evaluation on a rolling forecasting origin).
"""

from dataclasses import dataclass

import numpy as np

from bnn_symm.data.splits.rule import too_few, too_few_for_folds
from bnn_symm.formatting import number as number_text


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeRule:
    """Split points by time.

    Args:
        times: numbers or `datetime64` (point,).
        name: name of the column with the times, in quotation marks.
    """

    times: np.ndarray
    name: str

    @property
    def order(self) -> np.ndarray:
        """Return all rows in the order of time."""
        return np.argsort(self.times, kind="stable")

    def take(self, rows: np.ndarray, fraction: float, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the latest rows, and the rest; the cut is at the change of time nearest to it."""
        if fraction == 0:
            return rows[:0], rows
        changes = self._changes(rows)
        if not len(changes):
            raise too_few(f"{min(len(rows), 1)} distinct times of {self.name}", part, fraction)
        wanted = len(rows) - round(len(rows) * fraction)
        cut = changes[np.argmin(np.abs(changes - wanted))]
        return rows[cut:], rows[:cut]

    def fold(self, number: int, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a block, and those before it."""
        changes = self._changes(self.order)
        if len(changes) < num_folds:
            got = f"{len(changes) + 1} distinct times of {self.name}"
            raise too_few_for_folds(got, num_folds, least=num_folds + 1)
        cuts, first = [], 0
        for block in range(1, num_folds + 1):
            # Later blocks need a change each.
            candidates = changes[first : len(changes) - (num_folds - block)]
            wanted = len(self.order) * block / (num_folds + 1)
            nearest = int(np.argmin(np.abs(candidates - wanted)))
            cuts.append(candidates[nearest])
            first += nearest + 1
        start, end = [*cuts, len(self.order)][number : number + 2]
        return self.order[start:end], self.order[:start]

    def limit(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return the latest rows."""
        return rows if count is None else rows[-count:]

    def describe(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> str:
        """Return the rule in words, with the times of each part."""
        parts = {"training": train, "validation": validation, "test": test}
        ranges = ", ".join(
            f"{name} {_text(self.times[rows].min())} to {_text(self.times[rows].max())}"
            for name, rows in parts.items()
            if len(rows)
        )
        unused = len(self.times) - sum(map(len, parts.values()))
        more = f"; {unused} rows are unused" if unused else ""
        return f"by time of {self.name} ({ranges}){more}"

    def _changes(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of rows whose time differs from that of the row before."""
        times = self.times[rows]
        return np.flatnonzero(times[1:] != times[:-1]) + 1


def _text(time: np.generic) -> str:
    """Return a time for a phrase."""
    if time.dtype.kind != "M":
        return number_text(float(time), 6)
    return str(time).removesuffix(".000000").removesuffix("T00:00:00")
