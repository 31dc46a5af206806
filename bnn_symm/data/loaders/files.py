"""User data: tables in text, Parquet, Feather and Excel files, and arrays in NPZ files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.data.layouts import check_no_layout, with_layout
from bnn_symm.data.loaders.binary_tables import read_excel, read_feather, read_parquet
from bnn_symm.data.loaders.delimited import read_delimited
from bnn_symm.data.loaders.graphs import is_graph_file, load_graph
from bnn_symm.data.loaders.npz import (
    missing_array_error,
    npz_names,
    read_npz,
    read_npz_arrays,
)
from bnn_symm.data.loaders.split_columns import splitting_arrays
from bnn_symm.data.loaders.tables import find_column, raw_table
from bnn_symm.data.preprocessing.column_types.target import infer_target
from bnn_symm.data.preprocessing.column_values import table_column
from bnn_symm.data.preprocessing.point_columns import (
    PointColumn,
    point_column_names,
    point_values,
    split_columns,
    target_values,
)
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.raw import RawData
from bnn_symm.errors import (
    ConfigError,
    DatasetNotFound,
    InvalidData,
    nearest,
    one_line,
)
from bnn_symm.io.boundary import shown
from bnn_symm.io.paths import check_regular_file, expand_user

if TYPE_CHECKING:
    import pandas

TEXT_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data", ".dat")
_BINARY_READERS = {".parquet": read_parquet, ".feather": read_feather, ".xlsx": read_excel}
SUFFIXES = (*TEXT_SUFFIXES, *_BINARY_READERS, ".npz")
FORMATS = (
    ".csv, .parquet, .npz (or .tsv, .tab, .txt, .data, .dat, .xlsx, .feather; text also with .gz "
    "or .zip)"
)
_LICENCE = "not known (a file of the user's)"


def is_file_name(name: str) -> bool:
    """Return whether a name refers to a file instead of a named data set.

    It does if it has a known suffix, contains a folder, or is the path of an existing file.

    Args:
        name: name or path.
    """
    if _suffix(name) in SUFFIXES or "/" in name or "\\" in name or "\0" in name:
        return True
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def is_table_name(name: str) -> bool:
    """Return whether a name is that of a file with a table, by its suffix.

    Args:
        name: name or path.
    """
    return _suffix(name) in SUFFIXES and _suffix(name) != ".npz"


def load_file(config: DataConfig) -> RawData:
    """Read the file `config.name`, separate its target, and infer the types of its columns.

    Args:
        config: path, and target unless the file defines it.

    Raises:
        DatasetNotFound: if the file does not exist.
        ConfigError: if the suffix is unknown, no target is given and none can be inferred, or the
            file has no columns to leave out.
        InvalidData: if the file is damaged, empty or without the target, or the type of a column is
            ambiguous.
    """
    path = data_file_path(config.name)
    if _suffix(path.name) == ".npz":
        if is_graph_file(path, config):
            return load_graph(path, config, _LICENCE)
        for setting in ("drop", "features", "types"):
            if getattr(config, setting):
                raise ConfigError(
                    f"data.{setting} is for tables, but {shown(path)} is none; remove it"
                )
        return _raw_arrays(path, config)
    check_no_layout(config, shown(path))
    frame = read_table(path, check_names=True, delimiter=config.delimiter)
    is_text = _suffix(path.name) in TEXT_SUFFIXES
    return raw_table(frame, config, source=path.name, is_text=is_text)


def _raw_arrays(path: Path, config: DataConfig) -> RawData:
    """Return the arrays of an NPZ file."""
    import pandas as pd

    target = config.target or "y"
    x, y = read_npz(path, target if isinstance(target, str) else "y")
    x, notes = with_layout(x, config.layout, shown(path))
    names = point_column_names(config)
    columns = tuple(PointColumn(role=role, name=name) for role, name in names.items())
    splitting = splitting_arrays(path, config, len(x))
    origin: dict[str, Any] = {
        "source": path.name,
        "licence": _LICENCE,
        "point_columns": columns,
        "point_values": point_values(columns, _read_columns(path, [*names.values()], x)),
        "groups": splitting.get("groups"),
        "times": splitting.get("times"),
        "notes": notes,
    }
    if isinstance(target, str) and y is None:
        raise missing_array_error(path, target, npz_names(path))
    if not isinstance(target, str):
        given = _read_columns(path, target, x)
    else:
        given = split_columns(target, np.asarray(y))
    if len(given) > 1:
        targets = tuple(PointColumn(role="target", name=name) for name in given)
        values = target_values(targets, given)
        return RawData(x=x, y=values, target=", ".join(given), target_columns=targets, **origin)
    name, values = next(iter(given.items()))
    if values.dtype == object:
        found = infer_target(pd.Series(values, name=name), is_text=False)
        values, origin["notes"] = found.values, (*notes, *found.notes)
    return RawData(x=x, y=values, target=name, **origin)


def _read_columns(path: Path, names: Sequence[str], x: np.ndarray) -> dict[str, np.ndarray]:
    """Return arrays of a file with one number for each point, all of which it has."""
    arrays = read_npz_arrays(path, names)
    for name in names:
        if name not in arrays:
            raise missing_array_error(path, name, npz_names(path))
        _check_length(path, name, arrays[name], len(x))
    return arrays


def not_its_graph(name: str) -> str:
    """Return the message for a graph in place of nodes.

    Args:
        name: of the graph.
    """
    return (
        f"{name} is a graph, but a network on a graph predicts for nodes of its own graph; give "
        "the numbers of nodes, in a table with a column node or as x"
    )


def read_points(
    name: str,
    target: str | tuple[PointColumn, ...],
    point_columns: tuple[PointColumn, ...] = (),
    *,
    delimiter: str | None = None,
    are_nodes: bool = False,
) -> tuple["pandas.DataFrame | np.ndarray", np.ndarray | None, dict[str, np.ndarray]]:
    """Read the inputs of all rows of a file, the target, and columns that describe the points.

    Tables of text files stay strings, because a stored preprocessing parses them value by value.

    Args:
        name: path of the file.
        target: name of the target, or several columns.
        point_columns: columns that describe points.
        delimiter: character between the fields of a text file; None finds it.
        are_nodes: whether the inputs are numbers of nodes of a graph.

    Returns:
        Inputs, target, and role -> numbers; the target is None, and the role is left out, if the
        file does not have it.
    """
    path = data_file_path(name)
    if _suffix(path.name) == ".npz":
        if are_nodes and "edges" in npz_names(path):
            raise InvalidData(not_its_graph(shown(path)))
        x, y = read_npz(path, target if isinstance(target, str) else "y")
        arrays = read_npz_arrays(path, [column.name for column in point_columns])
        for known, values in arrays.items():
            _check_length(path, known, values, len(x))
        if not isinstance(target, str):
            stored = read_npz_arrays(path, [column.name for column in target])
            stored |= {} if y is None else split_columns("y", y)
            y = _columns_of(target, stored)
        return x, y, point_values(point_columns, arrays)
    frame = read_table(path, delimiter=delimiter)
    if not isinstance(target, str):
        return frame, _columns_of(target, frame), point_values(point_columns, frame)
    column = find_column(frame, target)
    y = None if column is None else table_column(frame, column).astype(object).to_numpy()
    return frame, y, point_values(point_columns, frame)


def _columns_of(
    targets: tuple[PointColumn, ...], raw: "Mapping[str, np.ndarray] | pandas.DataFrame"
) -> np.ndarray | None:
    """Return several targets as they are written, or None if one of them is absent."""
    if any(column.name not in raw for column in targets):
        return None
    return np.stack([np.asarray(raw[column.name]) for column in targets], axis=1)


def _check_length(path: Path, name: str, values: np.ndarray, length: int) -> None:
    if values.shape != (length,):
        raise InvalidData(
            f"{shown(path)}: got {one_line(name, 40)} of shape {values.shape}, expected "
            f"({length},), one number for each row of x"
        )


def data_file_path(name: str) -> Path:
    """Return the path of a data file after checking that it can be read.

    Args:
        name: path as the user typed it.

    Raises:
        ConfigError: if the suffix is unknown.
        DatasetNotFound: if the file does not exist or is no regular file.
    """
    path = expand_user(name, ConfigError)
    if _suffix(path.name) not in SUFFIXES:
        raise ConfigError(
            f"got the file {quoted(name, 90)}, expected one that ends in {FORMATS}; convert the "
            "file"
        )
    try:
        if os.path.isdir(path):
            raise DatasetNotFound(
                f"{quoted(name, 90)} is a folder, expected a file; {_others(path / 'x')}"
            )
        check_regular_file(path, DatasetNotFound)
    except FileNotFoundError:
        problem = (
            "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        )
        raise DatasetNotFound(f"the file {quoted(name, 90)} {problem}; {_others(path)}") from None
    except PermissionError:
        raise DatasetNotFound(
            f"the file {quoted(name, 90)} cannot be accessed; check its permissions"
        ) from None
    except DatasetNotFound as error:
        raise DatasetNotFound(one_line(error)) from None
    return path


def read_table(
    path: Path, *, check_names: bool = False, delimiter: str | None = None
) -> "pandas.DataFrame":
    """Return a file as a table with distinct column names and at least one row.

    Args:
        path: path of the file.
        check_names: whether a text file whose first line resembles values is an error.
        delimiter: character between the fields of a text file; None finds it.

    Raises:
        InvalidData: if the file is empty or damaged, or has duplicate columns or no rows.
    """
    reader = _BINARY_READERS.get(_suffix(path.name))
    frame = (
        read_delimited(path, check_names=check_names, delimiter=delimiter)
        if reader is None
        else reader(path)
    )
    frame.columns = frame.columns.map(str)
    if frame.columns.has_duplicates:
        duplicates = list(dict.fromkeys(frame.columns[frame.columns.duplicated()]))
        raise InvalidData(
            f"{shown(path)} has duplicate columns: {short_list(duplicates)}; rename or drop them"
        )
    if len(frame) == 0:
        raise InvalidData(
            f"{shown(path)} has columns but no rows, expected at least one; check the file"
        )
    return frame.reset_index(drop=True)


def _suffix(name: str) -> str:
    """Return the suffix in lower case, without `.gz` or `.zip` for compressed text files."""
    path = Path(name.lower())
    if path.suffix in (".gz", ".zip") and Path(path.stem).suffix in TEXT_SUFFIXES:
        return Path(path.stem).suffix
    return path.suffix


def _others(path: Path) -> str:
    """Return a hint that names the data files in the folder of a path."""
    try:
        files = [file for file in path.parent.iterdir() if file.is_file()]
    except OSError:
        return "its folder does not exist or cannot be read"
    others = sorted(file.name for file in files if _suffix(file.name) in SUFFIXES)
    if not others:
        return "there is no data file in its folder"
    return nearest(path.name, [one_line(other, 40) for other in others[:5]])
