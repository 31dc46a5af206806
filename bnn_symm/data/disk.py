"""Data in files of a directory, for those that do not fit into memory.

`stored_points` writes the inputs of a data set or loader of torch to a file, batch by batch, and
`stored_tensor` the standardized ones of each split to another. Both files are mapped into memory:
the system reads the parts that a minibatch needs, and drops them when memory is short. The files
belong to the data set, and may be deleted when it is no longer used.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from bnn_symm.errors import ConfigError, InvalidData, one_line
from bnn_symm.io.boundary import shown

_INPUTS = "inputs.raw"


def stacked_points(points: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs and targets of a data set in memory.

    Args:
        points: a `DataLoader`, whose batches are read once, or a map-style data set.

    Raises:
        ConfigError: if the points are not pairs of an input and a target.
        InvalidData: if there are none, or inputs have several shapes or types.
    """
    batches = list(_batches(points))
    for x, _ in batches:
        _check_batch(x, batches[0][0])
    if not batches:
        raise _no_points()
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def stored_points(points: Any, directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write the inputs of a data set to a file.

    Args:
        points: a `DataLoader`, whose batches are read once, or a map-style data set.
        directory: an empty or new directory.

    Returns:
        Inputs (point, *axis), a read-only map of the file, and targets.

    Raises:
        ConfigError: if the directory is not empty or cannot be written, or the points are not pairs
            of an input and a target.
        InvalidData: if inputs have several shapes or types.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(
                f"{shown(directory)} has files, expected an empty directory; name another one"
            )
        path, first, targets = directory / _INPUTS, None, []
        with path.open("wb") as file:
            for x, y in _batches(points):
                first = x[:0] if first is None else first
                _check_batch(x, first)
                file.write(np.ascontiguousarray(x).data)
                targets.append(y)
        if first is None or not path.stat().st_size:
            raise _no_points()
        y = np.concatenate(targets)
        return np.memmap(path, first.dtype, mode="r", shape=(len(y), *first.shape[1:])), y
    except OSError as error:
        raise _write_error(directory, error) from None


def stored_tensor(chunks: Iterable[Tensor], path: Path, shape: tuple[int, ...]) -> Tensor:
    """Write a tensor to a file, and return it as a map of the file.

    Args:
        chunks: consecutive rows of the tensor.
        path: the file.
        shape: of the tensor, with one row at least.

    Raises:
        ConfigError: if the file cannot be written.
    """
    dtype = torch.float32
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                dtype = chunk.dtype
                file.write(chunk.contiguous().numpy().data)
    except OSError as error:
        raise _write_error(path.parent, error) from None
    size = int(np.prod(shape))
    return torch.from_file(str(path), shared=True, size=size, dtype=dtype).reshape(shape)


def _batches(points: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield inputs and targets with a first axis of points."""
    try:
        if isinstance(points, DataLoader):
            for x, y in points:
                yield np.asarray(x), np.asarray(y)
        else:
            for index in range(len(points)):
                x, y = points[index]
                yield np.asarray(x)[None], np.asarray(y)[None]
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"got {type(points).__name__}, expected a DataLoader whose batches are pairs of inputs "
            "and targets, or a data set with a length, whose points are pairs of an input and a "
            f"target ({one_line(error, 80)})"
        ) from error


def _check_batch(x: np.ndarray, first: np.ndarray) -> None:
    if (x.shape[1:], x.dtype) != (first.shape[1:], first.dtype):
        raise InvalidData(
            f"inputs have shapes {first.shape[1:]} ({first.dtype}) and {x.shape[1:]} ({x.dtype}), "
            "expected one; pad, resize or convert them"
        )


def _no_points() -> InvalidData:
    return InvalidData("the data set has no points, expected at least one")


def _write_error(directory: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the data cannot be stored in {shown(directory)} ({error.strerror}); name a directory on "
        "a disk with enough space"
    )
