"""Memory: what is available, and a refusal before it is taken that names the numbers."""

from collections.abc import Iterable
from math import prod
from pathlib import Path

import psutil

from bnn_symm.errors import NotEnoughMemory

# The share of the available memory that one array or one file may take: whatever is computed from
# it needs the rest.
_USABLE = 0.8
# Limits of the control groups that a container runs in, versions 2 and 1.
_GROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int:
    """Return the bytes of memory that this process may still take, within the limit of its
    container.
    """
    available = psutil.virtual_memory().available
    for limit_file, usage_file in _GROUP_FILES:
        try:
            limit, usage = int(Path(limit_file).read_text()), int(Path(usage_file).read_text())
        except (OSError, ValueError):
            continue
        available = min(available, max(0, limit - usage))
    return available


def check_memory(num_bytes: int, what: str, advice: str) -> None:
    """Refuse what does not fit into the available memory.

    Args:
        num_bytes: the bytes that are about to be taken.
        what: what needs them, as a noun phrase.
        advice: what to do instead.

    Raises:
        NotEnoughMemory: with both numbers and the advice.
    """
    available = available_memory()
    if num_bytes > _USABLE * available:
        raise NotEnoughMemory(
            f"{what} needs {format_bytes(num_bytes)} of memory, {format_bytes(available)} are "
            f"available; {advice}"
        )


def num_bytes_of(shape: Iterable[int], itemsize: int) -> int:
    """Return the bytes of an array, in exact integers: declared shapes can overflow machine
    words.
    """
    return prod((int(size) for size in shape), start=1) * itemsize


def format_bytes(number: int | float) -> str:
    """Return a number of bytes in the decimal unit that a person would use, such as `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"
