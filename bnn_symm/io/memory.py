"""Available memory, and checks against it before allocation."""

from collections.abc import Iterable
from math import prod
from pathlib import Path

import psutil

from bnn_symm.errors import NotEnoughMemory
from bnn_symm.formatting import number

# Fraction of the available memory that one array or file may use; computations need the rest.
_USABLE_FRACTION = 0.8
# Points and numbers that are processed at a time, at most.
_MAX_POINTS, _MAX_NUMBERS = 4096, 2**20
# Limits and usage of the control groups of a container, versions 2 and 1.
_GROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Return the available memory of this process in bytes, within the limit of its container."""
    available = psutil.virtual_memory().available
    for limit_file, usage_file in _GROUP_FILES:
        try:
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
        except (OSError, ValueError):
            continue
        available = min(available, max(0, limit - usage))
    return available


def check_memory(num_bytes: int, what: str, advice: str) -> None:
    """Raise an error if an allocation does not fit into the available memory.

    Args:
        num_bytes: size of the allocation in bytes.
        what: noun phrase that names its purpose.
        advice: what to try next.

    Raises:
        NotEnoughMemory: with both numbers and the advice.
    """
    available = available_memory()
    if num_bytes > _USABLE_FRACTION * available:
        raise NotEnoughMemory(
            f"{what} needs {format_bytes(num_bytes)} of memory, {format_bytes(available)} are "
            f"available; {advice}"
        )


def points_at_once(numbers_per_point: int) -> int:
    """Return how many points to process at a time, so that temporary arrays stay small.

    Args:
        numbers_per_point: numbers of one point.
    """
    return max(1, min(_MAX_POINTS, _MAX_NUMBERS // max(1, numbers_per_point)))


def num_bytes_of(shape: Iterable[int], itemsize: int) -> int:
    """Return the size of an array in bytes, in exact integers.

    Declared shapes can overflow machine integers.

    Args:
        shape: shape of the array.
        itemsize: bytes per value.
    """
    return prod((int(size) for size in shape), start=1) * itemsize


def format_bytes(size: float) -> str:
    """Return a number of bytes in a suitable decimal unit, such as `3.2 GB`.

    Args:
        size: number of bytes.
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{number(size)} {unit}"
        size /= 1000
    return f"{number(size)} PB"
