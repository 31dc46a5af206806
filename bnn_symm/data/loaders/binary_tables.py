"""Tables in Parquet, Feather and Excel files, read within the available memory."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_symm.data.preprocessing.quoting import short_list
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

if TYPE_CHECKING:
    import pandas

# Bytes of memory per byte of decompressed columns, and smallest number of bytes per value.
_EXPANSION, _MIN_BYTES = 2, 8
# Bytes of memory per byte of the file, which may be compressed.
_FEATHER_EXPANSION, _EXCEL_EXPANSION = 10, 100


def read_parquet(path: Path) -> "pandas.DataFrame":
    """Read a Parquet file as a table, after checking its size in the metadata.

    Args:
        path: path of the file.

    Raises:
        InvalidData: if the file is damaged or has duplicate columns.
        NotEnoughMemory: if the table is too large.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    with parser_errors(path, "write the Parquet file again", InvalidData):
        check_regular_file(path)
        metadata = pq.read_metadata(path)
        decompressed = sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
        cells = metadata.num_rows * metadata.num_columns
        check_memory(
            max(_EXPANSION * decompressed, _MIN_BYTES * cells),
            f"the table {shown(path)} of {metadata.num_rows} rows",
            "use fewer rows, or a machine with more memory",
        )
        names = pq.read_schema(path).names
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidData(
                f"{shown(path)} has duplicate columns: {short_list(duplicates)}; rename or drop "
                "them"
            )
        return pd.read_parquet(path)


def read_feather(path: Path) -> "pandas.DataFrame":
    """Read a Feather file as a table.

    Args:
        path: path of the file.

    Raises:
        InvalidData: if the file is damaged.
        NotEnoughMemory: if the table is too large.
    """
    import pandas as pd

    with parser_errors(path, "write the Feather file again", InvalidData):
        _check_size(path, _FEATHER_EXPANSION)
        return pd.read_feather(path)


def read_excel(path: Path) -> "pandas.DataFrame":
    """Read the first sheet of an Excel file as a table.

    Args:
        path: path of the file.

    Raises:
        ConfigError: if `openpyxl` is not installed.
        InvalidData: if the file is damaged.
        NotEnoughMemory: if the table is too large.
    """
    import pandas as pd

    if find_spec("openpyxl") is None:
        raise ConfigError(
            f"{shown(path)} needs a reader of Excel files; run 'pip install \"bnn_symm[excel]\"', "
            "or save it as CSV in UTF-8"
        )
    with parser_errors(path, "save the Excel file again, or as CSV in UTF-8", InvalidData):
        _check_size(path, _EXCEL_EXPANSION)
        frame = pd.read_excel(path, engine="openpyxl", keep_default_na=False, na_values=[""])
        # Rows and columns without values are left-overs of the sheet.
        frame = frame.dropna(how="all")
        unnamed = frame.columns.astype(str).str.startswith("Unnamed: ") & frame.isna().all()
        return frame.loc[:, ~unnamed.to_numpy()].infer_objects()


def _check_size(path: Path, expansion: int) -> None:
    what = f"the table {shown(path)}"
    check_memory(
        expansion * check_regular_file(path), what, "use fewer rows, or a machine with more memory"
    )
