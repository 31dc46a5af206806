"""Decide what each column of a table is: its type, notation, missing values, or none of use.

Where values have one meaning, it is taken and noted; where they have several, the column is an
error that names the setting which declares it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.advice import advise
from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.notation import are_numbers, parse_numbers
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation, notations
from bnn_symm.data.preprocessing.column_types.text_columns import (
    infer_text_column,
    looks_like_dates,
    typed_values,
)
from bnn_symm.data.preprocessing.column_values import (
    all_integers,
    check_missing,
    column_values,
    is_missing,
    numbers,
)
from bnn_symm.data.preprocessing.columns import Column, is_placeholder, plain_texts
from bnn_symm.data.preprocessing.labels import sorted_labels
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

_ID_NAME = re.compile(
    r"(?i:id|index|idx|uuid|guid|row[ _.-]?(?:id|no|nr|num|number|index|names?)"
    r"|record[ _.-]?(?:no|nr|number)"
    r"|.*[ _.-]id|unnamed: \d+)|.*[a-z0-9](?:Id|ID)|rownames"
)
# Types of the objects of a column that is not of texts.
_SUPPORTED = {"str", "int", "float", "bool", "Decimal", "date", "datetime", "Timestamp", "time"}
# Integers that are stored as text are codes if they have at most this many distinct values.
_MAX_CODES = 20
# Numbers such as 1.250, and how many distinct ones of a column suggest thousands.
_GROUPED, _FEWEST_GROUPED = re.compile(r"-?[1-9]\d{0,2}(\.\d{3})+"), 3
# Of a column with more categories than the first number, those with fewer rows than the second are
# one category.
_MANY_CATEGORIES, _RARE_ROWS = 20, 5


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


@dataclass(frozen=True, kw_only=True, eq=False)
class InferredTarget:
    """A target with its inferred type.

    Args:
        values: int64, float64, bool or objects.
        notation: how its numbers are written; None for the plain notation.
        notes: sentences about what was decided.
    """

    values: np.ndarray
    notation: NumberNotation | None = None
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
    present = _rows(series, ~missing)
    if not is_text:
        refuse_types(series, what)
        form = _form_of_objects(present)
        if form is not None:
            return _of_dates(series, name, form, bool(missing.any()))
    texts = [str(value).strip() for value in present.tolist()] if is_text else _texts(present)
    if texts is None:
        return _of_values(series, name, missing)
    return _of_texts(series, name, texts, missing, config, is_text=is_text)


def infer_target(
    series: "pandas.Series", config: DataConfig | None = None, *, is_text: bool
) -> InferredTarget:
    """Infer the type of a target, and return its values in that type.

    Args:
        series: column without missing values.
        config: the declared decimal mark.
        is_text: whether it comes from a text file.

    Raises:
        InvalidData: if values are missing, dates, ambiguous numbers, or of other types.
    """
    config = config or DataConfig()
    what = f"target {quoted(str(series.name))}"
    check_missing(series, what=what)
    if is_text:
        texts = series.tolist()
        notation = _notation(what, [text.strip() for text in texts], config)
        if notation is not None:
            plain = plain_texts(series, notation, what).tolist()
            note = f"{what}: numbers with {notation.describe()} ({texts[0].strip()!r} in row 1)"
            return InferredTarget(
                values=typed_values("number", plain), notation=notation, notes=(note,)
            )
        decision = infer_text_column(what, texts, is_target=True)
        return InferredTarget(values=typed_values(decision.kind, texts), notes=decision.notes)
    refuse_types(series, what)
    if _form_of_objects(series) is not None:
        raise InvalidData(
            f"{what} contains dates or times, which are no targets; choose another target, or "
            "convert it to numbers"
        )
    values = column_values(series)
    if any(isinstance(value, Decimal) for value in values.tolist()):
        values = numbers(values, what)
    if values.dtype.kind in "biuf" or all_integers(values):
        return InferredTarget(values=values)
    if not all(isinstance(value, str) for value in values.tolist()):
        return InferredTarget(values=values)  # the categories of a categorical type
    decision = infer_text_column(what, values.tolist(), is_target=True)
    if decision.kind == "number":
        _check_codes(what, values.tolist())
    stripped = np.array([value.strip() for value in values.tolist()], dtype=object)
    return InferredTarget(values=stripped, notes=decision.notes)


def refuse_types(series: "pandas.Series", what: str) -> None:
    """Raise an error for values other than numbers, text, and dates.

    Args:
        series: column.
        what: description of the column for messages.

    Raises:
        InvalidData: naming the type.
    """
    from pandas.api import types

    dtype = series.dtype
    if types.is_timedelta64_dtype(dtype) or types.is_complex_dtype(dtype):
        kind = "complex numbers" if types.is_complex_dtype(dtype) else "durations"
        raise InvalidData(
            f"{what} contains {kind}, which are not supported as features; drop it or convert it"
        )
    if _is_date_type(series):
        return
    if not types.is_numeric_dtype(dtype) or str(dtype) == "category":
        kinds = {
            type(value).__name__ for value in column_values(_rows(series, ~is_missing(series)))
        }
        if not kinds <= _SUPPORTED:
            raise InvalidData(
                f"{what} contains values of type {short_list(sorted(kinds), 3)}, expected numbers "
                "or text; drop it or convert it"
            )


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
    notation = _notation(what, real, config)
    is_plain = are_numbers(real)
    if notation is not None or (is_plain and (is_text or len(real) < len(texts))):
        return _of_numbers(series, name, real, notation, has_missing)
    found = _date_format(what, real, name)
    if found is not None:
        return _of_dates(series, name, found, has_missing)
    if _is_identifier(name) and len(set(texts)) == len(texts) > 1:
        return _left_out(series, f"{what} has the name of an identifier and is left out")
    decision = infer_text_column(what, texts)
    if decision.kind == "number":
        _check_codes(what, texts)
        decision = replace(decision, kind="category")
    if decision.kind == "boolean":
        column = Column(name=name, kind="boolean", has_missing=bool(missing.any()))
    else:
        column, notes = _categories(name, texts, has_missing=bool(missing.any()))
        decision = replace(decision, notes=(*decision.notes, *notes))
    has_gaps = bool(missing.any())
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
        notes=tuple(_counter_notes(what, values)),
    )


def _of_values(series: "pandas.Series", name: str, missing: np.ndarray) -> InferredColumn:
    """Infer the type of a column of numbers, booleans or a categorical type."""
    what, has_missing = f"column {quoted(name)}", bool(missing.any())
    values = column_values(_rows(series, ~missing))
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
        column, _ = _categories(name, values.tolist(), has_missing=has_missing)
    return InferredColumn(
        column=column,
        values=_with_gaps(series, missing) if has_missing else values,
        notes=tuple(_missing_notes(column, missing)),
    )


def _of_dates(series: "pandas.Series", name: str, form: str, has_missing: bool) -> InferredColumn:
    what = f"column {quoted(name)}"
    column = Column(
        name=name, kind="date", date_format=form, has_time=True, has_missing=has_missing
    )
    missing = column.missing(series) if has_missing else np.zeros(len(series), dtype=bool)
    moments = dates.moments_of(_rows(series, ~missing), form)
    if None in moments:
        column.encode(series)  # raises an error that names the first other value
    if dates.has_day(form):
        has_time = any(moment and moment.time() != dates.EPOCH.time() for moment in moments)
        column = replace(column, has_time=has_time)
    shown = "ISO dates" if form == dates.ISO else f"dates or times of the form {form}"
    note = f"{what}: {shown}, read as {len(column.value_names)} features"
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
    present = _rows(series, ~missing)
    texts = [str(value).strip() for value in present.tolist()]
    if kind == "text":
        return InferredColumn(
            column=Column(name=name, kind="text"), values=_with_gaps(series, missing)
        )
    if kind == "date" or "%" in kind:
        if kind != "date" or _is_date_type(series):
            return _of_dates(series, name, dates.ISO if kind == "date" else kind, has_missing)
        real = [text for text in texts if not is_placeholder(text)]
        form = _date_format(what, real, name, is_declared=True)
        return _of_dates(series, name, form or dates.ISO, len(real) < len(series))
    if kind == "category":
        is_text = all(isinstance(value, str) for value in present.tolist())
        values = texts if is_text else column_values(present).tolist()
        column, notes = _categories(name, values, has_missing=has_missing)
        return InferredColumn(column=column, values=_with_gaps(series, missing), notes=notes)
    real = [text for text in texts if not is_placeholder(text)]
    notation = None if kind == "boolean" else _notation(what, real, config)
    column = Column(
        name=name,
        kind="boolean" if kind == "boolean" else "number",
        notation=notation,
        has_missing=len(real) < len(series) and config.missing != "error",
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


def _notation(what: str, texts: Sequence[str], config: DataConfig) -> NumberNotation | None:
    """Return the notation of a column of numbers, or None if it is plain or has other values.

    Raises:
        InvalidData: if the texts are numbers in two notations with different meanings.
    """
    distinct = list(dict.fromkeys(texts))
    is_plain = are_numbers(distinct)
    if is_plain and config.decimal == "auto" and (grouped := _grouped(distinct)):
        raise InvalidData(
            f"{what}: {grouped[0]!r} in row {texts.index(grouped[0]) + 1}, among numbers without a "
            "point, may have a decimal point or a point between thousands; declare "
            "data.decimal=comma or data.decimal=point"
        )
    if not distinct or (is_plain and not (config.decimal == "comma" and "." in "".join(distinct))):
        return None
    found = notations(distinct, config.decimal)
    if len(found) > 1:
        settings = " or ".join(f"data.decimal={word}" for word in ("comma", "point"))
        raise InvalidData(
            f"{what}: {distinct[0]!r} in row {texts.index(distinct[0]) + 1} may have a decimal "
            f"comma or a comma between thousands; declare {settings}"
        )
    return found[0] if found else None


def _grouped(numbers: Sequence[str]) -> list[str]:
    """Return the numbers with a point if it may separate thousands in all of them, as in 1.250.

    Numbers with three decimals each are not beside numbers without a point.
    """
    pointed = [text for text in numbers if "." in text]
    is_mixed = _FEWEST_GROUPED <= len(pointed) < len(numbers)
    return pointed if is_mixed and all(map(_GROUPED.fullmatch, pointed)) else []


def _date_format(
    what: str, texts: Sequence[str], name: str, *, is_declared: bool = False
) -> str | None:
    """Return the format of a column of dates, or None if it has other values.

    Raises:
        InvalidData: if the texts are dates in two formats with different meanings.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct or not (is_declared or looks_like_dates(distinct)):
        return None
    found = dates.formats(distinct)
    if len(found) > 1:
        choices = " or ".join(found[:2])
        raise InvalidData(
            f"{what}: {distinct[0]!r} may be a date of the form {choices}; declare it with "
            f"data.types={{{name}: '{found[0]}'}}"
        )
    return found[0] if found else None


def _rows(series: "pandas.Series", chosen: np.ndarray) -> Any:
    """Return some rows of a column, whose type the stubs of pandas do not know."""
    return series[chosen]


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


def _is_date_type(series: "pandas.Series") -> bool:
    from pandas.api import types

    return types.is_datetime64_any_dtype(series.dtype)


def _form_of_objects(series: "pandas.Series") -> str | None:
    """Return the format of dates or times that are objects, or None for other values."""
    if _is_date_type(series) or all(isinstance(value, date) for value in series.tolist()):
        return dates.ISO
    is_time = all(isinstance(value, time) for value in series.tolist())
    return "%H:%M:%S" if is_time else None


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
