"""Columns and arrays by which points are split: groups and times."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.data.loaders.npz import missing_array_error, npz_names, read_npz_arrays
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.inference import infer_column
from bnn_symm.data.preprocessing.column_values import check_missing, numbers
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas


def splitting_arrays(
    path: Path, config: DataConfig, num_points: int
) -> dict[Literal["groups", "times"], np.ndarray]:
    """Return the groups and the times that arrays of an NPZ file define.

    Args:
        path: path of the file.
        config: names of the arrays.
        num_points: number of points in the file.

    Raises:
        InvalidData: if there is no such array, or its values are no groups or times.
    """
    names = {key: name for key in ("group", "time") if (name := getattr(config, key)) is not None}
    arrays = read_npz_arrays(path, names.values())
    for name in names.values():
        if name not in arrays:
            raise missing_array_error(path, name, npz_names(path))
    given = {key: arrays[name] for key, name in names.items()}
    return splitting_values(given, config, num_points)


def splitting_values(
    given: dict[Any, Any], config: DataConfig, num_points: int, *, is_text: bool = False
) -> dict[Literal["groups", "times"], np.ndarray]:
    """Return the groups and the times that columns or arrays define.

    Args:
        given: values (point,) of the settings `group` and `time`.
        config: names of the columns, and their declared types.
        num_points: number of points.
        is_text: whether the values are texts of a text file.

    Raises:
        InvalidData: if a value is missing, there are too few or too many, or they are no times.
    """
    import pandas as pd

    result: dict[Literal["groups", "times"], np.ndarray] = {}
    for setting, values in given.items():
        name = getattr(config, setting)
        shape = np.shape(values)
        if shape != (num_points,):
            raise InvalidData(
                f"{setting} {quoted(name)}: got shape {shape}, expected ({num_points},), one value "
                "for each point"
            )
        series = pd.Series(values, name=name).reset_index(drop=True)
        if setting == "group":
            check_missing(series, what=f"group {quoted(name)}")
            texts = series.astype(object).map(lambda value: str(value).strip())
            result["groups"] = pd.factorize(texts)[0]
        else:
            result["times"] = _times(series, config, is_text=is_text)
    return result


def _times(series: "pandas.Series", config: DataConfig, *, is_text: bool) -> np.ndarray:
    """Return a column of numbers, dates or times as float64 or `datetime64` (point,)."""
    what = f"time {quoted(series.name)}"
    check_missing(series, what=what)
    strict = dataclasses.replace(config, missing="error")
    column = infer_column(series, strict, is_text=is_text).column
    if column is None:  # it counts rows, as an identifier does
        return numbers(series, what)
    if column.kind == "number":
        return column.encode(series)[:, 0]
    if column.kind == "date":
        moments = dates.moments_of(series, column.date_format)
        return np.array(moments, dtype="datetime64[us]")
    raise InvalidData(
        f"{what} is read as {column.kind} (first value {quoted(series.iloc[0])}), expected "
        f"numbers, dates or times; declare its format, such as data.types={{{series.name}: "
        "'%d.%m.%Y'}"
    )
