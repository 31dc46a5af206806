"""Arrays in NPZ files, which are ZIP archives of npy members.

The sizes of the members are checked before decompression.
"""

import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData, one_line
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory, num_bytes_of
from bnn_symm.io.paths import check_regular_file

_ENCRYPTED = 0x1
_ADVICE = "write it again with numpy.savez"


def read_npz(path: Path, target: str = "y") -> tuple[np.ndarray, np.ndarray | None]:
    """Return the array `x` of a file and its target.

    Args:
        path: path of the file.
        target: name of the array with the target; `y` is used if there is none of this name.

    Returns:
        x as stored, and the target (point,), or numbers (point, column), or None.

    Raises:
        InvalidData: if the file is damaged, contains objects, has no `x`, or the lengths differ.
        NotEnoughMemory: if an array is larger than the available memory.
    """
    with parser_errors(path, _ADVICE, InvalidData):
        check_regular_file(path)
        with zipfile.ZipFile(path) as archive:
            names = _names(archive, path)
            if "x" not in names:
                raise missing_array_error(path, "x", names)
            key = target if target in names else "y"
            x = _read(archive, "x", path)
            y = _read(archive, key, path) if key in names else None
    check_inputs(x, shown(path))
    if y is None:
        return x, None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),) and not (y.ndim == 2 and len(y) == len(x) and y.dtype.kind in "buif"):
        raise InvalidData(
            f"{shown(path)}: got {one_line(key, 40)} of shape {y.shape}, expected ({len(x)},), one "
            "value for each row of x"
        )
    return x, convert_target(y)


def read_npz_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return arrays of a file by name.

    Args:
        path: path of the file.
        only: names of the arrays to read, if the file has them; None for all arrays.

    Raises:
        InvalidData: if the file is damaged or contains objects.
        NotEnoughMemory: if an array is larger than the available memory.
    """
    with parser_errors(path, _ADVICE, InvalidData):
        check_regular_file(path)
        with zipfile.ZipFile(path) as archive:
            return {
                name: _read(archive, name, path)
                for name in _names(archive, path)
                if only is None or name in only
            }


def npz_names(path: Path) -> list[str]:
    """Return the names of the arrays of a file.

    Args:
        path: path of the file.
    """
    with parser_errors(path, _ADVICE, InvalidData), zipfile.ZipFile(path) as archive:
        return _names(archive, path)


def missing_array_error(path: Path, expected: str, names: list[str]) -> InvalidData:
    """Return the error about an array that a file does not have.

    Args:
        path: path of the file.
        expected: name of the missing array.
        names: names of the arrays in the file.
    """
    return InvalidData(
        f"{shown(path)} has no array {quoted(expected)}, it has: {short_list(names) or 'nothing'}; "
        "write it with numpy.savez(FILE, x=..., y=...)"
    )


def _names(archive: zipfile.ZipFile, path: Path) -> list[str]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise InvalidData(f"{shown(path)} has two arrays {quoted(duplicates[0])}; {_ADVICE}")
    return names


def _read(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    """Return a member, if it is a plain array of the size stated by the archive."""
    member = f"{name}.npy" if f"{name}.npy" in archive.namelist() else name
    info = archive.getinfo(member)
    if info.flag_bits & _ENCRYPTED:
        raise InvalidData(f"{shown(path)}: the array {quoted(name)} is encrypted; {_ADVICE}")
    with archive.open(info) as file:
        shape, dtype = _header(file)
        offset = file.tell()
    if dtype.hasobject:
        raise InvalidData(
            f"{shown(path)}: {quoted(name)} contains Python objects (a pickle), which are never "
            "loaded; save x and y as arrays of numbers"
        )
    if dtype.kind not in "buifU" or (dtype.kind == "f" and dtype.itemsize > 8):
        raise InvalidData(
            f"{shown(path)}: got {quoted(name)} of type {quoted(str(dtype))}, expected "
            f"numbers{'' if name == 'x' else ' or text labels'}; convert it to float64 or to text"
        )
    size = num_bytes_of(shape, dtype.itemsize)
    check_memory(2 * size, f"the array {quoted(name)} of {shown(path)}", "use fewer rows")
    if any(length < 0 for length in shape) or offset + size != info.file_size:
        raise InvalidData(
            f"{shown(path)} cannot be read ({quoted(name)} of shape {shape} needs {size} bytes, "
            f"got {info.file_size - offset}); {_ADVICE}"
        )
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype


def convert_target(y: np.ndarray) -> np.ndarray:
    """Return a target as an array of the type that matches its values.

    Types are bool, int64, float64, or object (texts, and integers that do not fit into int64).

    Args:
        y: (point,), numbers or texts.
    """
    if y.dtype.kind == "U":
        return np.array([text.strip() for text in y.tolist()], dtype=object)
    if y.dtype.kind == "u" and len(y) and y.max() > 2**63 - 1:
        return np.array(y.tolist(), dtype=object)
    return y


def check_inputs(x: np.ndarray, what: str) -> None:
    """Check that inputs are numbers, of one point at least.

    Args:
        x: (point, *axis), or (point,).
        what: description of the origin for messages.

    Raises:
        InvalidData: if they are no numbers, or empty.
    """
    if x.dtype.kind not in "buif":
        raise InvalidData(
            f"{what}: got x of type {x.dtype}, expected numbers; convert x to float32"
        )
    if x.size == 0:
        raise InvalidData(
            f"{what}: got x of shape {x.shape}, which is empty; expected at least one row"
        )
