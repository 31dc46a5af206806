"""The values of a column of a table, whatever type it has: what is missing, what is a number."""

from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.data.preprocessing.notation import (
    LARGEST_EXACT,
    describe_value,
    is_exact,
    parse_number,
    parse_numbers,
)
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas


def table_column(frame: Any, name: str) -> "pandas.Series":
    """One column of a table whose column names are distinct."""
    return frame[name]


def check_missing(series: "pandas.Series", name: str = "", *, what: str | None = None) -> None:
    """Refuses a column with missing values; rows count from 1, the header not included.

    Missing is what has no value: NaN, null, or a field that is empty or blank. A word such as `NA`
        is a value.

    Args:
        series: the column.
        name: of the column.
        what: the words for it in a message, in place of its name.

    Raises:
        InvalidData: naming the column, the first such row and how many there are.
    """
    missing = is_missing(series)
    if missing.any():
        raise InvalidData(
            f"{what or f'column {quoted(name)}'}: empty or NaN in row "
            f"{int(np.argmax(missing)) + 1} ({int(missing.sum())} such values in all), wanted a "
            "value in every row; fill them in or drop the rows"
        )


def is_missing(values: Any) -> np.ndarray:
    """Return where values (point,) are NaN, null, or empty or blank texts."""
    import pandas as pd

    missing = np.asarray(pd.isna(values), dtype=bool)
    array = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
    if array.dtype.kind in "OUST":
        blank = [isinstance(value, str) and not value.strip() for value in array.tolist()]
        missing = missing | np.array(blank, dtype=bool)
    return missing


def numbers(values: Any, what: str, *, booleans: bool = False) -> np.ndarray:
    """A column as finite float64 numbers (point,).

    Args:
        values: a series or an array without missing values.
        what: the words for it in a message.
        booleans: read the words true and false as 1 and 0.

    Raises:
        InvalidData: naming the row of the first value that is not a finite number.
    """
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    if pd.api.types.is_complex_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(
        series.dtype
    ):
        raise InvalidData(
            f"{what}: got values of type {series.dtype}, wanted numbers; convert the column"
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
            f"({int(wrong.sum())} such values in all), wanted a finite number; correct them or "
            "drop the rows"
        )
    return result


def _as_float(value: Any, booleans: bool) -> float:
    """One value of any type as float64; NaN where it states no number or float64 does not hold
    it.
    """
    if isinstance(value, str):
        text = value.strip()
        words = {"true": 1.0, "false": 0.0} if booleans else {}
        return words.get(text.lower(), parse_number(text))
    if isinstance(value, int):
        return float(value) if is_exact(value) else np.nan
    return value if isinstance(value, float) else np.nan


def column_values(series: "pandas.Series") -> np.ndarray:
    """The values of a column: numbers and booleans as numpy has them, anything else as objects."""
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
    """Whether objects are integers that int64 does not hold."""
    kinds = {type(value) for value in values.tolist()}
    return kinds == {int} and any(not -(2**63) <= value < 2**63 for value in values.tolist())
