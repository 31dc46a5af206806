"""Run independent chains (or ensemble members) sequentially, or each in a spawned process.

The result of a chain depends only on its key and its thread count, so both ways are bitwise
identical. Pyro is not thread-safe, and forking a process that has used torch may deadlock, so
processes are spawned. A worker sends its reports through a pipe. Only the parent calls the
callbacks and writes.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from bnn_symm.errors import BnnSymmError, FitDiverged
from bnn_symm.inference.callbacks import Callback, Callbacks, State
from bnn_symm.inference.parallel.spawning import pickle_by_value, without_main
from bnn_symm.posteriors import DrawChunk
from bnn_symm.threads import available_cores, use_threads

ChainMethod = Literal["auto", "parallel", "sequential"]

# Seconds between the parent's checks of `should_stop`.
_POLL = 0.2


@runtime_checkable
class ChainTask(Protocol):
    """The task of running one chain; a plain object with data, which is pickled for a worker."""

    def __call__(self, chain: int, callbacks: Callback) -> State | None:
        """Run the chain; return its final state, also if it was stopped early.

        Args:
            chain: index of the chain.
            callbacks: receive its reports.
        """
        ...


def run_chains(
    work: ChainTask, chains: Iterable[int], callbacks: Callbacks, chain_method: ChainMethod = "auto"
) -> dict[int, State]:
    """Run the chains and return their final states.

    Args:
        work: runs one chain.
        chains: indices of the chains.
        callbacks: receive all reports, in this process.
        chain_method: `auto` is parallel for several chains if there are several cores.

    Returns:
        The final state of each chain that was started.

    Raises:
        ConfigError: if the task cannot be sent to another process.
        FitDiverged: if a chain diverged; the others are stopped first. Its `states` has the last
            state of each chain.
        BnnSymmError: if a chain failed; the others are stopped first.
    """
    chains = list(chains)
    if chain_method == "auto":
        chain_method = "parallel" if len(chains) > 1 and available_cores() > 1 else "sequential"
    with use_threads(1 if len(chains) > 1 else torch.get_num_threads()):
        if chain_method == "sequential":
            states = {}
            for chain in chains:
                if callbacks.should_stop():
                    break
                try:
                    state = work(chain, callbacks)
                except FitDiverged as error:
                    error.states = states | error.states
                    raise
                if state is not None:
                    states[chain] = state
            return states
        return _run_parallel(work, chains, callbacks)


def _run_parallel(work: ChainTask, chains: list[int], callbacks: Callbacks) -> dict[int, State]:
    context = multiprocessing.get_context("spawn")
    payload = pickle_by_value(work, "use inference.chain_method=sequential")
    stop = context.Event()
    waiting = list(chains)
    running: dict[Any, tuple[int, Any]] = {}
    states: dict[int, State] = {}
    failure: BaseException | None = None
    try:
        while waiting or running:
            if failure is None and callbacks.should_stop():
                stop.set()
            if stop.is_set():
                waiting.clear()
            while waiting and len(running) < available_cores():
                chain = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_worker,
                    args=(payload, chain, sender, stop, torch.get_num_threads()),
                    daemon=True,
                )
                with _signals_blocked(), without_main():
                    process.start()
                sender.close()
                running[receiver] = (chain, process)
            content: Any
            for receiver in wait(list(running), timeout=_POLL):
                chain, process = running[receiver]
                try:
                    kind, content = receiver.recv()  # type: ignore[union-attr]
                except (EOFError, OSError):  # OSError: it died while sending a message
                    process.join()
                    kind, content = "error", _process_died(chain, process.exitcode)
                if kind == "history":
                    callbacks.on_history(content)
                elif kind == "draws":
                    callbacks.on_draws(content)
                elif kind == "state":
                    state, essential = content
                    callbacks.on_state(chain, lambda state=state: state, essential=essential)
                else:
                    if kind == "done" and content is not None:
                        states[chain] = content
                    elif kind == "error":
                        failure = failure or content
                        if isinstance(content, FitDiverged):
                            states |= content.states
                        stop.set()
                    process.join()
                    receiver.close()  # type: ignore[union-attr]
                    del running[receiver]
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    if failure is not None:
        if isinstance(failure, FitDiverged):
            failure.states = states
        raise failure
    return states


# A terminal or a scheduler sends these signals to a whole process group. Only the parent handles
# them.
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block group signals in processes that are started in this context, until they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _process_died(chain: int, code: int | None) -> BnnSymmError:
    cause = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return BnnSymmError(
        f"the process of chain {chain} died ({cause}); if it ran out of memory, use "
        "inference.chain_method=sequential"
    )


class _Pipe(Callback):
    """The worker's end of the pipe: sends reports to the parent, and receives stop requests."""

    def __init__(self, connection: Connection, stop: Any):
        self._connection = connection
        self._stop = stop

    def on_history(self, row: Mapping[str, Any]) -> None:
        self._connection.send(("history", dict(row)))

    def on_draws(self, chunk: DrawChunk) -> None:
        self._connection.send(("draws", chunk))

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        self._connection.send(("state", (state(), essential)))

    def should_stop(self) -> bool:
        return self._stop.is_set()


def _worker(payload: bytes, chain: int, connection: Connection, stop: Any, threads: int) -> None:
    for number in _GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Modules of the user are imported from the same directory as in the parent. It comes last, so
    # that it shadows no other module.
    sys.path.append(os.getcwd())
    torch.set_num_threads(threads)
    try:
        work: ChainTask = pickle.loads(payload)
        result: tuple[str, Any] = ("done", work(chain, _Pipe(connection, stop)))
    except BnnSymmError as error:
        result = ("error", error)
    except BrokenPipeError:
        return  # the parent terminated
    except Exception:
        result = ("error", RuntimeError(f"chain {chain} failed:\n{traceback.format_exc()}"))
    connection.send(result)
    connection.close()
