"""Tables in Parquet files, read within the available memory."""

from pathlib import Path
from typing import TYPE_CHECKING

from bnn_symm.data.preprocessing.quoting import short_list
from bnn_symm.errors import InvalidData
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

if TYPE_CHECKING:
    import pandas

# Bytes of memory per byte of decompressed columns, and smallest number of bytes per value.
_EXPANSION, _MIN_BYTES = 2, 8


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
