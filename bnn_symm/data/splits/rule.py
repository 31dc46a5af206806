"""The protocol of rules by which points are split, and the error that they share."""

from typing import Protocol

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.errors import InvalidData


class SplitRule(Protocol):
    """A rule by which points are split."""

    @property
    def order(self) -> np.ndarray:
        """Return all rows, in the order in which the rule considers them."""
        ...

    def take(self, rows: np.ndarray, fraction: float, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return about a fraction of the rows for a part, and the rest.

        Args:
            rows: rows in the order of the rule.
            fraction: fraction of the rows; the part is empty at 0.
            part: name of the part, `test` or `validation`.

        Raises:
            InvalidData: if the rows are too few for the part.
        """
        ...

    def fold(self, number: int, num_folds: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a fold, and those for training and validation.

        Args:
            number: the fold, from 0.
            num_folds: the number of folds.

        Raises:
            InvalidData: if the rows are too few for as many folds.
        """
        ...

    def limit(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return at most `count` rows for training and validation.

        Args:
            rows: rows in the order of the rule.
            count: number of rows; None for all.
        """
        ...

    def describe(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> str:
        """Return a phrase on the rule and on what is in each part.

        Args:
            train: rows of the training split.
            validation: rows of the validation split.
            test: rows of the test split; empty if another rule chose them.
        """
        ...


def too_few(got: str, part: str, fraction: float) -> InvalidData:
    """Return the error for a part that would have no points.

    Args:
        got: number of rows, groups or times.
        part: name of the part.
        fraction: fraction of the rows that was wanted.
    """
    return InvalidData(
        f"{got} are too few for a {part} split of {fraction:g}; use more data, or "
        f"{advise_setting(f'data.{part}_fraction=0')}"
    )


def too_few_for_folds(got: str, num_folds: int, *, least: int) -> InvalidData:
    """Return the error for folds that would have no points.

    Args:
        got: number of rows, groups or times.
        num_folds: number of folds that was wanted.
        least: smallest number of them for as many folds.
    """
    return InvalidData(
        f"{got} are too few for {num_folds} folds, expected at least {least}; use fewer with "
        f"{advise_setting('data.num_folds=K')}"
    )
