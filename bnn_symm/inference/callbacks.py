"""What a running fit tells the outside: rows of history, draws, states; and whether it should stop.

A fit never writes a file and never prints. It calls its callbacks between steps, in the process of
the caller, also when chains run in processes of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bnn_symm.posteriors import DrawChunk

State = dict[str, np.ndarray]


class Callback:
    """Base of callbacks; each method does nothing unless overridden.

    `chain` is the number of the chain or ensemble member, 0 where there is only one.
    """

    def on_history(self, row: Mapping[str, Any]) -> None:
        """A logged step."""

    def on_draws(self, chunk: DrawChunk) -> None:
        """New draws, in order within a chain."""

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """A point between two steps from which the fit could go on; call `state` to take a copy of
        it.

        An `essential` state is one that later draws build on: it must be kept before them.
        """

    def should_stop(self) -> bool:
        """Whether the fit should end at this step and return what it has."""
        return False

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """All draws of each chain, where this callback keeps them to be read again; None if it
        keeps none.

        A callback that keeps draws (on a disk) spares the fit a second copy in memory. Of a resumed
        fit it has those of before as well.
        """
        return None


@dataclass(frozen=True)
class Callbacks(Callback):
    """Several callbacks as one."""

    members: Sequence[Callback] = ()

    def on_history(self, row: Mapping[str, Any]) -> None:
        """To all."""
        for member in self.members:
            member.on_history(row)

    def on_draws(self, chunk: DrawChunk) -> None:
        """To all."""
        for member in self.members:
            member.on_draws(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """To all."""
        for member in self.members:
            member.on_state(chain, state, essential=essential)

    def should_stop(self) -> bool:
        """Whether any wants to."""
        return any(member.should_stop() for member in self.members)

    def stored_draws(self) -> dict[int, DrawChunk] | None:
        """Of the first that keeps them."""
        return next(
            (kept for member in self.members if (kept := member.stored_draws()) is not None), None
        )


@dataclass
class FitState:
    """What a fit has told so far: enough to return a posterior of it, or to go on from it.

    Attributes:
        states: the last state of each chain.
        draws: all draws of each chain so far, in memory or in a log on disk, from which they are
            read when asked for.
        history: all rows so far.
    """

    states: dict[int, State] = field(default_factory=dict)
    draws: dict[int, DrawChunk] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class HistoryRecorder(Callback):
    """Keeps what a fit tells: history and states in memory, draws too unless another callback keeps
    them.

    Args:
        fit_state: what an interrupted fit had reached.
        keeper: another callback of the same fit, if its `stored_draws` are to be read in place of a
            copy in memory.
    """

    def __init__(self, fit_state: FitState | None = None, draw_store: Callback | None = None):
        fit_state = fit_state or FitState()
        self._draw_store = draw_store
        self._chunks = (
            {} if draw_store else {chain: [chunk] for chain, chunk in fit_state.draws.items()}
        )
        self._states = dict(fit_state.states)
        self._history = list(fit_state.history)

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Kept."""
        self._history.append(dict(row))

    def on_draws(self, chunk: DrawChunk) -> None:
        """Kept, unless another callback does."""
        if self._draw_store is None:
            self._chunks.setdefault(chunk.chain, []).append(chunk)

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Only essential ones are copied: a fit hands over its final state itself."""
        if essential:
            self._states[chain] = state()

    def keep_state(self, chain: int, state: State) -> None:
        """The final state of a chain."""
        self._states[chain] = state

    def fit_state(self) -> FitState:
        """Everything, draws joined by chain."""
        draws = self._draw_store.stored_draws() if self._draw_store else None
        if draws is None:
            draws = {chain: _join(chunks) for chain, chunks in sorted(self._chunks.items())}
        history = sorted(self._history, key=lambda row: (row.get("chain", 0), row["step"]))
        return FitState(dict(sorted(self._states.items())), draws, history)


def _join(chunks: Sequence[DrawChunk]) -> DrawChunk:
    first = chunks[0]
    return DrawChunk(
        first.chain,
        first.first,
        np.concatenate([np.asarray(chunk.positions) for chunk in chunks]),
        {name: np.concatenate([chunk.stats[name] for chunk in chunks]) for name in first.stats},
    )


def to_numpy(tensors: Mapping[str, torch.Tensor]) -> State:
    """Copies of tensors as arrays."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}
