"""The processes that `torchrun` started, which share one fit.

Each process holds a share of the training split, and all run the same program. Sums over processes
are bitwise identical in all of them, because gloo and NCCL reduce each element in one place and
copy it. So all processes take the same decisions and stay synchronized without a coordinator.
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

# Timeout of communication. Processes communicate at every gradient, so this must exceed only the
# work of one process between two gradients: reading data, compilation, writing a checkpoint.
_PATIENCE = timedelta(minutes=5)


class ProcessGroup:
    """The processes that share the training split of a fit; by default only this process.

    Args:
        rank: index of this process.
        size: number of processes.
        store: the store of torch.distributed; None for one process.

    Attributes:
        is_broken: whether a process was lost, after which no communication is possible.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None):
        self.rank, self.size, self._store = rank, size, store
        self.is_broken = False

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the run and prints."""
        return self.rank == 0

    def share(self, part: Split) -> Split:
        """Return the points of this process: a slice; lengths differ by at most one point.

        Args:
            part: the training split.

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
        """Replace values by their sum over all processes, bitwise identical in each.

        Args:
            values: modified in place.

        Raises:
            ProcessLost: if a process terminated or does not respond.
        """
        if self.size > 1:
            with self._raising_process_lost():
                dist.all_reduce(values)

    def broadcast(self, value: Any = None) -> Any:
        """Return the value of the first process in every process.

        Args:
            value: used in the first process only.

        Raises:
            ProcessLost: if a process terminated or does not respond.
        """
        if self.size == 1:
            return value
        box = [value]
        with self._raising_process_lost():
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes in every process, ordered by rank.

        Args:
            value: the value of this process.

        Raises:
            ProcessLost: if a process terminated or does not respond.
        """
        values = [value] * self.size
        if self.size > 1:
            with self._raising_process_lost():
                dist.all_gather_object(values, value)
        return values

    def claim(self, task: str) -> bool:
        """Return whether this process is the first to claim a task.

        Args:
            task: its name.

        Returns:
            True in exactly one process; in every process if their store is lost.
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
                f"one of {self.size} processes terminated or does not respond"
            ) from error

    def mark_broken(self, reason: str) -> ProcessLost:
        """Mark the group as broken, and return the error to raise.

        Args:
            reason: the message of the error.
        """
        self.is_broken = True
        return ProcessLost(reason)


def launch_command(processes: int) -> str:
    """Return the command that starts the command line in a number of processes.

    Args:
        processes: number of processes.
    """
    return (
        "bnn-symm" if processes == 1 else f"torchrun --nproc-per-node {processes} -m bnn_symm.cli"
    )


@contextlib.contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that `torchrun` started; without it, yield a group of one process.

    Processes communicate through gloo on the CPU, and through NCCL on GPUs, with one GPU each. Each
    uses its share of the machine's cores. SIGTERM, which `torchrun` sends to all processes when one
    of them failed, raises KeyboardInterrupt, unless the group is marked as broken.

    Raises:
        ProcessLost: if the other processes do not join.
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
            f"the processes of torchrun could not connect: {str(error).splitlines()[0]}"
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
