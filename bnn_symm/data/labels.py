"""Labels of classes and of categories: their types, their order, and finding them again in other data."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Label = str | int | float | bool


def plain_label(value: Any) -> Label:
    """A numpy or pandas scalar as the Python value that JSON keeps in type."""
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def sorted_labels(values: Iterable[Any]) -> tuple[Label, ...]:
    """The distinct labels in order: by value, or by text where they are of types without a common order."""
    labels = {plain_label(value) for value in values}
    try:
        return tuple(sorted(labels))  # pyright: ignore[reportArgumentType]
    except TypeError:
        return tuple(sorted(labels, key=str))


def label_indices(values: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """The index of each value among `labels`, -1 where it is not one of them.

    A value is matched by equality, then by its text: a column that holds 1, 2 and "3+" is read as text, and a
    later file that happens to hold only 1 and 2 is read as integers.
    """
    import pandas as pd

    codes, uniques = pd.factorize(values, use_na_sentinel=True)
    by_value = {label: index for index, label in enumerate(labels)}
    by_text = {_text(label): index for index, label in enumerate(labels)}

    def find(value: Any) -> int:
        label = plain_label(value)
        return by_value.get(label, by_text.get(_text(label), -1))

    found = np.array([find(value) for value in uniques] + [-1], dtype=np.int64)
    return found[codes]  # the code of a missing value is -1, which picks the -1 at the end


def label_array(labels: Sequence[Label]) -> np.ndarray:
    """The labels as an array in their own type; of objects where the types differ."""
    one_type = len({type(label) for label in labels}) == 1
    return np.array(labels) if one_type else np.array(labels, dtype=object)


def _text(label: Label) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
