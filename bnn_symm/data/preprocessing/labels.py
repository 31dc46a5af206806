"""Labels of classes and categories: their types, order, and lookup in other data."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bnn_symm.data.preprocessing.column_types.notation import (
    CODE,
    NUMBER,
    form_of,
    is_integer,
    parse_number,
)

Label = str | int | float | bool


def plain_label(value: Any) -> Label:
    """Return a NumPy or pandas scalar as a Python value that JSON preserves.

    Args:
        value: scalar of any type.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str | int | float | bool) else str(plain)


def sorted_labels(values: Iterable[Any]) -> tuple[Label, ...]:
    """Return the distinct labels in order.

    Labels are sorted by value, or by their text if their types have no common order.

    Args:
        values: labels, with repetitions.
    """
    # The type is part of the key, because True == 1 and the result must not depend on the order of
    # the rows.
    labels = list({(type(label), label): label for label in map(plain_label, values)}.values())
    try:
        if len({isinstance(label, bool) for label in labels}) > 1:
            raise TypeError
        return tuple(sorted(labels))  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        return tuple(sorted(labels, key=str))


def label_indices(values: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Return the index of each value among `labels`, or -1 if it is not one of them.

    Each value is compared independently of the others, so that a row has the same index in every
    file. If all labels are numbers or booleans, a text matches the number or boolean that it
    represents. If labels are texts, a number matches its text: a column of 1, 2 and "3+" is text,
    whereas a later file of 1 and 2 contains integers.

    Args:
        values: (point,), of any type.
        labels: distinct labels.

    Returns:
        Indices (point,), int64.
    """
    find = _label_index(labels)
    known: dict[Any, int] = {}
    result = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values.tolist()):
        try:
            key = (type(value), value)
            if key not in known:
                known[key] = find(value)
            result[row] = known[key]
        except TypeError:  # values that are not hashable are no labels
            result[row] = -1
    return result


def label_array(labels: Sequence[Label]) -> np.ndarray:
    """Return the labels as an array of their type.

    The array has objects if the types differ or integers do not fit into int64.

    Args:
        labels: distinct labels.
    """
    if len({type(label) for label in labels}) != 1:
        return np.array(labels, dtype=object)
    long = isinstance(labels[0], int) and not all(
        -(2**63) <= int(label) < 2**63 for label in labels
    )
    return np.array(labels, dtype=object if long else None)


def _label_index(labels: Sequence[Label]) -> Any:
    if all(isinstance(label, bool) for label in labels):
        return _ValueIndex(labels, _as_boolean)
    if all(isinstance(label, int | float) and not isinstance(label, bool) for label in labels):
        return _ValueIndex(labels, _as_number)
    return _TextIndex(labels)


class _ValueIndex:
    """Look up values among labels that are all numbers or all booleans."""

    def __init__(self, labels: Sequence[Label], convert: Any):
        self._indices = {label: index for index, label in enumerate(labels)}
        self._convert = convert

    def __call__(self, value: Any) -> int:
        converted = self._convert(value)
        return -1 if converted is None else self._indices.get(converted, -1)


class _TextIndex:
    """Look up values by their text among labels of which some are texts."""

    def __init__(self, labels: Sequence[Label]):
        self._exact = {_text(label): index for index, label in enumerate(labels)}
        # A number that equals a code with leading zeros is ambiguous: its code is not known.
        codes = [
            label
            for label in labels
            if isinstance(label, str) and form_of(label.strip() or "?") == CODE
        ]
        self._ambiguous = {parse_number(code.lstrip("0") or "0") for code in codes}

    def __call__(self, value: Any) -> int:
        if isinstance(value, str):
            return self._exact.get(value, self._exact.get(value.strip(), -1))
        if isinstance(value, int | float) and value in self._ambiguous:
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
