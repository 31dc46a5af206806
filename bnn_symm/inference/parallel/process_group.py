"""The processes that `torchrun` started, which share one fit.

Each holds a share of the training part and all run the same program. What they sum has the same
bits in all of them, so all decide alike and stay together without a master: gloo and NCCL reduce
each element in one place and copy it.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.errors import ConfigError, ProcessLost
from bnn_symm.threads import available_cores, limit_cores

# How long a process waits for the others. They meet at every gradient, so this has to outlast only
# what one of them may do alone between two: read the data, compile, write a checkpoint.
_PATIENCE = timedelta(minutes=5)


class ProcessGroup:
    """Processes that share the training part of a fit; by default this process alone.

    Args:
        rank: number of this process.
        size: number of processes.
        store: of torch.distributed, where they meet; None for one process.

    Attributes:
        is_broken: whether one of them was lost, after which nothing more can be asked of the
            others.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None):
        self.rank, self.size, self._store = rank, size, store
        self.is_broken = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that keeps the run and speaks."""
        return self.rank == 0

    def share(self, part: Split) -> Split:
        """The points of this process: a slice, as long as the others' or one longer.

        Raises:
            ConfigError: if there are fewer points than processes.
        """
        if len(part) < self.size:
            raise ConfigError(
                f"{self.size} processes cannot share {len(part)} training points; start fewer"
            )
        return part.take(
            slice(len(part) * self.rank // self.size, len(part) * (self.rank + 1) // self.size)
        )

    def sum(self, values: Tensor) -> None:
        """Replaces values by their sum over all processes, the same bits in each.

        Raises:
            ProcessLost: here and below, if one of them is gone or does not answer.
        """
        if self.size > 1:
            with self._raising_process_lost():
                dist.all_reduce(values)

    def broadcast(self, value: Any = None) -> Any:
        """What the first process passes, in every process; the others wait for it."""
        if self.size == 1:
            return value
        box = [value]
        with self._raising_process_lost():
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """What each passes, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            with self._raising_process_lost():
                dist.all_gather_object(values, value)
        return values

    def claim(self, task: str) -> bool:
        """Whether no process asked this before of that deed; where their store is gone too, each is
        the first.
        """
        try:
            return self._store is None or self._store.add(task, 1) == 1
        except RuntimeError:
            return True

    @contextlib.contextmanager
    def _raising_process_lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.mark_broken(
                f"one of {self.size} processes is gone or does not answer"
            ) from error

    def mark_broken(self, reason: str) -> ProcessLost:
        """The error to raise when the processes cannot go on together."""
        self.is_broken = True
        return ProcessLost(reason)


def launch_command(processes: int) -> str:
    """How the command line is started in so many processes."""
    return (
        "bnn-symm" if processes == 1 else f"torchrun --nproc-per-node {processes} -m bnn_symm.cli"
    )


@contextlib.contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """The processes that `torchrun` started, this one among them; without it, this one alone.

    On the CPU they speak through gloo, on GPUs through NCCL, a GPU each. Each takes its part of the
    machine's cores. SIGTERM, which `torchrun` sends to all when one of them failed, raises
    KeyboardInterrupt, unless that is known.

    Raises:
        ProcessLost: if the others do not come.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ProcessGroup()
        return
    from torch.distributed.rendezvous import rendezvous

    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    limit_cores(available_cores() // local_size)
    backend = "gloo"
    if torch.cuda.is_available() and local_size <= torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except RuntimeError as error:
        raise ProcessLost(
            f"the processes of torchrun did not find each other: {str(error).splitlines()[0]}"
        ) from error
    group = ProcessGroup(rank, size, store)

    def terminate(number: int, frame: FrameType | None) -> None:
        if not group.is_broken:
            raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, terminate)
    try:
        yield group
    finally:
        if not group.is_broken:
            signal.signal(signal.SIGTERM, former)
            dist.destroy_process_group()
