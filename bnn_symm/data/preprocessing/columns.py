"""Columns of a table: their types and their encoding as numbers."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.advice import advise
from bnn_symm.data.preprocessing.column_values import (
    all_integers,
    check_missing,
    column_values,
    numbers,
    table_column,
)
from bnn_symm.data.preprocessing.labels import Label, label_indices, sorted_labels
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.preprocessing.text_columns import (
    Kind,
    TextColumn,
    infer_text_column,
    typed_values,
)
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

_ID_NAME = re.compile(
    r"(?i:id|index|idx|uuid|guid|row[ _.-]?(?:id|no|nr|num|number|index|names?)"
    r"|record[ _.-]?(?:no|nr|number)"
    r"|.*[ _.-]id|unnamed: \d+)|.*[a-z0-9](?:Id|ID)|rownames"
)
# Integers that are stored as text are codes if they have at most this many distinct values.
_MAX_CODES = 20


@dataclass(frozen=True, kw_only=True)
class Column:
    """Type and encoding of one raw column of a table.

    Args:
        name: name in the table.
        kind: `number` is unchanged, `boolean` becomes 0 or 1, `category` becomes one 0/1 feature
            per category.
        categories: sorted categories, for `category` only.
    """

    name: str
    kind: Kind
    categories: tuple[Label, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the features that encode this column."""
        if self.kind == "category":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)

    def encode(self, series: "pandas.Series") -> np.ndarray:
        """Return the column as float64 numbers (point, feature).

        Each value is parsed by the stored type alone, independently of the other rows.

        Args:
            series: column of a table.

        Raises:
            InvalidData: if a value is missing, infinite, not a number, or an unseen category.
        """
        check_missing(series, self.name)
        if self.kind == "category":
            indices = label_indices(column_values(series), self.categories)
            if (indices < 0).any():
                row = int(np.argmax(indices < 0))
                raise InvalidData(
                    f"column {quoted(self.name)}, row {row + 1}: {quoted(series.iloc[row])} is not "
                    f"a category of the training data ({short_list(self.categories, width=60)}); "
                    "correct it or drop the row"
                )
            return np.eye(len(self.categories))[indices]
        values = numbers(series, f"column {quoted(self.name)}", booleans=self.kind == "boolean")
        if self.kind == "boolean" and (wrong := ~np.isin(values, (0.0, 1.0))).any():
            row = int(np.argmax(wrong))
            raise InvalidData(
                f"column {quoted(self.name)}, row {row + 1}: got {quoted(series.iloc[row])}, "
                "expected true or false; correct it"
            )
        return values[:, None]

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON types."""
        return {"name": self.name, "kind": self.kind, "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Column":
        """Return the column from the result of `to_dict`."""
        return cls(
            name=content["name"], kind=content["kind"], categories=tuple(content["categories"])
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class InferredColumn:
    """A column of a table with its inferred type.

    Args:
        column: inferred type and encoding.
        values: values of that type: int64, float64, bool or objects.
        notes: sentences about unexpected properties of the column.
    """

    column: Column
    values: np.ndarray
    notes: tuple[str, ...] = ()


def infer_columns(frame: "pandas.DataFrame") -> tuple[Column, ...]:
    """Return the types of the feature columns of a table.

    Args:
        frame: feature columns.

    Raises:
        InvalidData: if a column contains dates, identifiers, free text, or values other than
            numbers and text.
    """
    return tuple(infer_column(table_column(frame, name)).column for name in frame.columns)


def infer_column(series: "pandas.Series", *, is_text: bool = False) -> InferredColumn:
    """Infer the type of a feature column.

    Args:
        series: column.
        is_text: whether it comes from a text file, where numbers are strings as well.

    Raises:
        InvalidData: as `infer_columns` does.
    """
    name = str(series.name)
    what = f"column {quoted(name)}"
    values, decision = infer_values(series, what, is_text=is_text)
    if (
        decision.kind == "number"
        and values.dtype.kind in "iuO"
        and _ID_NAME.fullmatch(name.strip())
    ):
        raise InvalidData(
            f"{what} contains integers and has the name of an identifier; drop it, or rename it if "
            "it is a feature"
        )
    categories = sorted_labels(values.tolist()) if decision.kind == "category" else ()
    column = Column(name=name, kind=decision.kind, categories=categories)
    return InferredColumn(
        column=column, values=values, notes=(*decision.notes, *_counter_notes(what, values))
    )


def infer_values(
    series: "pandas.Series", what: str, *, is_text: bool, is_target: bool = False
) -> tuple[np.ndarray, TextColumn]:
    """Infer the type of a column, and return its values in that type.

    Args:
        series: column.
        what: description of the column for messages.
        is_text: whether it comes from a text file.
        is_target: whether it is the target.

    Raises:
        InvalidData: if values are missing, dates, numbers in an unsupported notation, or of other
            types.
    """
    check_missing(series, what=what)
    if is_text:
        texts = series.tolist()
        decision = infer_text_column(what, texts, is_target=is_target)
        return typed_values(decision.kind, texts), decision
    _refuse_types(series, what)
    values = column_values(series)
    if values.dtype.kind == "b":
        return values, TextColumn(kind="boolean")
    if values.dtype.kind in "iuf" or all_integers(values):
        if not is_target:
            numbers(values, what)
        return values, TextColumn(kind="number")
    if not all(isinstance(value, str) for value in values.tolist()):
        return values, TextColumn(kind="category")  # the categories of a categorical type
    decision = infer_text_column(what, values.tolist(), is_target=is_target)
    if decision.kind == "number":
        _check_codes(what, values.tolist())
    return np.array([value.strip() for value in values.tolist()], dtype=object), TextColumn(
        kind="category", notes=decision.notes
    )


def _refuse_types(series: "pandas.Series", what: str) -> None:
    from pandas.api import types

    dtype = series.dtype
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        raise InvalidData(
            f"{what} contains dates or times, which are not supported as features; drop it or "
            "convert it"
        )
    if types.is_complex_dtype(dtype):
        raise InvalidData(
            f"{what} contains complex numbers, which are not supported as features; drop it or "
            "convert it"
        )
    if not types.is_numeric_dtype(dtype) or str(dtype) == "category":
        kinds = {type(value).__name__ for value in column_values(series).tolist()}
        if not kinds <= {"str", "int", "float", "bool"}:
            raise InvalidData(
                f"{what} contains values of type {short_list(sorted(kinds), 3)}, expected numbers "
                "or text; drop it or convert it"
            )


def _check_codes(what: str, texts: list[str]) -> None:
    """Raise an error if the texts of a typed column are numbers instead of categories."""
    distinct = set(texts)
    if len(distinct) > _MAX_CODES or any("." in text or "e" in text.lower() for text in distinct):
        raise InvalidData(
            f"{what} contains numbers that are stored as text ({quoted(texts[0])} in row 1); "
            "convert the column to numbers"
        )


def _counter_notes(what: str, values: np.ndarray) -> list[str]:
    """Return a note if the values of a column resemble row numbers or identifiers."""
    if values.dtype.kind not in "iu" or len(values) < 20 or len(np.unique(values)) < len(values):
        return []
    drop = advise("use --set data.drop=COLUMN", "drop it")
    if (np.diff(values) == 1).all():
        return [
            f"{what} counts the rows ({values[0]}, {values[1]}, ...); {drop} if it is a row number"
        ]
    digits = {len(str(abs(value))) for value in values.tolist()}
    if len(digits) == 1 and min(digits) >= 5:
        return [
            f"{what} contains {len(values)} distinct integers of {min(digits)} digits; {drop} if "
            "it is an identifier"
        ]
    return []
