"""Columns of typed files and of tables in memory, whose values may be objects of any type."""

from datetime import date, time
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_values import column_values, is_missing
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

# Integers that are stored as text are codes if they have at most this many distinct values.
_MAX_CODES = 20
# Types of the objects of a column that is not of texts.
_SUPPORTED = {"str", "int", "float", "bool", "Decimal", "date", "datetime", "Timestamp", "time"}


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
    if is_date_type(series):
        return
    if not types.is_numeric_dtype(dtype) or str(dtype) == "category":
        kinds = {
            type(value).__name__ for value in column_values(rows_of(series, ~is_missing(series)))
        }
        if not kinds <= _SUPPORTED:
            raise InvalidData(
                f"{what} contains values of type {short_list(sorted(kinds), 3)}, expected numbers "
                "or text; drop it or convert it"
            )


def form_of_objects(series: "pandas.Series") -> str | None:
    """Return the format of dates or times that are objects, or None for other values.

    Args:
        series: column without missing values.
    """
    if is_date_type(series) or all(isinstance(value, date) for value in series.tolist()):
        return dates.ISO
    is_time = all(isinstance(value, time) for value in series.tolist())
    return "%H:%M:%S" if is_time else None


def is_date_type(series: "pandas.Series") -> bool:
    """Return whether a column has a type of pandas for dates.

    Args:
        series: column.
    """
    from pandas.api import types

    return types.is_datetime64_any_dtype(series.dtype)


def check_codes(what: str, texts: list[str]) -> None:
    """Raise an error if the texts of a typed column are numbers instead of categories.

    Args:
        what: description of the column for messages.
        texts: texts without surrounding spaces.

    Raises:
        InvalidData: if they are.
    """
    distinct = set(texts)
    if len(distinct) > _MAX_CODES or any("." in text or "e" in text.lower() for text in distinct):
        raise InvalidData(
            f"{what} contains numbers that are stored as text ({quoted(texts[0])} in row 1); "
            "convert the column to numbers"
        )


def rows_of(series: "pandas.Series", chosen: np.ndarray) -> Any:
    """Return some rows of a column, whose type the stubs of pandas do not know.

    Args:
        series: column.
        chosen: (point,), where a row is chosen.
    """
    return series[chosen]
