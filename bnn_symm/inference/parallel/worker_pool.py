"""A function of numbers, in this process or in several spawned ones, with results as they come.

The function is pickled once for each process. A process is handed one number after another, so that
a process that takes its time keeps nobody else waiting. It ends when the caller's does, however
that ends: the pipe between them closes. As chains do (`inference.chains`), it computes with one
thread, and leaves Ctrl-C to the caller.
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
    """The results for all numbers, in the order in which they are ready.

    Args:
        work: whose result depends on its number alone.
        numbers: of the work.
        jobs: processes at once; with one, everything runs here.

    Raises:
        ConfigError: if the work cannot be sent to another process.
        BnnSymmError: of the work itself, or if a process died.
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
                        connection.close()  # type: ignore[union-attr] - which ends the process
                        process.join()
                        del running[connection]
                except (EOFError, OSError):
                    process.join()
                    raise BnnSymmError(
                        f"a process that fitted died (exit code {process.exitcode}); if memory ran "
                        "out, use fewer jobs "
                        f"(--jobs 1)"
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
    # A network class of the user's own is found where the parent found it; last, so that it hides
    # nothing.
    sys.path.append(os.getcwd())
    torch.set_num_threads(1)
    try:
        work = pickle.loads(payload)
        while True:
            number = connection.recv()
            connection.send((False, work(number)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # there is no more to do, or the parent is gone
    except BnnSymmError as error:
        connection.send((True, error))
    except Exception:
        connection.send((True, RuntimeError(f"a simulation failed:\n{traceback.format_exc()}")))
