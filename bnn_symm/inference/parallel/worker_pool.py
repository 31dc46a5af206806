"""Map a function over numbers, in this process or in several spawned ones, in order of completion.

The function is pickled once per process. A process receives one number after another, so that a
slow one does not block the others. It ends when the caller's process ends, however that happens,
because the pipe between them closes. As for chains (`independent_chains`), it computes with one
thread and leaves Ctrl-C to the caller.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from bnn_symm.errors import BnnSymmError
from bnn_symm.inference.parallel.spawning import pickle_by_value, without_main
from bnn_symm.threads import use_threads

Result = TypeVar("Result")


def map_unordered(
    work: Callable[[int], Result], numbers: Iterable[int], *, jobs: int = 1
) -> Iterator[Result]:
    """Yield the results for all numbers, in order of completion.

    Args:
        work: its result depends only on the number.
        numbers: the arguments.
        jobs: number of processes. With one, everything runs in this process.

    Raises:
        ConfigError: if the function cannot be sent to another process.
        BnnSymmError: if the function raises it, or a process died.
    """
    waiting = list(numbers)
    jobs = min(jobs, len(waiting))
    if jobs <= 1:
        for number in waiting:
            with use_threads(1):
                result = work(number)
            yield result
        return
    payload = pickle_by_value(work, "use one job (--jobs 1)")
    yield from _from_processes(payload, waiting, jobs)


def _from_processes(payload: bytes, waiting: list[int], jobs: int) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    running: dict[Any, Any] = {}
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(payload, theirs), daemon=True)
            with without_main():
                process.start()
            theirs.close()
            running[ours] = process
            ours.send(waiting.pop(0))
        while running:
            for connection in wait(list(running)):
                process = running[connection]
                try:
                    failed, content = connection.recv()  # type: ignore[union-attr]
                    if not failed and waiting:
                        connection.send(waiting.pop(0))  # type: ignore[union-attr]
                    elif not failed:
                        connection.close()  # type: ignore[union-attr] - ends the process
                        process.join()
                        del running[connection]
                except (EOFError, OSError):
                    process.join()
                    raise BnnSymmError(
                        f"a worker process died (exit code {process.exitcode}); if it ran out of "
                        "memory, use fewer jobs (--jobs 1)"
                    ) from None
                if failed:
                    raise content
                yield content
    finally:
        for process in running.values():
            process.kill()
            process.join()


def _worker(payload: bytes, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Modules of the user are imported from the same directory as in the parent. It comes last, so
    # that it shadows no other module.
    sys.path.append(os.getcwd())
    torch.set_num_threads(1)
    try:
        work = pickle.loads(payload)
        while True:
            number = connection.recv()
            connection.send((False, work(number)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # all work is done, or the parent terminated
    except BnnSymmError as error:
        connection.send((True, error))
    except Exception:
        connection.send((True, RuntimeError(f"a simulation failed:\n{traceback.format_exc()}")))
