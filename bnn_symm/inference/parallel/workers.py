"""Start and supervise worker processes: for chains, for simulations and for tasks of studies.

Start: on Linux, the fork server of `multiprocessing` has imported torch, Pyro and this package, and
a worker starts in 0.05 s. The server neither computes nor initializes CUDA, so a fork is safe. On
other systems, and where variables that libraries read on import have changed since the server
started, each worker is a new interpreter. The script of the caller is never imported: work is
pickled by value, with classes of a script or a notebook.

State: a worker has the environment, working directory and `sys.path` of its parent at its start.

End: the pipe between parent and worker closes when the parent ends, however that happens; a thread
of the worker then exits the process. Signals to the process group of the parent do not reach it.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import cloudpickle
import torch

from bnn_symm.errors import BnnSymmError

# What jobs import, also from layers above this one, and what libraries import when they are used.
_PRELOAD = ["bnn_symm.studies.task", "torch._dynamo", "sklearn.datasets", "pyarrow.parquet"]
_READ_ON_IMPORT = ("CUDA_", "GOMP_", "OMP_", "OPENBLAS_", "MKL_", "PYTORCH_")
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ORPHANED = 143  # exit status of a worker whose parent ended

_lock = threading.Lock()
_server: tuple[Any, ...] | None = None


class Worker:
    """A worker process, as its parent sees it.

    Args:
        work: pickled function of a message and the `Parent`, called with each message sent. The
            worker replies with ("done", result) or ("error", exception).
        threads: number of intra-op threads; None for the default of a new process.
        errors: file for standard error; standard output is then discarded, and SIGTERM is not
            ignored.

    Attributes:
        pipe: its `recv` raises EOFError or OSError if the process died.
    """

    def __init__(self, work: bytes, threads: int | None = None, errors: Path | None = None):
        self.pipe, theirs = multiprocessing.Pipe()
        arguments = (theirs, work, dict(os.environ), threads, errors)
        with _lock, _detached():
            multiprocessing.current_process().daemon = False  # else it may not start processes
            self._process = _context().Process(target=_run, args=arguments, daemon=True)
            self._process.start()
        theirs.close()
        self.terminate, self.kill = self._process.terminate, self._process.kill

    def send(self, message: Any) -> None:
        """Send a message.

        Args:
            message: None ends the process; "stop" sets `Parent.stop_requested` at once.
        """
        with contextlib.suppress(OSError):
            self.pipe.send(message)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit status, -N after signal N."""
        wait([self._process.sentinel])
        with _lock:  # starting a process also collects the status of others
            self._process.join()
        self.pipe.close()
        assert self._process.exitcode is not None
        return self._process.exitcode


def _context() -> Any:
    """Return the way to start a process."""
    global _server
    is_read = {name: os.environ[name] for name in os.environ if name.startswith(_READ_ON_IMPORT)}
    state = (os.getpid(), is_read)  # a forked process has no server
    if sys.platform == "linux" and _server is None:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOAD)
        _server = state
    return multiprocessing.get_context("forkserver" if state == _server else "spawn")


@contextlib.contextmanager
def _detached() -> Iterator[None]:
    """Hide the main module from a process that starts in this context, and block group signals.

    A new process imports the script that started it, to find its classes. If the script has no
    `if __name__ == "__main__":`, that runs the fit again, within its own worker. The signals stay
    blocked in the server, and in a worker until it has left the group.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    can_block = hasattr(signal, "pthread_sigmask")  # not on Windows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS) if can_block else []
    try:
        yield
    finally:
        if can_block:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.modules["__main__"] = main


class Parent:
    """The parent of a worker, as its work sees it."""

    def __init__(self, pipe: Connection):
        self.stop_requested = False
        self._pipe = pipe
        self.messages: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a message to the parent.

        Args:
            message: any object that can be pickled.
        """
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(_ORPHANED)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = self._pipe.recv()
                if message == "stop":
                    self.stop_requested = True
                else:
                    self.messages.put(message)
        os._exit(_ORPHANED)


def _run(
    pipe: Connection,
    pickled: bytes,
    environment: dict[str, str],
    threads: int | None,
    errors: Path | None,
) -> None:
    """Work in the new process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if errors is None else signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _GROUP_SIGNALS)
    for number, path in (1, os.devnull), (2, errors):
        if errors is not None and path is not None:
            with open(path, "ab") as file:
                os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    gc.freeze()  # a collection of all that the server imported would take 0.3 s and copy it
    # Modules of the user are imported from the same directory as in the parent. It comes last, so
    # that it shadows no other module.
    sys.path.append(os.getcwd())
    if threads is not None:
        torch.set_num_threads(threads)
    parent = Parent(pipe)
    work: Any = None
    for message in iter(parent.messages.get, None):
        try:
            work = work or cloudpickle.loads(pickled)
            parent.send(("done", work(message, parent)))
        except BnnSymmError as error:
            parent.send(("error", error))
        except Exception:
            parent.send(("error", RuntimeError(f"a worker failed:\n{traceback.format_exc()}")))
