"""Parquet tables of numbers, texts and booleans, with sizes checked before reading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

_ADVICE = "it is incomplete, or from other software; copy it again, or recreate it"
# Bytes per value as a Python object.
_BYTES_PER_VALUE = 64


def read_rows(path: Path, error: type[BnnSymmError] = InvalidRun) -> list[dict[str, Any]]:
    """Return the rows of a table, column name -> value, with None for missing values.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if it is no Parquet file, damaged, or has columns of other types (structs, decimals,
            times).
        FileNotFoundError: if the path does not exist.
        NotEnoughMemory: if the table does not fit into memory.
    """
    import pyarrow.parquet as pq

    check_regular_file(path, error)
    with parser_errors(path, _ADVICE, error, "is damaged"), pq.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow, error)
        metadata = file.metadata
        sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        values = metadata.num_rows * max(1, metadata.num_columns)
        check_memory(max(sum(sizes), _BYTES_PER_VALUE * values), shown(path), _ADVICE)
        table = file.read(use_threads=False)
        table.validate(full=True)
        return table.to_pylist()


def _check_columns(path: Path, schema: Any, error: type[BnnSymmError]) -> None:
    names = schema.names
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise error(f"{shown(path)} has two columns {one_line(duplicate, 60)!r}; {_ADVICE}")
    for column in schema:
        if not any(is_plain(column.type) for is_plain in _plain_types()):
            raise error(
                f"{shown(path)}: column {one_line(column.name, 60)!r} has type "
                f"{one_line(column.type, 60)}, expected numbers, texts or booleans; {_ADVICE}"
            )


def _plain_types() -> list[Callable[[Any], bool]]:
    from pyarrow import types

    def is_list(kind: Any) -> bool:
        return types.is_list(kind) and any(plain(kind.value_type) for plain in scalars)

    scalars: list[Callable[[Any], bool]] = [
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    ]
    return [*scalars, is_list]
