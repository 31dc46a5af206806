"""Decide what each column of a table is: its type, notation, missing values, or none of use.

Where values have one meaning, it is taken and noted; where they have several, the column is an
error that names the setting which declares it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.advice import advise
from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.formats import date_format_of, notation_of
from bnn_symm.data.preprocessing.column_types.notation import are_numbers, parse_numbers
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.column_types.objects import (
    check_codes,
    form_of_objects,
    is_date_type,
    refuse_types,
    rows_of,
)
from bnn_symm.data.preprocessing.column_types.text_columns import infer_text_column, typed_values
from bnn_symm.data.preprocessing.column_values import (
    all_integers,
    check_missing,
    column_values,
    is_missing,
    numbers,
)
from bnn_symm.data.preprocessing.columns import Column, is_placeholder
from bnn_symm.data.preprocessing.labels import sorted_labels
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

_ID_NAME = re.compile(
    r"(?i:id|index|idx|uuid|guid|row[ _.-]?(?:id|no|nr|num|number|index|names?)"
    r"|record[ _.-]?(?:no|nr|number)"
    r"|.*[ _.-]id|unnamed: \d+)|.*[a-z0-9](?:Id|ID)|rownames"
)
# Of a column with more categories than the first number, those with fewer rows than the second are
# one category.
_MANY_CATEGORIES, _RARE_ROWS = 20, 5
# Dates after this year are mentioned, because databases mark an open end by such dates.
_LATEST_YEAR = 2200


@dataclass(frozen=True, kw_only=True, eq=False)
class InferredColumn:
    """A column of a table with its inferred type.

    Args:
        column: inferred type and encoding; None if the column is left out.
        values: values of that type: int64, float64, bool or objects.
        notes: sentences about what was decided.
    """

    column: Column | None
    values: np.ndarray
    notes: tuple[str, ...] = ()


def infer_column(
    series: "pandas.Series", config: DataConfig | None = None, *, is_text: bool = False
) -> InferredColumn:
    """Infer the type of a feature column, or take the declared one.

    Args:
        series: column.
        config: declared types, decimal mark and policy for missing values.
        is_text: whether it comes from a text file, where numbers are strings as well.

    Raises:
        InvalidData: if values have several meanings, or a type that is not supported, or are
            missing where that is an error.
    """
    config = config or DataConfig()
    name = str(series.name)
    what, declared = f"column {quoted(name)}", config.types.get(name)
    missing = is_missing(series)
    if config.missing == "error":
        check_missing(series, what=what)
    elif missing.all():
        return _left_out(series, f"{what} has no values and is left out")
    if declared is not None:
        return _declared(series, name, declared, missing, config)
    present = rows_of(series, ~missing)
    if not is_text:
        refuse_types(series, what)
        form = form_of_objects(present)
        if form is not None:
            return _of_dates(series, name, form, bool(missing.any()))
    texts = [str(value).strip() for value in present.tolist()] if is_text else _texts(present)
    if texts is None:
        return _of_values(series, name, missing)
    return _of_texts(series, name, texts, missing, config, is_text=is_text)


def _of_texts(
    series: "pandas.Series",
    name: str,
    texts: list[str],
    missing: np.ndarray,
    config: DataConfig,
    *,
    is_text: bool,
) -> InferredColumn:
    """Infer the type of a column of texts; `texts` are those of the rows with a value."""
    what = f"column {quoted(name)}"
    real = texts
    if config.missing != "error" and not are_numbers(texts):
        placeholders = {text for text in set(texts) if is_placeholder(text)}
        real = [text for text in texts if text not in placeholders] or texts
    has_missing = len(real) < len(series)
    notation = notation_of(what, real, config)
    is_plain = are_numbers(real)
    if notation is not None or (is_plain and (is_text or len(real) < len(texts))):
        return _of_numbers(series, name, real, notation, has_missing)
    found = date_format_of(what, real, name)
    if found is not None:
        return _of_dates(series, name, found, has_missing)
    if _is_identifier(name) and len(set(texts)) == len(texts) > 1:
        return _left_out(series, f"{what} has the name of an identifier and is left out")
    decision = infer_text_column(what, texts)
    if decision.kind == "number":
        check_codes(what, texts)
        note = (
            f"{what}: numbers that are stored as text, read as {len(set(texts))} categories; "
            "convert the column if they are quantities"
        )
        decision = replace(decision, kind="category", notes=(*decision.notes, note))
    has_gaps = bool(missing.any())
    if decision.kind == "boolean":
        column = Column(name=name, kind="boolean", has_missing=has_gaps)
    else:
        column, notes = _categories(name, texts, has_missing=has_gaps)
        decision = replace(decision, notes=(*decision.notes, *notes))
    values = _with_gaps(series, missing) if has_gaps else typed_values(decision.kind, texts)
    return InferredColumn(
        column=column, values=values, notes=(*decision.notes, *_missing_notes(column, missing))
    )


def _of_numbers(
    series: "pandas.Series",
    name: str,
    real: list[str],
    notation: NumberNotation | None,
    has_missing: bool,
) -> InferredColumn:
    """Return a column of numbers that are written as texts."""
    what = f"column {quoted(name)}"
    if notation is None and _is_identifier(name) and not (parse_numbers(real) % 1).any():
        return _identifier(series, what)
    if notation is None and not has_missing:
        infer_text_column(what, real)  # refuses integers that float64 does not represent
        return _number_column(name, typed_values("number", real))
    column = Column(name=name, kind="number", notation=notation, has_missing=has_missing)
    missing = column.missing(series) if has_missing else np.zeros(len(series), dtype=bool)
    if notation is None:
        column.encode(series)  # raises an error for integers that float64 does not represent
    notes = [] if notation is None else [f"{what}: numbers with {notation.describe()}"]
    return InferredColumn(
        column=column,
        values=_with_gaps(series, missing),
        notes=(*notes, *_missing_notes(column, missing)),
    )


def _number_column(name: str, values: np.ndarray) -> InferredColumn:
    """Return a column of plain numbers without missing values."""
    what = f"column {quoted(name)}"
    return InferredColumn(
        column=Column(name=name, kind="number"),
        values=values,
        notes=(*_counter_notes(what, values), *_date_notes(name, values)),
    )


def _of_values(series: "pandas.Series", name: str, missing: np.ndarray) -> InferredColumn:
    """Infer the type of a column of numbers, booleans or a categorical type."""
    what, has_missing = f"column {quoted(name)}", bool(missing.any())
    values, notes = column_values(rows_of(series, ~missing)), ()
    kinds = {type(value) for value in values.tolist()}
    if Decimal in kinds:
        values = numbers(values, what)
    elif kinds == {bool}:
        values = values.astype(bool)  # objects, because others are missing
    if values.dtype.kind in "biuf" or all_integers(values):
        kind = "boolean" if values.dtype.kind == "b" else "number"
        if _is_identifier(name) and all(float(value).is_integer() for value in values.tolist()):
            return _identifier(series, what)
        if kind == "number":
            numbers(values, what)
        if not has_missing:
            if kind == "number":
                return _number_column(name, values)
            return InferredColumn(column=Column(name=name, kind="boolean"), values=values)
        column = Column(name=name, kind=kind, has_missing=True)
    else:
        column, notes = _categories(name, values.tolist(), has_missing=has_missing)
        if str in kinds and len(kinds) > 1 and str(series.dtype) != "category":
            notes = (*notes, _mixture_note(what, values.tolist()))
    return InferredColumn(
        column=column,
        values=_with_gaps(series, missing) if has_missing else values,
        notes=(*notes, *_missing_notes(column, missing)),
    )


def _mixture_note(what: str, values: Sequence[Any]) -> str:
    """Return a note for objects of which some are texts, unless these are numbers too.

    Raises:
        InvalidData: if all values are numbers, some of them stored as text.
    """
    text = next(value for value in values if isinstance(value, str))
    if are_numbers([str(value).strip() for value in values]):
        raise InvalidData(
            f"{what} contains numbers, some of which are stored as text ({quoted(text)} in row "
            f"{values.index(text) + 1} of those with a value); convert the column to numbers"
        )
    return (
        f"{what} mixes texts with other values ({quoted(text)} in row {values.index(text) + 1}); "
        f"read as {len(set(values))} categories"
    )


def _of_dates(series: "pandas.Series", name: str, form: str, has_missing: bool) -> InferredColumn:
    what = f"column {quoted(name)}"
    column = Column(
        name=name, kind="date", date_format=form, has_time=True, has_missing=has_missing
    )
    missing = column.missing(series) if has_missing else np.zeros(len(series), dtype=bool)
    moments = dates.moments_of(rows_of(series, ~missing), form)
    if None in moments:
        column.encode(series)  # raises an error that names the first other value
    if dates.has_day(form):
        has_time = any(moment and moment.time() != dates.EPOCH.time() for moment in moments)
        column = replace(column, has_time=has_time)
    shown = "ISO dates" if form == dates.ISO else f"dates or times of the form {form}"
    note = f"{what}: {shown}, read as {len(column.value_names)} features"
    latest = max((moment for moment in moments if moment is not None), default=dates.EPOCH)
    if latest.year > _LATEST_YEAR:
        note += (
            f"; the latest is {latest:%Y-%m-%d}: if it stands for an open end, leave the field "
            "empty"
        )
    return InferredColumn(
        column=column,
        values=series.astype(str).to_numpy(dtype=object)
        if not has_missing
        else _with_gaps(series, missing),
        notes=(note, *_missing_notes(column, missing)),
    )


def _declared(
    series: "pandas.Series", name: str, kind: str, missing: np.ndarray, config: DataConfig
) -> InferredColumn:
    """Return a column of a declared type."""
    what, has_missing = f"column {quoted(name)}", bool(missing.any())
    present = rows_of(series, ~missing)
    texts = [str(value).strip() for value in present.tolist()]
    real = [text for text in texts if not is_placeholder(text)]
    has_holes = len(real) < len(series) and config.missing != "error"
    if kind == "text":
        return InferredColumn(
            column=Column(name=name, kind="text"), values=_with_gaps(series, missing)
        )
    if kind == "date" or "%" in kind:
        if kind != "date" or is_date_type(series):
            return _of_dates(series, name, dates.ISO if kind == "date" else kind, has_missing)
        form = date_format_of(what, real, name, is_declared=True)
        return _of_dates(series, name, form or dates.ISO, has_holes)
    if kind == "category":
        is_text = all(isinstance(value, str) for value in present.tolist())
        values = texts if is_text else column_values(present).tolist()
        column, notes = _categories(name, values, has_missing=has_missing)
        return InferredColumn(column=column, values=_with_gaps(series, missing), notes=notes)
    notation = None if kind == "boolean" else notation_of(what, real, config)
    column = Column(
        name=name,
        kind="boolean" if kind == "boolean" else "number",
        notation=notation,
        has_missing=has_holes,
    )
    column.encode(series)  # raises an error that names the first other value
    return InferredColumn(column=column, values=_with_gaps(series, missing))


def _categories(
    name: str, values: Sequence[Any], *, has_missing: bool
) -> tuple[Column, tuple[str, ...]]:
    """Return a column of categories, with rare ones pooled if there are many."""
    counts = Counter(values)
    kept, notes = list(counts), ()
    rare = [value for value, count in counts.items() if count < _RARE_ROWS]
    if len(counts) > _MANY_CATEGORIES and 1 < len(rare) < len(counts):
        kept = [value for value in counts if counts[value] >= _RARE_ROWS]
        notes = (
            f"column {quoted(name)}: {len(rare)} of {len(counts)} categories have fewer than "
            f"{_RARE_ROWS} rows and are one category, as are categories of later data that are new",
        )
    column = Column(
        name=name,
        kind="category",
        categories=sorted_labels(kept),
        has_missing=has_missing,
        pools=bool(notes),
    )
    return column, notes


def _is_identifier(name: str) -> bool:
    return _ID_NAME.fullmatch(name.strip()) is not None


def _identifier(series: "pandas.Series", what: str) -> InferredColumn:
    note = f"{what} contains integers, has the name of an identifier and is left out"
    return _left_out(series, note)


def _left_out(series: "pandas.Series", note: str) -> InferredColumn:
    return InferredColumn(column=None, values=series.to_numpy(dtype=object), notes=(note,))


def _texts(series: "pandas.Series") -> list[str] | None:
    """Return the texts of a typed column, or None if it has other values."""
    values = series.tolist()
    if str(series.dtype) == "category" or not all(isinstance(value, str) for value in values):
        return None
    return [value.strip() for value in values]


def _with_gaps(series: "pandas.Series", missing: np.ndarray) -> np.ndarray:
    """Return values as objects, texts without surrounding spaces, and None where missing."""
    return np.array(
        [
            None if gone else value.strip() if isinstance(value, str) else value
            for value, gone in zip(series.tolist(), missing, strict=True)
        ],
        dtype=object,
    )


def _missing_notes(column: Column, missing: np.ndarray) -> list[str]:
    count = int(missing.sum())
    if not count:
        return []
    place = f"column {quoted(column.name)}: {count} of {len(missing)} values are missing"
    if column.kind == "category":
        return [f"{place}; they are a category of their own"]
    return [f"{place}; the median of the training data replaces them, with a feature that says so"]


def _date_notes(name: str, values: np.ndarray) -> list[str]:
    """Return a note if the integers of a column are dates without separators, as in 20240131."""
    distinct = np.unique(values) if values.dtype.kind in "iu" else values[:0]
    if len(distinct) < 2 or not 19_000_101 <= distinct[0] <= distinct[-1] < 21_000_101:
        return []
    if any(dates.parse(str(value), "%Y%m%d") is None for value in distinct.tolist()):
        return []
    return [
        f"column {quoted(name)}: integers such as {distinct[0]} are read as numbers; if they are "
        f"dates, declare data.types={{{name}: '%Y%m%d'}}"
    ]


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
