"""Arrays in safetensors, npy and files of torch: declared sizes are checked before anything is
read.
"""

import pickle
import warnings
import zipfile
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bnn_symm.errors import BnnSymmError, InvalidRun, one_line
from bnn_symm.io.boundary import parser_errors, shown
from bnn_symm.io.memory import check_memory
from bnn_symm.io.paths import check_regular_file

if TYPE_CHECKING:
    from torch import Tensor

_ADVICE = "it is damaged or was not wholly copied; copy it again, or make it again"
_SPARE = "free memory, or use a machine with more"
# The header of an npy file names a type and a shape, in Python's syntax.
_NPY_HEADER = 10_000


class NpyLayout(NamedTuple):
    """Where the numbers of an npy file lie: rows of one type, from an offset to the end of the
    file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def read_arrays(path: Path, error: type[BnnSymmError] = InvalidRun) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, name -> array.

    Args:
        path: of a regular file.
        error: the class of the error.

    Raises:
        error: if it is no safetensors file, truncated, or has arrays of a type that numpy lacks.
        FileNotFoundError: if there is nothing at the path.
        NotEnoughMemory: if the arrays do not fit.
    """
    from safetensors.numpy import load_file

    _check_size(path, error)
    with parser_errors(path, _ADVICE, error):
        return load_file(path)


def read_tensors(path: Path, error: type[BnnSymmError] = InvalidRun) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file, name -> tensor on the CPU; errors as `read_arrays`.

    Args:
        path: of a regular file.
        error: the class of the error.
    """
    from safetensors.torch import load_file

    _check_size(path, error)
    with parser_errors(path, _ADVICE, error, "is no safetensors file"):
        return load_file(path)


def read_npy_layout(path: Path, error: type[BnnSymmError] = InvalidRun) -> NpyLayout:
    """Return the shape and type of an npy file, after checking that its size is what they declare.

    Args:
        path: of a regular file.
        error: the class of the error.

    Raises:
        error: if it is no npy file, holds objects, is in column order, or is shorter or longer than
            declared.
        FileNotFoundError: if there is nothing at the path.
    """
    size = check_regular_file(path, error)
    with parser_errors(path, _ADVICE, error), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in read:
            raise ValueError(f"npy version {version[0]}.{version[1]}, expected 1.0 or 2.0")
        shape, is_column_order, dtype = read[version](file, max_header_size=_NPY_HEADER)
        offset = file.tell()
    if dtype.hasobject or dtype.itemsize == 0:
        raise error(
            f"{shown(path)} has rows of type {one_line(dtype, 60)}, expected plain numbers; "
            f"{_ADVICE}"
        )
    if is_column_order or any(length < 0 for length in shape):
        raise error(
            f"{shown(path)} has shape {one_line(shape, 60)} in column order, expected row order; "
            f"{_ADVICE}"
        )
    declared = offset + prod(shape) * dtype.itemsize
    if declared != size:
        raise error(f"{shown(path)} declares {declared} bytes and has {size}; {_ADVICE}")
    return NpyLayout(tuple(shape), dtype, offset)


def read_torch_file(path: Path, error: type[BnnSymmError] = InvalidRun) -> Any:
    """Return what a file of `torch.save` holds, which may be tensors and plain containers alone.

    Args:
        path: of a regular file.
        error: the class of the error.

    Raises:
        error: if it is no such file, damaged, compressed, or holds more than tensors, which would
            run code when read.
        FileNotFoundError: if there is nothing at the path.
        NotEnoughMemory: if the tensors do not fit.
    """
    import torch

    _check_size(path, error)
    with (
        parser_errors(path, _ADVICE, error, "is no checkpoint of torch"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of pickles of other software, which are refused below
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch stores without compression: an archive that expands was made by someone
                # else.
                if any(member.file_size > member.compress_size for member in archive.infolist()):
                    raise ValueError("it is a compressed archive, which torch does not write")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise error(
                f"{shown(path)} holds more than tensors, and reading it could run code; save the "
                "network's state dict alone: safetensors.torch.save_file(net.state_dict(), FILE)"
            ) from None


def _check_size(path: Path, error: type[BnnSymmError]) -> None:
    """Refuse a file whose arrays do not fit into memory; safetensors holds them without
    compression.
    """
    check_memory(check_regular_file(path, error), shown(path), _SPARE)
