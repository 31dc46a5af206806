"""Values of a table column of any type: missing values and numbers."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.data.preprocessing.column_types.notation import (
    LARGEST_EXACT,
    describe_value,
    is_exact,
    parse_number,
    parse_numbers,
)
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas


def table_column(frame: Any, name: str) -> "pandas.Series":
    """Return one column of a table with distinct column names.

    Args:
        frame: table.
        name: name of the column.
    """
    return frame[name]


def check_names(frame: Any) -> None:
    """Raise an error if a table has several columns of one name.

    Args:
        frame: table.

    Raises:
        InvalidData: naming them.
    """
    names = [str(name) for name in frame.columns]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InvalidData(
            f"the table has duplicate columns: {short_list(repeated)}; rename or drop them"
        )


def check_missing(
    series: "pandas.Series",
    name: str = "",
    *,
    what: str | None = None,
    remedy: str = "fill in the values or drop the rows",
) -> None:
    """Raise an error if a column has missing values.

    NaN, null, and fields that are empty or blank are missing. A word such as `NA` is a value.

    Args:
        series: column; its rows count from 1, without the header.
        name: name of the column.
        what: description of the column for the message, instead of its name.
        remedy: what to do about missing values.

    Raises:
        InvalidData: naming the column, the first such row and their number.
    """
    missing = is_missing(series)
    if missing.any():
        raise InvalidData(
            f"{what or f'column {quoted(name)}'}: missing value in row "
            f"{int(np.argmax(missing)) + 1} ({int(missing.sum())} missing in total); {remedy}"
        )


def is_missing(values: Any) -> np.ndarray:
    """Return where values (point,) are NaN, null, or empty or blank texts.

    Args:
        values: series or array.
    """
    import pandas as pd

    missing = np.asarray(pd.isna(values), dtype=bool)
    array = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
    if array.dtype.kind in "OUST":
        blank = [isinstance(value, str) and not value.strip() for value in array.tolist()]
        missing = missing | np.array(blank, dtype=bool)
    return missing


def numbers(values: Any, what: str, *, booleans: bool = False) -> np.ndarray:
    """Return a column as finite float64 numbers (point,).

    Args:
        values: series or array without missing values.
        what: description of the column for the message.
        booleans: whether the words true and false are read as 1 and 0.

    Raises:
        InvalidData: naming the row of the first value that is not a finite number.
    """
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    if pd.api.types.is_complex_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(
        series.dtype
    ):
        raise InvalidData(
            f"{what}: got values of type {series.dtype}, expected numbers; convert the column"
        )
    plain = column_values(series)
    if plain.dtype.kind in "bf" or (
        plain.dtype.kind in "iu"
        and not len(plain[(plain > LARGEST_EXACT) | (plain < -LARGEST_EXACT)])
    ):
        result = plain.astype(np.float64)
    elif all(type(value) is str for value in plain) and not booleans:
        result = parse_numbers([value.strip() for value in plain])
    else:
        result = np.array(
            [_as_float(value, booleans) for value in plain.tolist()], dtype=np.float64
        )
    wrong = ~np.isfinite(result)
    if wrong.any():
        row = int(np.argmax(wrong))
        got = plain[row]
        is_nan = pd.api.types.is_scalar(got) and pd.isna(got)
        raise InvalidData(
            f"{what}, row {row + 1}: got {'NaN' if is_nan else quoted(got)}{describe_value(got)} "
            f"({int(wrong.sum())} such values in total), expected a finite number; correct them or "
            "drop the rows"
        )
    return result


def _as_float(value: Any, booleans: bool) -> float:
    """Return a value as float64, or NaN if float64 does not represent it."""
    if isinstance(value, str):
        text = value.strip()
        words = {"true": 1.0, "false": 0.0} if booleans else {}
        return words.get(text.lower(), parse_number(text))
    if isinstance(value, int):
        return float(value) if is_exact(value) else np.nan
    return float(value) if isinstance(value, float | Decimal) else np.nan


def column_values(series: "pandas.Series") -> np.ndarray:
    """Return the values of a column: numbers and booleans as NumPy types, others as objects.

    Args:
        series: column.
    """
    from pandas.api import types

    dtype = series.dtype
    plain = str(dtype) != "category" and (
        types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype)
    )
    if not plain or series.isna().any():
        return series.astype(object).to_numpy()
    if types.is_bool_dtype(dtype):
        return series.to_numpy(dtype=bool)
    if types.is_unsigned_integer_dtype(dtype) and (series > 2**63 - 1).any():
        return np.array([int(value) for value in series], dtype=object)  # int64 would wrap around
    if types.is_integer_dtype(dtype) or types.is_float_dtype(dtype):
        return series.to_numpy(dtype=np.int64 if types.is_integer_dtype(dtype) else np.float64)
    return series.astype(object).to_numpy()


def all_integers(values: np.ndarray) -> bool:
    """Return whether objects are integers, some of which do not fit into int64.

    Args:
        values: (point,), objects.
    """
    kinds = {type(value) for value in values.tolist()}
    return kinds == {int} and any(not -(2**63) <= value < 2**63 for value in values.tolist())
