"""How many intra-op threads: by problem size, and put back on exit.

On small problems torch spends more time handing work to a second thread than doing it: measured on
    two cores, one
thread was from 2 to 100 times as fast for log densities of small networks.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

# Floating-point operations of one forward pass below which one thread is faster (a few milliseconds
# of work).
_WORTH_TWO_THREADS = 2e8


def choose_threads(flops: int, threads: int | Literal["auto"] = "auto") -> int:
    """The number of intra-op threads for forward passes of `flops` operations each, unless the user
    names one.

    A pass is of all that is evaluated together: every point of the batch, and every chain.
    """
    if threads != "auto":
        return threads
    return 1 if flops < _WORTH_TWO_THREADS else available_cores()


_limit: int | None = None


def available_cores() -> int:
    """Cores that this process may use."""
    there = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return there if _limit is None else min(there, _limit)


def limit_cores(number: int) -> None:
    """Leaves the other cores to processes that do other work beside this one, for as long as this
    one lives.
    """
    global _limit
    _limit = max(1, number)


@contextlib.contextmanager
def use_threads(number: int) -> Iterator[None]:
    """Sets torch's intra-op threads, and puts the former number back on exit."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
