"""User data: tables in text, Parquet, Feather and Excel files, and arrays in NPZ files."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from bnn_symm.advice import advise, advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.loaders.binary_tables import read_excel, read_feather, read_parquet
from bnn_symm.data.loaders.delimited import read_delimited
from bnn_symm.data.loaders.npz import (
    missing_array_error,
    npz_names,
    read_npz,
    read_npz_arrays,
)
from bnn_symm.data.preprocessing.column_types.inference import InferredColumn, infer_column
from bnn_symm.data.preprocessing.column_types.target import infer_target
from bnn_symm.data.preprocessing.column_values import table_column
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.point_columns import (
    PointColumn,
    infer_point_column,
    point_column_names,
    point_values,
)
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.raw import RawData
from bnn_symm.errors import (
    ConfigError,
    DatasetNotFound,
    InvalidData,
    nearest,
    one_line,
    shell_words,
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
# A last column with one of these names is the default target.
_TARGET_NAMES = ("target", "label", "class", "y")
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
    import pandas as pd

    path = data_file_path(config.name)
    if _suffix(path.name) == ".npz":
        for setting in ("drop", "features", "types"):
            if getattr(config, setting):
                raise ConfigError(
                    f"data.{setting} is for tables, but {shown(path)} is none; remove it"
                )
        target = config.target or "y"
        x, y = read_npz(path, target)
        if y is None:
            raise missing_array_error(path, target, npz_names(path))
        named = pd.Series(y, name=target)
        found = infer_target(named, is_text=False) if y.dtype == object else None
        names = point_column_names(config)
        columns = tuple(PointColumn(role=role, name=name) for role, name in names.items())
        arrays = read_npz_arrays(path, names.values())
        for name in names.values():
            if name not in arrays:
                raise missing_array_error(path, name, npz_names(path))
            _check_length(path, name, arrays[name], len(x))
        return RawData(
            x=x,
            y=y if found is None else found.values,
            target=target,
            source=path.name,
            licence=_LICENCE,
            point_columns=columns,
            point_values=point_values(columns, arrays),
            notes=() if found is None else found.notes,
        )
    frame = read_table(path, check_names=True, delimiter=config.delimiter)
    is_text = _suffix(path.name) in TEXT_SUFFIXES
    return raw_table(frame, config, source=path.name, is_text=is_text)


def raw_table(
    frame: "pandas.DataFrame", config: DataConfig, *, source: str, is_text: bool = False
) -> RawData:
    """Return a table with its target separated, and the types of its columns inferred.

    Args:
        frame: table with distinct column names and at least one row.
        config: target, columns, their types, and the policy for missing values.
        source: name of its origin.
        is_text: whether all values are texts of a text file.

    Raises:
        ConfigError: if no target is given and none can be inferred.
        InvalidData: if there is no such target, no feature, or a column is ambiguous.
    """
    frame = chosen_columns(frame, config, source)
    target = _target_column(frame, config.target, source)
    if any(find_column(frame, name) == target for name in config.types):
        raise ConfigError(
            f"data.types declares the target {quoted(target)}; declare it with data.task instead"
        )
    point_columns = _point_columns(frame, target, config, source, is_text=is_text)
    features = frame.drop(columns=[target, *(column.name for column in point_columns)])
    if features.shape[1] == 0:
        raise InvalidData(
            f"{shown(source)} has only the target column {quoted(target)}, expected at least one "
            "feature column"
        )
    found = infer_target(table_column(frame, target), config, is_text=is_text)
    features, columns, notes = infer_features(features, config, source=source, is_text=is_text)
    return RawData(
        x=features,
        y=found.values,
        target=target,
        source=source,
        licence=_LICENCE,
        columns=columns,
        target_notation=found.notation,
        point_columns=point_columns,
        point_values=point_values(point_columns, frame),
        notes=[*found.notes, *notes],
    )


def infer_features(
    features: "pandas.DataFrame", config: DataConfig, *, source: str, is_text: bool = False
) -> tuple["pandas.DataFrame", tuple[Column, ...], list[str]]:
    """Infer the types of the columns of a table without its target.

    Args:
        features: table with distinct column names, at least one row and one column.
        config: declared types, and the policy for missing values.
        source: name of its origin.
        is_text: whether all values are texts of a text file.

    Returns:
        The columns that are features with their values, their types, and sentences about what was
        decided.

    Raises:
        InvalidData: if there is no feature, or a column is ambiguous.
    """
    import pandas as pd

    inferred = {
        name: _feature_column(features, name, config, is_text=is_text) for name in features.columns
    }
    columns = tuple(each.column for each in inferred.values() if each.column is not None)
    notes = [note for each in inferred.values() for note in each.notes]
    if not columns:
        raise InvalidData(
            f"{shown(source)} has no column that is a feature ({one_line(notes[-1], 150)}); "
            "declare one with data.types"
        )
    if is_text:
        kept = {name: _series(each.values) for name, each in inferred.items() if each.column}
        return pd.DataFrame(kept), columns, notes
    left_out = [name for name in inferred if not inferred[name].column]
    return features.drop(columns=left_out), columns, notes


def read_points(
    name: str,
    target: str,
    point_columns: tuple[PointColumn, ...] = (),
    *,
    delimiter: str | None = None,
) -> tuple["pandas.DataFrame | np.ndarray", np.ndarray | None, dict[str, np.ndarray]]:
    """Read the inputs of all rows of a file, the target, and columns that describe the points.

    Tables of text files stay strings, because a stored preprocessing parses them value by value.

    Args:
        name: path of the file.
        target: name of the target.
        point_columns: columns that describe points.
        delimiter: character between the fields of a text file; None finds it.

    Returns:
        Inputs, target, and role -> numbers; the target is None, and the role is left out, if the
        file does not have it.
    """
    path = data_file_path(name)
    if _suffix(path.name) == ".npz":
        x, y = read_npz(path, target)
        arrays = read_npz_arrays(path, [column.name for column in point_columns])
        for known, values in arrays.items():
            _check_length(path, known, values, len(x))
        return x, y, point_values(point_columns, arrays)
    frame = read_table(path, delimiter=delimiter)
    column = find_column(frame, target)
    y = None if column is None else table_column(frame, column).astype(object).to_numpy()
    return frame, y, point_values(point_columns, frame)


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


def find_column(frame: "pandas.DataFrame", name: str) -> str | None:
    """Return the name of a column, or None if there is none.

    Args:
        frame: table.
        name: name to find; spaces around it are removed if there is no exact match.
    """
    return next((known for known in (name, name.strip()) if known in frame.columns), None)


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


def chosen_columns(
    frame: "pandas.DataFrame", config: DataConfig, source: str
) -> "pandas.DataFrame":
    """Return a table without the columns to leave out.

    Args:
        frame: table with distinct column names.
        config: target, columns, and their types.
        source: name of its origin.

    Raises:
        ConfigError: if the target is left out.
        InvalidData: if a column does not exist.
    """
    for setting in ("drop", "features", "types"):
        for name in getattr(config, setting) or ():
            if find_column(frame, name) is None:
                raise InvalidData(
                    f"data.{setting}: {shown(source)} has no column {quoted(name)}; "
                    f"{nearest(name, _shown_names(list(frame.columns)))}"
                )
    target = None if config.target is None else find_column(frame, config.target)
    dropped = [find_column(frame, name) for name in config.drop]
    if target is not None and target in dropped:
        raise ConfigError(f"data.drop leaves out the target {quoted(target)}; remove it there")
    for role, name in point_column_names(config).items():
        if find_column(frame, name) in dropped:
            raise ConfigError(
                f"data.drop leaves out {quoted(name)}, the column of data.{role}, which is no "
                "feature anyway; remove it there"
            )
    if config.features is not None:
        kept = {find_column(frame, name) for name in config.features}
        kept |= {find_column(frame, name) for name in point_column_names(config).values()}
        target = _target_column(frame, config.target, source)
        dropped += [name for name in frame.columns if name not in kept and name != target]
    return frame.drop(columns=list(dict.fromkeys(dropped)))


def _point_columns(
    frame: "pandas.DataFrame", target: str, config: DataConfig, source: str, *, is_text: bool
) -> tuple[PointColumn, ...]:
    """Return the columns that describe points, with the notation of their numbers."""
    columns: dict[str, PointColumn] = {}
    for role, given in point_column_names(config).items():
        name = find_column(frame, given)
        if name is None:
            raise InvalidData(
                f"data.{role}: {shown(source)} has no column {quoted(given)}; "
                f"{nearest(given, _shown_names(list(frame.columns)))}"
            )
        if name == target or name in columns:
            other = "target" if name == target else columns[name].role
            raise ConfigError(
                f"data.{role} and data.{other} name one column, {quoted(name)}; change one of them"
            )
        if any(find_column(frame, declared) == name for declared in config.types):
            raise ConfigError(
                f"data.types declares {quoted(name)}, the column of data.{role}, which has numbers "
                "always; remove it there"
            )
        columns[name] = infer_point_column(
            role, name, table_column(frame, name), config, is_text=is_text
        )
    return tuple(columns.values())


def _feature_column(
    frame: "pandas.DataFrame", name: str, config: DataConfig, *, is_text: bool
) -> InferredColumn:
    """Infer the type of a feature column; an error names the setting that leaves it out."""
    try:
        return infer_column(table_column(frame, name), config, is_text=is_text)
    except InvalidData as error:
        names = [*config.drop, name]
        value = yaml.safe_dump(names, default_flow_style=True, allow_unicode=True, width=math.inf)
        listed = value.strip() if config.drop else value.strip()[1:-1]
        advice = advise(f"--set {shell_words(f'data.drop={listed}')}", f"drop={names!r}")
        raise InvalidData(f"{error}; {one_line(advice, 150)} leaves the column out") from None


def _target_column(frame: "pandas.DataFrame", target: str | None, source: str) -> str:
    names = list(frame.columns)
    if target is not None:
        name = find_column(frame, target)
        if name is None:
            raise InvalidData(
                f"{shown(source)} has no column {quoted(target)}; "
                f"{nearest(target, _shown_names(names))}"
            )
        return name
    if names[-1].lower() in _TARGET_NAMES:
        return names[-1]
    raise ConfigError(
        f"no target column of {shown(source)} is given; use "
        f"{advise_setting('data.target=COLUMN')} with one of: {short_list(names, 30)}"
    )


def _shown_names(names: Sequence[str]) -> list[str]:
    """Return names of columns for a hint, shortened to fit on one line."""
    return [one_line(name, 30) for name in names[:200]]


def _series(values: np.ndarray) -> "pandas.Series":
    import pandas as pd

    return pd.Series(values, dtype=object) if values.dtype == object else pd.Series(values)
