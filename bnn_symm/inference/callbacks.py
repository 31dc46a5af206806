"""Callbacks, and the state of a fit that they receive: history, draws and checkpoints.

A fit never writes a file and never prints. It calls its callbacks between steps, in the process of
the caller, even if its chains run in other processes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bnn_symm.posteriors import DrawChunk

State = dict[str, np.ndarray]


class Callback:
    """Base class of callbacks; each method does nothing unless it is overridden.

    `chain` is the index of the chain or ensemble member, and 0 for a single chain.
    """

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Receive one row of the history.

        Args:
            row: the logged values of one step.
        """

    def on_draws(self, chunk: DrawChunk) -> None:
        """Receive new draws of one chain, in order.

        Args:
            chunk: consecutive draws and their statistics.
        """

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Receive a checkpoint between two steps, from which the fit can resume.

        Args:
            chain: index of the chain.
            state: returns a copy of the state. Call it only if the checkpoint is stored.
            essential: whether later draws depend on this state. It must be stored before them.
        """

    def should_stop(self) -> bool:
        """Return whether the fit should stop at this step and return a partial posterior."""
        return False

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """Return all draws of each chain if this callback stores them, otherwise None.

        A callback that stores draws, for example on disk, spares the fit a second copy in memory.
        For a resumed fit, the earlier draws are included.
        """
        return None


@dataclass(frozen=True)
class Callbacks(Callback):
    """A callback that forwards every call to several others."""

    members: Sequence[Callback] = ()

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Forward the row to all members."""
        for member in self.members:
            member.on_history(row)

    def on_draws(self, chunk: DrawChunk) -> None:
        """Forward the draws to all members."""
        for member in self.members:
            member.on_draws(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Forward the checkpoint to all members."""
        for member in self.members:
            member.on_state(chain, state, essential=essential)

    def should_stop(self) -> bool:
        """Return whether any member requests a stop."""
        return any(member.should_stop() for member in self.members)

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """Return the draws of the first member that stores them, or None."""
        return next(
            (kept for member in self.members if (kept := member.stored_draws()) is not None), None
        )


@dataclass
class FitState:
    """The state of a fit: enough to build a posterior from it, or to resume the fit.

    Attributes:
        states: the last state of each chain.
        draws: all draws of each chain so far. They are in memory, or read lazily from a log on
            disk.
        history: all rows so far.
    """

    states: dict[int, State] = field(default_factory=dict)
    draws: dict[int, DrawChunk] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class HistoryRecorder(Callback):
    """Record the history, the states and, unless another callback stores them, the draws of a fit.

    Args:
        fit_state: the state of an interrupted fit to continue.
        draw_store: another callback of the same fit whose `stored_draws` are read, so that no copy
            is held in memory.

    Attributes:
        info: added to the `info` of the posterior.
    """

    def __init__(self, fit_state: FitState | None = None, draw_store: Callback | None = None):
        fit_state = fit_state or FitState()
        self._draw_store = draw_store
        self._chunks = (
            {} if draw_store else {chain: [chunk] for chain, chunk in fit_state.draws.items()}
        )
        self._states = dict(fit_state.states)
        self._history = list(fit_state.history)
        self._end: tuple[int, int] | None = None
        self.info: dict[str, Any] = {}

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Append the row to the history."""
        self._history.append(dict(row))

    def on_draws(self, chunk: DrawChunk) -> None:
        """Append the draws, unless another callback stores them."""
        if self._draw_store is None:
            self._chunks.setdefault(chunk.chain, []).append(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Copy the state if it is essential; the fit passes its final state to `keep_state`."""
        if essential:
            self._states[chain] = state()

    def keep_state(self, chain: int, state: State) -> None:
        """Store the final state of a chain.

        Args:
            chain: index of the chain.
            state: its state.
        """
        self._states[chain] = state

    def end_at(self, num_draws: int, step: int) -> None:
        """Leave out later draws and rows, because a test has stopped the fit at these draws.

        Args:
            num_draws: draws of each chain that are kept.
            step: of the last row that is kept.
        """
        self._end = num_draws, step

    def fit_state(self) -> FitState:
        """Return everything recorded so far, with the draws of each chain concatenated."""
        draws = self._draw_store.stored_draws() if self._draw_store else None
        if draws is None:
            draws = {chain: _join(chunks) for chain, chunks in sorted(self._chunks.items())}
        history = sorted(self._history, key=lambda row: (row.get("chain", 0), row["step"]))
        if self._end is not None:
            number, step = self._end
            draws = {chain: chunk.part(0, number) for chain, chunk in draws.items()}
            history = [row for row in history if row["step"] <= step]
        return FitState(dict(sorted(self._states.items())), draws, history)


def _join(chunks: Sequence[DrawChunk]) -> DrawChunk:
    first = chunks[0]
    return DrawChunk(
        first.chain,
        first.first,
        np.concatenate([np.asarray(chunk.positions) for chunk in chunks]),
        {
            name: np.concatenate([np.asarray(chunk.stats[name]) for chunk in chunks])
            for name in first.stats
        },
    )


def to_numpy(tensors: Mapping[str, torch.Tensor]) -> State:
    """Return copies of tensors as NumPy arrays, by name."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
