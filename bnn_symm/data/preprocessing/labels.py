"""Labels of classes and of categories: their types, their order, and finding them again in other
data.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bnn_symm.data.preprocessing.notation import CODE, NUMBER, form_of, is_integer, parse_number

Label = str | int | float | bool


def plain_label(value: Any) -> Label:
    """A numpy or pandas scalar as the Python value that JSON keeps in type."""
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def sorted_labels(values: Iterable[Any]) -> tuple[Label, ...]:
    """The distinct labels in order: by value, or by text where they are of types without a common
    order.
    """
    # By type as well: True and 1 are equal, and which of them is kept may not depend on the order
    # of the rows.
    labels = list({(type(label), label): label for label in map(plain_label, values)}.values())
    try:
        if len({isinstance(label, bool) for label in labels}) > 1:
            raise TypeError
        return tuple(sorted(labels))  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        return tuple(sorted(labels, key=str))


def label_indices(values: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Return the index of each value among `labels`, -1 where it is not one of them.

    Each value is compared by itself, whatever stands beside it, so that a row has one index in
    every file. Where all labels are numbers or booleans, a text counts as the number or boolean
    that it states; where they are texts, a number counts as its text (a column that holds 1, 2 and
    "3+" is text, a later file of 1 and 2 alone is integers).

    Args:
        values: (point,), of any type.
        labels: distinct.

    Returns:
        Indices (point,), int64.
    """
    find = _finder(labels)
    known: dict[Any, int] = {}
    result = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values.tolist()):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = find(value)
            result[row] = known[key]
        except TypeError:  # not hashable: no label
            result[row] = -1
    return result


def label_array(labels: Sequence[Label]) -> np.ndarray:
    """The labels as an array in their own type; of objects where the types differ or integers are
    too long.
    """
    if len({type(label) for label in labels}) != 1:
        return np.array(labels, dtype=object)
    long = isinstance(labels[0], int) and not all(
        -(2**63) <= int(label) < 2**63 for label in labels
    )
    return np.array(labels, dtype=object if long else None)


def _finder(labels: Sequence[Label]) -> Any:
    if all(isinstance(label, bool) for label in labels):
        return _Finder(labels, _as_boolean)
    if all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels):
        return _Finder(labels, _as_number)
    return _TextFinder(labels)


class _Finder:
    """Finds values among labels that are all numbers, or all booleans."""

    def __init__(self, labels: Sequence[Label], convert: Any):
        self._indices = {label: index for index, label in enumerate(labels)}
        self._convert = convert

    def __call__(self, value: Any) -> int:
        converted = self._convert(value)
        return -1 if converted is None else self._indices.get(converted, -1)


class _TextFinder:
    """Finds values among labels of which some are texts, by their text."""

    def __init__(self, labels: Sequence[Label]):
        self._exact = {_text(label): index for index, label in enumerate(labels)}
        # The numbers that codes with leading zeros would become: which code such a number was is
        # not known.
        codes = [
            label
            for label in labels
            if isinstance(label, str) and form_of(label.strip() or "?") == CODE
        ]
        self._lost = {parse_number(code.lstrip("0") or "0") for code in codes}

    def __call__(self, value: Any) -> int:
        if isinstance(value, str):
            return self._exact.get(value, self._exact.get(value.strip(), -1))
        if isinstance(value, int | float) and value in self._lost:
            return -1
        return self._exact.get(_text(plain_label(value)), -1)


def _as_boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        return int(text) if is_integer(text) and form_of(text) == NUMBER else parse_number(text)
    return value if isinstance(value, int | float) else None


def _text(label: Label) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
