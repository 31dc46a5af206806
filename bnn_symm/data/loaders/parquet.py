"""Tables in Parquet files."""

from pathlib import Path
from typing import TYPE_CHECKING

from bnn_symm.data.preprocessing.quoting import short_list
from bnn_symm.errors import InvalidData
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

if TYPE_CHECKING:
    import pandas

# Bytes of memory for a byte of unpacked columns, and the least bytes of one value.
_EXPANSION, _LEAST = 2, 8


def read_parquet(path: Path) -> "pandas.DataFrame":
    """Read a Parquet file as a table; its size is checked by its own statement before it is
    unpacked.

    Raises:
        InvalidData: if the file is damaged or has duplicate columns.
        NotEnoughMemory: if it is too large.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    with parser_errors(path, "write the Parquet file again", InvalidData):
        check_regular_file(path)
        metadata = pq.read_metadata(path)
        unpacked = sum(
            metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)
        )
        cells = metadata.num_rows * metadata.num_columns
        check_memory(
            max(_EXPANSION * unpacked, _LEAST * cells),
            f"the table {shown(path)} of {metadata.num_rows} rows",
            "use a part of its rows, or a machine with more memory",
        )
        names = pq.read_schema(path).names
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise InvalidData(
                f"{shown(path)} has duplicate columns: {short_list(duplicates)}; rename or drop "
                "them"
            )
        return pd.read_parquet(path)
