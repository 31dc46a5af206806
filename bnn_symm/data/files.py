"""Data of the user's own: CSV, Parquet and NPZ files."""

import csv
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bnn_symm.data.columns import column_values, short_list, table_column
from bnn_symm.data.config import DataConfig
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData, nearest

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".parquet", ".npz")
# A last column of one of these names is the target unless another is asked for.
_TARGET_NAMES = ("target", "label", "class", "y")


def is_file_name(name: str) -> bool:
    """Whether a name is meant as a file: a known suffix, a folder in it, or a file that is there."""
    path = Path(name)
    return path.suffix.lower() in SUFFIXES or "/" in name or "\\" in name or path.exists()


def load_file(config: DataConfig) -> RawData:
    """The file `config.name`, its target apart from its features.

    Raises:
        DatasetNotFound: if there is no such file.
        ConfigError: for an unknown suffix, or if no target is named and none can be told.
        InvalidData: if the file is damaged, empty, or without the target.
    """
    path = checked_path(config.name)
    if path.suffix.lower() == ".npz":
        target = config.target or "y"
        x, y = read_npz(path, target)
        if y is None:
            raise _missing_array(path, target, _npz_names(path))
        return RawData(x=x, y=y, target=target, source=path.name, licence=_LICENCE)
    frame = read_table(path)
    target = _target_column(frame, config.target, path)
    features = frame.drop(columns=target)
    if features.shape[1] == 0:
        raise InvalidData(f"{path} has no column but the target {target!r}, wanted at least one feature column")
    y = column_values(table_column(frame, target))
    if str(frame[target].dtype).startswith(("datetime", "timedelta")):
        raise InvalidData(f"target {target!r} holds dates or times, wanted numbers or labels; convert the column")
    return RawData(x=features, y=y, target=target, source=path.name, licence=_LICENCE)


_LICENCE = "not known (a file of the user's)"


def read_points(name: str, target: str) -> tuple["pandas.DataFrame | np.ndarray", np.ndarray | None]:
    """All rows of a file: its inputs, and the target (None if the file has none of that name)."""
    path = checked_path(name)
    if path.suffix.lower() == ".npz":
        return read_npz(path, target)
    frame = read_table(path)
    return frame, column_values(table_column(frame, target)) if target in frame.columns else None


def checked_path(name: str) -> Path:
    """The path of a data file.

    Raises:
        ConfigError: if its suffix is not a known one.
        DatasetNotFound: if it does not exist.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"got the file {name!r}, wanted one that ends in {', '.join(SUFFIXES)}; convert the file")
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "does not exist"
        hint = "wanted a file"
        if path.parent.is_dir():
            others = [file.name for file in sorted(path.parent.iterdir()) if file.suffix.lower() in SUFFIXES]
            hint = nearest(path.name, others[:20]) if others else "there is no data file in its folder"
        raise DatasetNotFound(f"the file {name!r} {why}; {hint}")
    return path


def read_table(path: Path) -> "pandas.DataFrame":
    """A CSV or Parquet file as a table with distinct text column names and at least one row.

    A CSV is separated by commas, or by semicolons or tabs if its first line has those and no comma.

    Raises:
        InvalidData: if the file is empty, damaged, or has duplicate columns or no rows.
    """
    frame = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    frame.columns = frame.columns.map(str)
    if frame.columns.has_duplicates:
        duplicates = list(dict.fromkeys(frame.columns[frame.columns.duplicated()]))
        raise InvalidData(f"{path} has duplicate columns: {short_list(duplicates)}; rename or drop them")
    if len(frame) == 0:
        raise InvalidData(f"{path} has columns but no rows, wanted at least one; check the file")
    return frame.reset_index(drop=True)


def read_npz(path: Path, target: str = "y") -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays `x`, as (point, feature) or (point, channel, height, width), and the target if it is there.

    Raises:
        InvalidData: if the file is damaged, holds objects, has no `x`, or the arrays do not fit each other.
    """
    names = _npz_names(path)
    if "x" not in names:
        raise _missing_array(path, "x", names)
    key = target if target in names else "y"
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file["x"], file[key] if key in names else None
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise _damaged(path, error) from error
        raise InvalidData(
            f"{path} holds Python objects (a pickle), which are never loaded; save x and y as arrays of numbers"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    x = _with_feature_axes(x, path)
    if y is None:
        return x, None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),):
        raise InvalidData(f"{path}: got {key} of shape {y.shape}, wanted ({len(x)},), one value for each row of x")
    return x, y


def _read_csv(path: Path) -> "pandas.DataFrame":
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
        if not first.strip():
            raise InvalidData(f"{path} is empty or starts with an empty line, wanted a line of column names")
        separator = "," if "," in first else ";" if ";" in first else "\t" if "\t" in first else ","
        names = next(csv.reader([first], delimiter=separator))
        _check_header(path, names)
        with warnings.catch_warnings():
            # pandas only warns when a row is longer than the header, and drops what is over.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path,
                sep=separator,
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,
                skipinitialspace=True,
            )
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8") from error
    except OSError as error:
        raise InvalidData(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read as CSV ({_one_line(error)}); correct the file") from error


def _check_header(path: Path, names: list[str]) -> None:
    named = [name.strip() for name in names if name.strip()]
    if duplicates := sorted({name for name in named if named.count(name) > 1}):
        raise InvalidData(f"{path} has duplicate columns: {short_list(duplicates)}; rename or drop them")
    try:
        values = [float(name) for name in named]
    except ValueError:
        return
    if values:
        raise InvalidData(f"{path} starts with numbers ({short_list(named, 3)}), wanted a first line of column names")


def _read_parquet(path: Path) -> "pandas.DataFrame":
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        if "uplicate" in str(error):
            raise InvalidData(f"{path} has duplicate columns ({_one_line(error)}); rename or drop them") from error
        raise InvalidData(f"{path} cannot be read as Parquet ({_one_line(error)}); write it again") from error


def _target_column(frame: "pandas.DataFrame", target: str | None, path: Path) -> str:
    names = list(frame.columns)
    if target is not None:
        if target not in names:
            raise InvalidData(f"{path} has no column {target!r}; {nearest(target, names)}")
        return target
    if names[-1].lower() in _TARGET_NAMES:
        return names[-1]
    raise ConfigError(
        f"which column of {path} is to be predicted? type --set data.target=COLUMN with one of: {short_list(names, 30)}"
    )


def _npz_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(path, error) from error


def _missing_array(path: Path, wanted: str, names: list[str]) -> InvalidData:
    return InvalidData(
        f"{path} has no array {wanted!r}, it has: {short_list(names) or 'nothing'}; "
        "write it with numpy.savez(FILE, x=..., y=...)"
    )


def _damaged(path: Path, error: Exception) -> InvalidData:
    return InvalidData(f"{path} cannot be read as NPZ ({_one_line(error)}); write it again with numpy.savez")


def _with_feature_axes(x: np.ndarray, path: Path) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise InvalidData(f"{path}: got x of type {x.dtype}, wanted numbers; convert x to float32")
    if x.size == 0:
        raise InvalidData(f"{path}: got x of shape {x.shape}, which is empty; wanted at least one row")
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise InvalidData(
            f"{path}: got x of shape {x.shape}, which looks like channels last; wanted "
            "(point, channel, height, width): write x.transpose(0, 3, 1, 2)"
        )
    if x.ndim == 1:
        return x[:, None]
    if x.ndim == 3:
        return x[:, None]
    if x.ndim not in (2, 4):
        raise InvalidData(
            f"{path}: got x of shape {x.shape}, wanted (point, feature) or (point, channel, height, width); reshape x"
        )
    return x


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
