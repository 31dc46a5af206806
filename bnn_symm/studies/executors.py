"""Where the tasks of a study run: in processes of this machine, or on the workers of a Dask
cluster.

Both are executors of `concurrent.futures`, so that a study does not know which one it has. Either
way a task is a process of its own (Pyro is not thread-safe, and thread counts are those of a
process), which ends when the process that started it does. A task whose Dask worker is lost is
given to another one.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from bnn_symm.errors import BnnSymmError, ConfigError
from bnn_symm.studies.keys import NUMERICS
from bnn_symm.threads import available_cores

# Seconds that a task has to keep what it has reached when a study is stopped, before it is killed.
_PATIENCE = 20.0
# How often Dask gives a task to another worker when one is lost.
_RETRIES = 5

_running: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()


def run_in_process(directory: str, key: str, cores: int, modules: Sequence[str] = ()) -> str | None:
    """Runs a task in a process of its own; returns what went wrong, or None.

    Args:
        directory: of the study.
        key: of the task.
        cores: that it may use.
        modules: factories of the user's own networks that the task needs, as the user named them.
    """
    command = [sys.executable, "-m", "bnn_symm.studies.task", directory, key, str(cores)]
    command += [f"--module={module}" for module in modules]
    if _stopping.is_set():
        return "it was stopped before it began"
    # In a session of its own: Ctrl-C at a terminal is for the study, which then stops its tasks.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    _running.add(process)
    try:
        assert process.stderr is not None
        told = (
            process.stderr.read().decode(errors="replace").strip()
        )  # its input stays open until it has ended
        status = process.wait()
    finally:
        _running.discard(process)
        for pipe in (process.stdin, process.stderr):
            assert pipe is not None
            pipe.close()
    if status == 0:
        return None
    last = told.splitlines()[-1] if told else ""
    if status < 0:
        hint = "; if memory ran out, use fewer --jobs" if status == -9 else ""
        return f"its process was killed by signal {-status}{hint}{f' ({last})' if last else ''}"
    return last or f"its process ended with status {status}"


@contextlib.contextmanager
def local_executor(jobs: int) -> Iterator[Executor]:
    """So many processes at once, on this machine; stopped, and given time to keep what they have
    reached, on exit.
    """
    _stopping.clear()
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool
    finally:
        _stopping.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _stop_all()
        pool.shutdown()  # its threads see their processes end


def _stop_all() -> None:
    for process in list(_running):
        process.terminate()
    for process in list(_running):
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def dask_executor(address: str, directory: Path) -> Iterator[tuple[Executor, int]]:
    """The workers of a Dask cluster, once all of them are known to see the directory; and how many
    threads they have.

    Args:
        address: of the scheduler, `tcp://host:8786`.
        directory: of the study, on a file system that all workers share.

    Raises:
        ConfigError: if Dask is not installed, no scheduler answers, or there is no worker.
        BnnSymmError: if a worker does not see the directory, or has another version of this
            package.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("--dask needs Dask; type: pip install 'bnn_symm[dask]'") from None
    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"--dask {address}: no scheduler answers there ({error or type(error).__name__}); "
            "start one: dask scheduler"
        ) from None
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise ConfigError(
                f"--dask {address}: the scheduler has no workers; start some: dask worker {address}"
            )
        _check_shared(client, directory)
        # Not pure: that a task was done before is known from the directory, not from the scheduler.
        with client.get_executor(pure=False, retries=_RETRIES) as executor:
            yield executor, sum(worker["nthreads"] for worker in workers.values())
    finally:
        client.close()


def _check_shared(client: Any, directory: Path) -> None:
    token = directory / f".shared-{uuid4().hex}"
    token.touch()
    try:
        seen = client.run(_sees, str(token), on_error="return")
    finally:
        token.unlink(missing_ok=True)
    for worker, answer in seen.items():
        if isinstance(answer, ModuleNotFoundError):
            raise BnnSymmError(
                f"worker {worker} has no bnn_symm ({answer}); install the same version on all "
                "workers"
            )
        if isinstance(answer, Exception):
            raise BnnSymmError(
                f"worker {worker} cannot work: {type(answer).__name__}: {answer}"
            ) from None
        there, numerics = answer
        if not there:
            raise BnnSymmError(
                f"worker {worker} does not see {directory}; put the study where all machines see "
                "and may write it: "
                f"--out DIR on a shared file system"
            )
        if numerics != NUMERICS:
            raise BnnSymmError(
                f"worker {worker} has another version of bnn_symm (numerics {numerics}, here "
                f"{NUMERICS}); install the same on all workers"
            )


def _sees(token: str) -> tuple[bool, int]:
    """Asked of every worker."""
    import os

    return os.path.exists(token) and os.access(os.path.dirname(token), os.W_OK), NUMERICS


def cores_for(jobs: int) -> int:
    """Cores for each of so many tasks that share this machine."""
    return max(1, available_cores() // jobs)
