"""HDF5 and NetCDF files, opened only if all their data are in the file itself.

HDF5 files can refer to other files by external links, external storage and virtual data sets. The
library follows these silently, and could return the bytes of any file as numbers. Each file is
therefore walked before use. It is an error unless all links are hard links, all data are stored in
the file with known layouts and filters, and the declared sizes are plausible for the size of the
file.
"""

import contextlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5z  # pyright: ignore[reportAttributeAccessIssue]

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.memory import check_memory, num_bytes_of
from bnn_symm.io.paths import check_regular_file

_MAGIC = b"\x89HDF\r\n\x1a\n"
_PROBLEM = "cannot be read as HDF5"
_ADVICE = "it is truncated, damaged, or from other software; copy it again, or recreate it"
_MEMORY_ADVICE = "thin the draws, or use a machine with more memory"
_MAX_OBJECTS = 100_000
_MAX_DEPTH = 32
_MAX_ATTRIBUTES = 1000
_MAX_ATTRIBUTE_BYTES = 2**24
# Largest compression ratio of deflate.
_MAX_COMPRESSION = 1100


def open_hdf5(
    path: Path, error: type[BnnSymmError] = InvalidRun, problem: str = _PROBLEM
) -> h5py.File:
    """Open an HDF5 file for reading, after checking that it does not refer to other files.

    Args:
        path: path of a regular file.
        error: class of the error to raise.
        problem: verb phrase that describes an invalid file.

    Returns:
        The open file.

    Raises:
        error: if it is no HDF5 file, damaged, or refers to other files.
        FileNotFoundError: if the path does not exist.
    """
    size = check_regular_file(path, error)
    with parser_errors(path, _ADVICE, error, problem):
        with path.open("rb") as start:
            if start.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it is no HDF5 file")
        file = h5py.File(path, "r")
        try:
            _check_plain(file, size)
        except BaseException:
            file.close()
            raise
    return file


@contextlib.contextmanager
def open_netcdf(
    path: Path, error: type[BnnSymmError] = InvalidRun, problem: str = _PROBLEM
) -> Iterator[h5netcdf.File]:
    """Open a NetCDF file for a `with` block, and convert parser exceptions within it.

    Args:
        path: path of a regular file.
        error: class of the error to raise.
        problem: verb phrase that describes an invalid file.

    Yields:
        The file, as h5netcdf reads it.

    Raises:
        error: as for `open_hdf5`, or if groups, dimensions or attributes are missing or of other
            types.
        FileNotFoundError: if the path does not exist.
    """
    with (
        open_hdf5(path, error, problem) as file,
        parser_errors(path, _ADVICE, error, problem),
        h5netcdf.File(file, "r") as netcdf,
    ):
        yield netcdf


def read_numbers(variable: Any, what: str) -> np.ndarray:
    """Return the values of a numeric variable in the byte order of this machine.

    Args:
        variable: variable of an open NetCDF file.
        what: description of the variable for messages.

    Raises:
        ValueError: if it is not numeric; `open_netcdf` converts this error.
        NotEnoughMemory: if it does not fit into memory.
    """
    if not is_numeric(variable):
        raise ValueError(
            f"{one_line(what, 60)} has type {one_line(variable.dtype, 40)}, expected numbers"
        )
    check_memory(
        num_bytes_of(variable.shape, variable.dtype.itemsize), one_line(what, 60), _MEMORY_ADVICE
    )
    values = np.asarray(variable[...])
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def is_numeric(variable: Any) -> bool:
    """Return whether a variable has booleans, integers or floats of at most 64 bits.

    Args:
        variable: variable of an open NetCDF file.
    """
    return (
        isinstance(variable.dtype, np.dtype)
        and variable.dtype.kind in "biuf"
        and variable.dtype.itemsize <= 8
    )


def text_attribute(attributes: Any, name: str, default: str | None = None) -> str:
    """Return an attribute that is a text.

    Args:
        attributes: attributes of a file or a group.
        name: name of the attribute.
        default: result if the attribute is missing; None makes that an error.

    Raises:
        ValueError: if the attribute is no text.
        KeyError: if it is missing without a default.
    """
    if name not in attributes and default is not None:
        return default
    value = attributes[name]
    value = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(value, str):
        raise ValueError(f"attribute {name} is {one_line(repr(value), 60)}, expected a text")
    return value


def integer_attribute(attributes: Any, name: str) -> int:
    """Return an attribute that is an integer, or a text that represents one.

    Args:
        attributes: attributes of a file or a group.
        name: name of the attribute.

    Raises:
        ValueError: if the attribute is no integer.
        KeyError: if it is missing.
    """
    value = attributes[name]
    single = np.asarray(value)
    if single.size == 1 and single.dtype.kind in "iu":
        return int(single.item())
    if isinstance(value, str | bytes) and len(value) <= 100:
        return int(value)
    raise ValueError(f"attribute {name} is {one_line(repr(value), 60)}, expected an integer")


def _check_plain(file: h5py.File, file_size: int) -> None:
    """Raise ValueError unless all content is plain data within the file."""
    pending = [(file["/"].id, "", 0)]
    seen = {_address(file["/"].id)}
    while pending:
        group, prefix, depth = pending.pop()
        _check_attributes(group, prefix or "/")
        for raw_name in group:
            name = f"{prefix}/{raw_name.decode('utf-8')}"
            if group.links.get_info(raw_name).type != h5l.TYPE_HARD:
                raise ValueError(f"{one_line(name, 60)} is a link, expected the data")
            item = h5o.open(group, raw_name)
            address = _address(item)
            if address in seen:
                raise ValueError(f"{one_line(name, 60)} is a duplicate link to another object")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS or depth > _MAX_DEPTH:
                raise ValueError(
                    f"it has more than {_MAX_OBJECTS} objects, or groups nested deeper than "
                    f"{_MAX_DEPTH}"
                )
            if isinstance(item, h5g.GroupID):
                pending.append((item, name, depth + 1))
            elif isinstance(item, h5d.DatasetID):
                _check_dataset(item, name, file_size)
                _check_attributes(item, name)
            else:
                raise ValueError(f"{one_line(name, 60)} is a data type, expected data")


def _address(item: Any) -> int:
    return h5o.get_info(item).addr


def _check_dataset(dataset: Any, name: str, file_size: int) -> None:
    """Raise ValueError for data in other files, or of a declared size that is implausible."""
    created, shown_name = dataset.get_create_plist(), one_line(name, 60)
    layout = created.get_layout()
    if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED) or created.get_external_count() > 0:
        raise ValueError(f"the data of {shown_name} are in other files")
    known = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
    filters = [created.get_filter(number)[0] for number in range(created.get_nfilters())]
    if not set(filters) <= known:
        raise ValueError(
            f"{shown_name} is compressed by filter {max(set(filters) - known)}, expected gzip or "
            "lzf"
        )
    declared = prod(dataset.shape or ()) * dataset.get_type().get_size()
    stored = dataset.get_storage_size()
    if layout == h5d.CHUNKED:
        chunk = prod(created.get_chunk()) * dataset.get_type().get_size()
        expanded = _MAX_COMPRESSION * stored if filters else stored
        impossible = declared > max(expanded, chunk if stored else 0)
    else:
        impossible = declared > stored
    # A dimension without values is a one-dimensional data set that was never written.
    if (impossible and not (stored == 0 and len(dataset.shape or ()) == 1)) or stored > file_size:
        raise ValueError(
            f"{shown_name} declares {declared} bytes, {stored} are stored in a file of "
            f"{file_size}: it is truncated"
        )


def _check_attributes(item: Any, name: str) -> None:
    number = h5a.get_num_attrs(item)
    if number > _MAX_ATTRIBUTES:
        raise ValueError(
            f"{one_line(name, 60)} has {number} attributes, expected at most {_MAX_ATTRIBUTES}"
        )
    for index in range(number):
        attribute = h5a.open(item, index=index)
        size = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
        if size > _MAX_ATTRIBUTE_BYTES:
            raise ValueError(
                f"an attribute of {one_line(name, 60)} has {size} bytes, expected at "
                f"most {_MAX_ATTRIBUTE_BYTES}"
            )
