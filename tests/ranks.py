"""Processes as `torchrun` starts them, but forked from a server that has imported everything, which
takes no time."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from tests.runs.fits import _CONTEXT


@dataclass
class Ranks:
    """Processes under way, and the store where they meet, which is torchrun's own and outlives
    them."""

    processes: list[Any]
    store: TCPStore

    def statuses(self, seconds: float = 120.0) -> list[int | None]:
        """Exit statuses, by rank, once all have ended."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            assert process.exitcode is not None, "it did not end in time"
        return [process.exitcode for process in self.processes]


def start_ranks(function: Callable[..., object], *arguments: Any, size: int = 2) -> Ranks:
    """Calls an importable function in so many processes that find each other."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = []
    for rank in range(size):
        environment = {
            "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
        }
        process = _CONTEXT.Process(target=_call, args=(environment, function, arguments))
        process.start()
        processes.append(process)
    return Ranks(processes, store)


def run_ranks(function: Callable[..., object], *arguments: Any, size: int = 2) -> None:
    """The same, to their end, which has to be a good one."""
    assert start_ranks(function, *arguments, size=size).statuses() == [0] * size


def _call(
    environment: dict[str, str], function: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))
