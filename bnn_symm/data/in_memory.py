"""Data sets from tables and arrays in memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bnn_symm.data.assemble import Built, assemble
from bnn_symm.data.config import DataConfig
from bnn_symm.data.layouts import check_no_layout, with_layout
from bnn_symm.data.loaders.graphs import raw_graph
from bnn_symm.data.loaders.npz import check_inputs, convert_target
from bnn_symm.data.loaders.split_columns import splitting_values
from bnn_symm.data.loaders.split_files import with_split_files
from bnn_symm.data.loaders.tables import raw_table
from bnn_symm.data.preprocessing.column_types.target import infer_target
from bnn_symm.data.preprocessing.column_values import check_names
from bnn_symm.data.preprocessing.point_columns import (
    PointColumn,
    point_values,
    split_columns,
    target_values,
)
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, InvalidData

_LICENCE = "not known (data in memory)"


def as_pandas(table: Any) -> Any:
    """Return a table of pandas, or of a library that converts to it, such as polars.

    Args:
        table: the table.

    Raises:
        ConfigError: if it is no table.
        InvalidData: if it has no rows, or two columns of one name.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame) and hasattr(table, "to_pandas"):
        table = table.to_pandas()
    if not isinstance(table, pd.DataFrame):
        raise ConfigError(
            f"got {type(table).__name__}, expected a DataFrame of pandas or polars; for arrays use "
            "Dataset.from_arrays(x, y)"
        )
    table = table.rename(columns=str)
    check_names(table)
    if not len(table):
        raise InvalidData("the table has no rows, expected at least one")
    return table.reset_index(drop=True)


def frame_dataset(
    build: Callable[..., Built], frame: Any, config: DataConfig, dtype: torch.dtype
) -> Built:
    """Return the data set of a table.

    Args:
        build: the class of the data set.
        frame: table of pandas or polars with features and target.
        config: target, columns, their types, and the split; `name` is only shown.
        dtype: floating-point type of the features and of a numeric target.

    Raises:
        ConfigError: if it is no table, or the target is not given.
        InvalidData: as `load_dataset` does.
    """
    check_no_layout(config, "a table")
    raw = raw_table(as_pandas(frame), config, source=config.name)
    return assemble(build, with_split_files(raw, config), config, dtype)


def arrays_dataset(
    build: Callable[..., Built],
    x: Any,
    y: Any,
    config: DataConfig,
    dtype: torch.dtype,
    points: Mapping[str, Any],
    splitting: Mapping[str, Any],
    directory: Path | None = None,
) -> Built:
    """Return the data set of arrays.

    Args:
        build: the class of the data set.
        x: numbers with the axes of `config.layout`; see `layouts`.
        y: labels or numbers (point,).
        config: task and split; `name` is only shown.
        dtype: floating-point type of the features and of a numeric target.
        points: role, such as `weight` -> one number for each point, or None.
        splitting: `group` and `time` -> groups or times of the points, or None.
        directory: where the standardized features are stored; None for memory.

    Raises:
        ConfigError: if a setting is for tables.
        InvalidData: if shapes or types do not fit.
    """
    import pandas as pd

    for setting in ("drop", "features", "types"):
        if getattr(config, setting):
            raise ConfigError(f"{setting} is for tables; use Dataset.from_frame")
    x, y = _array(x), _array(y)
    check_inputs(x, "the data")
    x, notes = with_layout(x, config.layout, "the data")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim not in (1, 2) or len(y) != len(x) or not y.size:
        raise InvalidData(
            f"got x of {len(x)} points and y of shape {y.shape}, expected y of shape ({len(x)},), "
            f"or ({len(x)}, column) for several targets"
        )
    targets: tuple[PointColumn, ...] = ()
    if y.ndim == 2:
        columns = _named_columns(config, y)
        targets = tuple(PointColumn(role="target", name=name) for name in columns)
        y = target_values(targets, columns)
    else:
        y = convert_target(y)
    if y.dtype == object:
        y = infer_target(pd.Series(y, name="y"), is_text=False).values
    given = {role: _array(values) for role, values in points.items() if values is not None}
    for role, values in given.items():
        if values.shape != (len(x),):
            raise InvalidData(
                f"got {role} of shape {values.shape}, expected ({len(x)},), one for each point"
            )
    columns = tuple(PointColumn(role=role, name=role) for role in given)
    by = {key: _array(values) for key, values in splitting.items() if values is not None}
    config = replace(config, **{key: key for key in (*given, *by)})
    rules = splitting_values(by, config, len(y))
    raw = RawData(
        x=x,
        y=y,
        target=", ".join(column.name for column in targets) or str(config.target or "y"),
        target_columns=targets,
        source=config.name,
        licence=_LICENCE,
        point_columns=columns,
        point_values=point_values(columns, given),
        groups=rules.get("groups"),
        times=rules.get("times"),
        notes=notes,
    )
    return assemble(build, with_split_files(raw, config), config, dtype, directory)


def graph_dataset(
    build: Callable[..., Built],
    arrays: Mapping[str, Any],
    config: DataConfig,
    dtype: torch.dtype,
) -> Built:
    """Return the data set whose points are the nodes of a graph.

    Args:
        build: the class of the data set.
        arrays: `x`, `y`, `edges`, and `train`, `validation` and `test`, or None; see
            `loaders.graphs`.
        config: task and split; `name` is only shown.
        dtype: floating-point type of the features and of a numeric target.

    Raises:
        ConfigError: if a setting is for tables.
        InvalidData: if shapes, types or values do not fit.
    """
    given = {name: _array(values) for name, values in arrays.items() if values is not None}
    for name, values in given.items():
        if values.dtype.kind not in "buifU":
            raise InvalidData(
                f"got {name} of type {values.dtype}, expected numbers, or text labels"
            )
    raw = replace(raw_graph(given, config, "the graph"), source=config.name, licence=_LICENCE)
    return assemble(build, raw, config, dtype)


def _named_columns(config: DataConfig, y: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of several targets by name."""
    columns = split_columns("y" if config.target is None else str(config.target), y)
    if not isinstance(config.target, tuple):
        return columns
    if len(config.target) != len(columns):
        raise ConfigError(
            f"target names {len(config.target)} columns, but y has {len(columns)}; name all of them"
        )
    return dict(zip(config.target, columns.values(), strict=True))


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
