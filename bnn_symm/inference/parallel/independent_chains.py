"""Run independent chains (or ensemble members) sequentially, or in worker processes.

The result of a chain depends only on its key and its thread count, so both ways are bitwise
identical. Workers send the reports of chains. Only the parent calls the callbacks and writes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from bnn_symm.errors import FitDiverged
from bnn_symm.inference.callbacks import Callback, Callbacks, State
from bnn_symm.inference.parallel.worker_pool import reports
from bnn_symm.inference.parallel.workers import Parent
from bnn_symm.posteriors import DrawChunk
from bnn_symm.threads import available_cores, use_threads

ChainMethod = Literal["auto", "parallel", "sequential"]


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
    states: dict[int, State] = {}
    failures: list[BaseException] = []
    for chain, kind, content in reports(
        lambda chain, parent: work(chain, _Reports(parent)),
        chains,
        jobs=available_cores(),
        threads=torch.get_num_threads(),
        advice="use inference.chain_method=sequential",
        should_stop=lambda: bool(failures) or callbacks.should_stop(),
    ):
        if kind == "history":
            callbacks.on_history(content)
        elif kind == "draws":
            callbacks.on_draws(content)
        elif kind == "state":
            state, essential = content
            callbacks.on_state(chain, lambda state=state: state, essential=essential)
        elif kind == "error":
            failures.append(content)
            if isinstance(content, FitDiverged):
                states |= content.states
        elif content is not None:
            states[chain] = content
    if failures:
        if isinstance(failures[0], FitDiverged):
            failures[0].states = states
        raise failures[0]
    return states


@dataclass(frozen=True)
class _Reports(Callback):
    parent: Parent

    def on_history(self, row: Mapping[str, Any]) -> None:
        self.parent.send(("history", dict(row)))

    def on_draws(self, chunk: DrawChunk) -> None:
        self.parent.send(("draws", chunk))

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        self.parent.send(("state", (state(), essential)))

    def should_stop(self) -> bool:
        return self.parent.stop_requested
