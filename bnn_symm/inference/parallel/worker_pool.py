"""Map a function over numbers, in this process or in several workers, in order of completion.

A worker receives one number after another, so that a slow one does not block the others. Chains
(`independent_chains`), simulations and the tasks of studies use the same pool.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from bnn_symm.advice import advise
from bnn_symm.errors import BnnSymmError, ConfigError, one_line
from bnn_symm.inference.parallel.workers import Parent, Worker
from bnn_symm.threads import use_threads

Result = TypeVar("Result")

# Seconds between the checks of `should_stop`.
_POLL = 0.2


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
    if min(jobs, len(waiting)) <= 1:
        for number in waiting:
            with use_threads(1):
                result = work(number)
            yield result
        return
    for _, kind, content in reports(
        lambda number, _: work(number),
        waiting,
        jobs=jobs,
        advice=f"use one job ({advise('--jobs 1', 'jobs=1')})",
    ):
        if kind == "error":
            raise content
        yield content


def reports(
    work: Callable[[int, Parent], Any],
    numbers: Iterable[int],
    *,
    jobs: int,
    advice: str,
    threads: int | None = 1,
    should_stop: Callable[[], bool] = lambda: False,
    patience: float = float("inf"),
    errors: Path | None = None,
) -> Iterator[tuple[int, str, Any]]:
    """Yield what workers send, each with its number and kind; the workers end with the iteration.

    Args:
        work: a function of the number and of the parent, to which it may send (kind, content).
        numbers: the arguments.
        jobs: number of processes.
        advice: what to do if processes cannot be used, or run out of memory.
        threads: number of intra-op threads of each process; None for the default of a new one.
        should_stop: whether workers should stop, and no further number start.
        patience: seconds after which workers that do not stop are killed.
        errors: file for standard error; such workers are stopped by SIGTERM, not by `Parent`.

    Yields:
        For each number that started, the last kind is "done", or "error" for an exception.

    Raises:
        ConfigError: if the function cannot be sent to another process.
    """
    pickled = _pickle_by_value(work, advice)
    waiting = list(numbers)
    running: dict[Any, tuple[Worker, int]] = {}
    deadline: float | None = None

    def give_number(worker: Worker) -> None:
        running[worker.pipe] = worker, waiting.pop(0)
        worker.send(running[worker.pipe][1])

    try:
        while waiting or running:
            if deadline is None and should_stop():
                deadline = time.monotonic() + patience
                waiting.clear()
                for worker, _ in running.values():
                    if errors is None:
                        worker.send("stop")
                    else:
                        worker.terminate()
            if deadline is not None and time.monotonic() > deadline:
                return
            while waiting and len(running) < jobs:
                give_number(Worker(pickled, threads, errors))
            for pipe in wait(list(running), timeout=_POLL):
                worker, number = running[pipe]
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):  # OSError: it died while sending a message
                    kind, content = "error", _died(running.pop(pipe)[0].wait(), advice, errors)
                yield number, kind, content
                if kind == "done" and waiting:
                    give_number(worker)
                elif kind in ("done", "error") and running.pop(pipe, None):
                    worker.send(None)
                    worker.wait()
    finally:
        for worker, _ in running.values():
            worker.kill()
            worker.wait()


def _pickle_by_value(work: Any, advice: str) -> bytes:
    """Return a function as bytes, with classes defined in a script or a notebook."""
    try:
        return cloudpickle.dumps(work)
    except Exception as error:
        raise ConfigError(
            "the network cannot be sent to another process "
            f"({one_line(f'{type(error).__name__}: {error}', 120)}); {advice}"
        ) from error


def _died(status: int, advice: str, errors: Path | None) -> BnnSymmError:
    cause = f"signal {-status}" if status < 0 else f"exit code {status}"
    written = errors is not None and errors.exists() and errors.read_text(errors="replace").strip()
    last = f" ({written.splitlines()[-1]})" if written else ""
    return BnnSymmError(f"a worker process died ({cause}); if it ran out of memory, {advice}{last}")
