"""Number of intra-op threads of torch: chosen by problem size, restored on exit.

On small problems torch spends more time distributing work to a second thread than computing.
Measured on two cores, one thread was 2 to 100 times as fast for log densities of small networks.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

# Floating-point operations of a forward pass, a few milliseconds of work, below which one thread is
# faster.
_MULTITHREADING_FLOPS = 2e8


def choose_threads(flops: int, threads: int | Literal["auto"] = "auto") -> int:
    """Return the number of intra-op threads for forward passes of a given size.

    Args:
        flops: floating-point operations of one pass over all that is evaluated together: every
            point of the batch, for every chain.
        threads: the user's setting; a number is returned unchanged.
    """
    if threads != "auto":
        return threads
    return 1 if flops < _MULTITHREADING_FLOPS else available_cores()


_limit: int | None = None


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return usable if _limit is None else min(usable, _limit)


def limit_cores(number: int) -> None:
    """Limit the cores that this process uses, until it ends, and leave the others to its siblings.

    Args:
        number: largest number of cores.
    """
    global _limit
    _limit = max(1, number)


@contextlib.contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Set torch's number of intra-op threads, and restore the former number on exit.

    Args:
        number: number of threads within the block.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
