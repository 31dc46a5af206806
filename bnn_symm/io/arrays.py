"""Arrays in safetensors, npy and torch files, with declared sizes checked before reading."""

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

_ADVICE = "it is damaged or incomplete; copy it again, or recreate it"
_MEMORY_ADVICE = "free memory, or use a machine with more memory"
# Largest length of the header of an npy file, which states the type and the shape.
_NPY_HEADER = 10_000


class NpyLayout(NamedTuple):
    """Layout of the rows of an npy file, from an offset to the end of the file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def read_arrays(path: Path, error: type[BnnSymmError] = InvalidRun) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, name -> array.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if the file is truncated, no safetensors file, or has arrays of types that NumPy
            lacks.
        FileNotFoundError: if the path does not exist.
        NotEnoughMemory: if the arrays do not fit into memory.
    """
    from safetensors.numpy import load_file

    _check_size(path, error)
    with parser_errors(path, _ADVICE, error):
        return load_file(path)


def read_tensors(path: Path, error: type[BnnSymmError] = InvalidRun) -> "dict[str, Tensor]":
    """Return the tensors of a safetensors file, name -> tensor on the CPU.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if the file is truncated or no safetensors file.
        FileNotFoundError: if the path does not exist.
        NotEnoughMemory: if the tensors do not fit into memory.
    """
    from safetensors.torch import load_file

    _check_size(path, error)
    with parser_errors(path, _ADVICE, error, "is no safetensors file"):
        return load_file(path)


def read_npy_layout(path: Path, error: type[BnnSymmError] = InvalidRun) -> NpyLayout:
    """Return the layout of an npy file after comparing its size with the declared shape.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if it is no npy file, contains objects, is in column-major order, or has another size
            than declared.
        FileNotFoundError: if the path does not exist.
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
            f"{shown(path)} has rows of type {one_line(dtype, 60)}, expected numbers; {_ADVICE}"
        )
    if is_column_order or any(length < 0 for length in shape):
        raise error(
            f"{shown(path)} has shape {one_line(shape, 60)} in column-major order, expected "
            f"row-major order; {_ADVICE}"
        )
    declared = offset + prod(shape) * dtype.itemsize
    if declared != size:
        raise error(f"{shown(path)} declares {declared} bytes, got {size}; {_ADVICE}")
    return NpyLayout(tuple(shape), dtype, offset)


def read_torch_file(path: Path, error: type[BnnSymmError] = InvalidRun) -> Any:
    """Return the content of a file of `torch.save` that contains only tensors and containers.

    Args:
        path: path of a regular file.
        error: class of the error to raise.

    Raises:
        error: if the file is damaged, compressed, no torch file, or contains objects that would run
            code when read.
        FileNotFoundError: if the path does not exist.
        NotEnoughMemory: if the tensors do not fit into memory.
    """
    import torch

    _check_size(path, error)
    with (
        parser_errors(path, _ADVICE, error, "is no torch checkpoint"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about pickles of other software, which are errors below
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch does not compress, so a compressed archive was not written by torch.
                if any(member.file_size > member.compress_size for member in archive.infolist()):
                    raise ValueError("it is a compressed archive, which torch does not write")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise error(
                f"{shown(path)} contains more than tensors, and loading it could run code; save "
                "only the state dict: safetensors.torch.save_file(net.state_dict(), FILE)"
            ) from None


def _check_size(path: Path, error: type[BnnSymmError]) -> None:
    """Raise an error for a file whose arrays do not fit into memory.

    The arrays are not compressed, so that their size is that of the file.
    """
    check_memory(check_regular_file(path, error), shown(path), _MEMORY_ADVICE)
