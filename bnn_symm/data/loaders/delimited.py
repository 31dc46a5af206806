"""Delimited text files (CSV and similar), read as tables of strings.

Types of the columns are inferred later, in `bnn_symm.data.preprocessing.column_types.text_columns`.
"""

import csv
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bnn_symm.data.preprocessing.column_types.notation import (
    NOT_FINITE,
    NUMBER,
    form_of,
    is_integer,
)
from bnn_symm.data.preprocessing.quoting import short_list
from bnn_symm.errors import InvalidData
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

if TYPE_CHECKING:
    import pandas

_SEPARATORS = (",", ";", "\t", "|")
# Bytes of memory per byte of the file, because each cell becomes an object.
_EXPANSION = 12
# Bytes that are decompressed at once, and number of rows that determine the separator.
_CHUNK, _SAMPLE = 16_000_000, 20


def read_delimited(
    path: Path, *, check_names: bool = False, delimiter: str | None = None
) -> "pandas.DataFrame":
    """Read a text file as a table of strings with distinct column names.

    The separator is the one of comma, semicolon, tab and vertical bar with which the first rows
    have as many fields as the first line. Blank lines are skipped, and spaces around names are
    removed. An empty field is an empty string.

    Args:
        path: path of the file.
        check_names: whether a first line that resembles values is an error. It is not checked where
            the names are known, as for a stored run, so that the result does not depend on the
            rows.
        delimiter: character between fields; None finds it.

    Raises:
        InvalidData: if the file is empty, damaged, not UTF-8, without a header, or has duplicate
            columns.
        NotEnoughMemory: if the file is too large.
    """
    import pandas as pd

    with parser_errors(path, "correct the file", InvalidData):
        text = _decode(path)
        separator = delimiter or _separator(path, text)
        rows = _parse(text, separator)
        names = [name.strip() for name in next(rows)]
        body = []
        for number, row in enumerate(rows, start=1):
            if len(row) != len(names):
                raise InvalidData(
                    f"{shown(path)} cannot be read (row {number} has {len(row)} fields, the header "
                    f"has {len(names)}); correct the file, and quote values that contain "
                    f"{separator!r}"
                )
            body.append(row)
    columns = list(zip(*body, strict=True)) if body else [()] * len(names)
    if check_names:
        _refuse_values_as_names(path, names, columns)
    _refuse_duplicates(path, names)
    named = [name or f"Unnamed: {index}" for index, name in enumerate(names)]
    return pd.DataFrame(
        {name: pd.Series(column, dtype=object) for name, column in zip(named, columns, strict=True)}
    )


def _decode(path: Path) -> str:
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{shown(path)} is not UTF-8 text ({error.reason}); save it as CSV in UTF-8"
        ) from error
    if "\0" in text:
        raise InvalidData(f"{shown(path)} contains null characters; save it as CSV in UTF-8")
    if not text.partition("\n")[0].strip():
        raise InvalidData(
            f"{shown(path)} is empty or starts with an empty line, expected a header of column "
            "names; add it to the file"
        )
    return text


def _content(path: Path) -> bytes:
    what, advice = (
        f"the table {shown(path)}",
        "use fewer rows, or a machine with more memory",
    )
    check_memory(_EXPANSION * check_regular_file(path), what, advice)
    suffix = path.suffix.lower()
    if suffix not in (".gz", ".zip"):
        return path.read_bytes()
    parts: list[bytes] = []
    with gzip.open(path) if suffix == ".gz" else _only_member(path) as file:
        while part := file.read(_CHUNK):
            parts.append(part)
            check_memory(_EXPANSION * sum(map(len, parts)), what, advice)
    return b"".join(parts)


@contextmanager
def _only_member(path: Path) -> Iterator[IO[bytes]]:
    """Open the only file of a ZIP archive."""
    with zipfile.ZipFile(path) as archive:
        # Archives of macOS have hidden copies of each file.
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            raise InvalidData(
                f"{shown(path)} contains {len(names)} files, expected one table; unpack it"
            )
        with archive.open(names[0]) as file:
            yield file


def _parse(text: str, separator: str) -> Iterator[list[str]]:
    lines = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    return (row for row in lines if row and not (len(row) == 1 and not row[0].strip()))


def _separator(path: Path, text: str) -> str:
    """Return the separator that gives the most fields, equally many in each of the first rows."""
    best, most = "", 1
    for separator in _SEPARATORS:
        try:
            sample = list(islice(_parse(text, separator), _SAMPLE))
        except csv.Error:
            continue
        if sample and len(sample[0]) > most and all(len(row) == len(sample[0]) for row in sample):
            best, most = separator, len(sample[0])
    if best:
        return best
    first = text.partition("\n")[0]
    present = [separator for separator in _SEPARATORS if separator in first]
    if not present and len(first.split()) > 1 and len(text.splitlines()) > 1:
        second = text.splitlines()[1]
        if len(second.split()) == len(first.split()):
            raise InvalidData(
                f"{shown(path)} has columns separated by spaces, expected commas, semicolons or "
                "tabs; save it as CSV"
            )
    return present[0] if present else ","


def _refuse_values_as_names(path: Path, names: list[str], columns: Sequence[Sequence[str]]) -> None:
    named = [name for name in names if name]
    if named and all(form_of(name) in (NUMBER, NOT_FINITE) for name in named):
        raise InvalidData(
            f"{shown(path)} starts with numbers ({short_list(named, 3)}), expected a header of "
            "column names; add it"
        )
    if _is_row(names, columns):
        raise InvalidData(
            f"{shown(path)} starts with a row of values ({short_list(named, 4)}), expected a "
            "header of column names; add it"
        )


def _refuse_duplicates(path: Path, names: list[str]) -> None:
    if duplicates := sorted({name for name in names if name and names.count(name) > 1}):
        raise InvalidData(
            f"{shown(path)} has duplicate columns: {short_list(duplicates)}; rename or drop them"
        )


def _is_row(names: list[str], columns: Sequence[Sequence[str]]) -> bool:
    """Return whether the first line resembles the rows below it, so that a header is missing.

    It does if its numbers are above columns of numbers, or its words occur in their own columns.
    Ascending integers are accepted as names, such as years or the default names of pandas.
    """
    if not columns or not columns[0]:
        return False
    numbers = [index for index, name in enumerate(names) if name and _looks_numeric(name)]
    if any(not _mostly_numeric(columns[index]) for index in numbers):
        return False
    words = [index for index, name in enumerate(names) if name and index not in numbers]
    repeated = [index for index in words if names[index] in columns[index]]
    if not numbers:
        return len(words) > 1 and len(repeated) == len(words)
    if repeated:
        return True
    values = [names[index] for index in numbers]
    return not all(map(is_integer, values)) or any(
        float(a) >= float(b) for a, b in pairwise(values)
    )


def _looks_numeric(text: str) -> bool:
    form = form_of(text)
    return (
        form in (NUMBER, NOT_FINITE)
        or "comma" in form
        or "point" in form
        or "outside ASCII" in form
    )


def _mostly_numeric(texts: Sequence[str]) -> bool:
    sample = [text.strip() for text in texts[:200] if text.strip()]
    return bool(sample) and sum(map(_looks_numeric, sample)) > len(sample) / 2
