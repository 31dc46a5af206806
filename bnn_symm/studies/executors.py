"""Run the tasks of a study in local processes or on the workers of a Dask cluster.

Both are executors of `concurrent.futures`, so that the runner treats them alike. Every task is a
separate process (`inference.parallel`), because Pyro is not thread-safe and thread counts
are settings of a process. If a Dask worker is lost, its task is given to another.
"""

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from bnn_symm.advice import advise
from bnn_symm.errors import BnnSymmError, ConfigError, require_extra
from bnn_symm.inference.parallel.worker_pool import reports
from bnn_symm.inference.parallel.workers import Parent
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.keys import NUMERICS
from bnn_symm.studies.task import run_task
from bnn_symm.threads import available_cores, limit_cores

# Seconds that a task has to write a checkpoint when a study is stopped, before it is killed.
_STOP_TIMEOUT = 20.0
# How often Dask gives a task to another worker when one is lost.
_RETRIES = 5

_stopping = threading.Event()


def run_in_process(directory: str, key: str, cores: int, modules: Sequence[str] = ()) -> str | None:
    """Run a task in a separate process and return its error.

    Args:
        directory: of the study.
        key: of the task.
        cores: number of cores that the task may use.
        modules: factories of custom networks that the task needs, as the user named them.

    Returns:
        The reason of a failure; None if the task succeeded.
    """

    def work(_: int, parent: Parent) -> int:
        limit_cores(cores)
        return run_task(StudyDirectory(directory), key, modules)

    error: str | None = "it was stopped"
    with tempfile.TemporaryDirectory() as folder:
        for _, kind, content in reports(
            work,
            [0],
            jobs=1,
            advice=f"use fewer {advise('--jobs', 'jobs')}",
            threads=None,
            should_stop=_stopping.is_set,
            patience=_STOP_TIMEOUT,
            errors=Path(folder, "stderr"),
        ):
            error = f"{type(content).__name__}: {content}".strip().splitlines()[-1]
            error = error if kind == "error" else None
    return error


@contextlib.contextmanager
def local_executor(jobs: int | None) -> Iterator[tuple[Executor, int, int]]:
    """Provide an executor for processes of this machine, which are stopped on exit.

    Processes that still run on exit get time to write a checkpoint.

    Args:
        jobs: number of processes at once, by default one per core.

    Yields:
        The executor, the number of tasks at once, and the number of cores for each.
    """
    jobs = jobs or available_cores()
    _stopping.clear()
    pool = ThreadPoolExecutor(jobs)
    try:
        yield pool, jobs, max(1, available_cores() // jobs)
    finally:
        _stopping.set()
        pool.shutdown(cancel_futures=True)  # its threads wait for their processes


@contextlib.contextmanager
def dask_executor(address: str, directory: Path) -> Iterator[tuple[Executor, int, int]]:
    """Provide an executor for the workers of a Dask cluster that all see the directory.

    Args:
        address: of the scheduler, `tcp://host:8786`.
        directory: of the study, on a file system that all workers share.

    Yields:
        The executor, the number of threads of all workers, and one core for each.

    Raises:
        MissingExtra: if Dask is not installed.
        ConfigError: if no scheduler answers, or there is no worker.
        BnnSymmError: if a worker does not see the directory, or has another version of this
            package.
    """
    require_extra("dask", "distributed", "a Dask cluster")
    from distributed import Client

    try:
        client = Client(address, timeout=20)
    except (OSError, ValueError, TimeoutError) as error:
        raise ConfigError(
            f"{_argument(address)}: no scheduler answers ({error or type(error).__name__}); "
            "start one: dask scheduler"
        ) from None
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise ConfigError(
                f"{_argument(address)}: the scheduler has no workers; start some: "
                f"dask worker {address}"
            )
        _check_shared(client, directory)
        # Not pure: the directory, not the scheduler, records which tasks are done.
        with client.get_executor(pure=False, retries=_RETRIES) as executor:
            yield executor, sum(worker["nthreads"] for worker in workers.values()), 1
    finally:
        client.close()


def _argument(address: str) -> str:
    return advise(f"--dask {address}", f"dask={address!r}")


def _check_shared(client: Any, directory: Path) -> None:
    token = directory / f".shared-{uuid4().hex}"
    token.touch()
    try:
        answers = client.run(_check_worker, str(token), on_error="return")
    finally:
        token.unlink(missing_ok=True)
    for worker, answer in answers.items():
        if isinstance(answer, ModuleNotFoundError):
            raise BnnSymmError(
                f"worker {worker} has no bnn_symm ({answer}); install the same version on all "
                "workers"
            )
        if isinstance(answer, Exception):
            raise BnnSymmError(
                f"worker {worker} failed: {type(answer).__name__}: {answer}"
            ) from None
        is_shared, numerics = answer
        if not is_shared:
            raise BnnSymmError(
                f"worker {worker} does not see {directory}, or may not write it; choose a "
                "directory on a file system that all machines share"
            )
        if numerics != NUMERICS:
            raise BnnSymmError(
                f"worker {worker} has another version of bnn_symm (numerics {numerics}, here "
                f"{NUMERICS}); install the same version on all workers"
            )


def _check_worker(token: str) -> tuple[bool, int]:
    """Return, on a worker, whether it may write beside the token, and its numerics version."""
    import os

    return os.path.exists(token) and os.access(os.path.dirname(token), os.W_OK), NUMERICS
