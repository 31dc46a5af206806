"""Define the callbacks that write a running fit to disk and stop it on signals."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bnn_symm.inference import Callback, State
from bnn_symm.io.atomic import sync_file
from bnn_symm.posteriors import DrawChunk
from bnn_symm.runs.directory.run_directory import RunDirectory

# Draws are buffered up to this size, so that small models do not write one file for each draw.
_BUFFER_BYTES = 16_000_000


class RunWriter(Callback):
    """Append history rows at once, and draws and states after an interval of seconds or steps.

    Draws and history are written before the state that depends on them. Whenever the process is
    killed, no state on disk is ahead of the draws and the history there. Draws are stored only on
    disk (`stored_draws`), so memory does not grow with their number.

    Args:
        directory: the run directory, whose lock is held.
        every: seconds between checkpoints, or `N steps`, as counted by the history.
        keep: steps; the first state from each of them on is preserved, in every chain.
    """

    def __init__(self, directory: RunDirectory, every: float | str, keep: Sequence[int] = ()):
        self._directory = directory
        self._seconds = math.inf if isinstance(every, str) else every
        self._steps = int(every.split()[0]) if isinstance(every, str) else math.inf
        self._keep = sorted(keep)
        self._kept = directory.kept_states() if keep else {}
        self._pending: dict[int, list[int]] = {}
        self._log = directory.draw_log()
        self._buffer: list[DrawChunk] = []
        self._buffered = 0
        self._last_flush = time.monotonic()
        # For each chain: the step of its last row; the time and step of its last state on disk.
        self._step: dict[int, int] = {}
        self._last_state: dict[int, tuple[float, int]] = {}
        self._history = directory.history_log.open("a", encoding="utf-8")
        self._history_is_synced = True

    def on_history(self, row: Mapping[str, Any]) -> None:
        """Write a row and flush it to the operating system, so that it survives this process."""
        self._step[row.get("chain", 0)] = row["step"]
        self._history.write(json.dumps(row) + "\n")
        self._history.flush()
        self._history_is_synced = False

    def on_draws(self, chunk: DrawChunk) -> None:
        """Buffer draws until the next checkpoint, or until there are many."""
        self._buffer.append(chunk)
        self._buffered += chunk.positions.nbytes
        if time.monotonic() - self._last_flush >= self._seconds or self._buffered >= _BUFFER_BYTES:
            self.flush()

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Save the first state, every essential one, and otherwise one after each interval."""
        if chain not in self._pending:
            # A resumed fit does not repeat the states that were preserved before.
            last = max((step for step, states in self._kept.items() if chain in states), default=-1)
            self._pending[chain] = [step for step in self._keep if step > last]
        pending = self._pending[chain]
        if pending:
            now = state()
            step = int(now["step"])
            if step >= pending[0]:
                self.flush()
                self._directory.keep_state(chain, step, now)
                self._pending[chain] = [later for later in pending if later > step]
        if essential or self._is_due(chain):
            self.flush()
            self._directory.save_state(chain, state())
            self._last_state[chain] = (time.monotonic(), self._step.get(chain, 0))

    def _is_due(self, chain: int) -> bool:
        """Return whether the interval between checkpoints has passed."""
        if chain not in self._last_state:
            return True
        saved_at, step = self._last_state[chain]
        return (
            time.monotonic() - saved_at >= self._seconds
            or self._step.get(chain, 0) - step >= self._steps
        )

    def stored_draws(self) -> dict[int, DrawChunk]:
        """Return all draws on disk, after writing the buffered ones."""
        self.flush()
        return self._log.chains()

    def flush(self) -> None:
        """Write the buffered draws as one file, and sync the history."""
        if not self._history_is_synced:
            sync_file(self._history.fileno())
            self._history_is_synced = True
        self._log.append(*self._buffer)
        self._buffer, self._buffered = [], 0
        self._last_flush = time.monotonic()

    def close(self) -> None:
        """Write the buffered draws and close the history."""
        try:
            self.flush()
        finally:
            self._history.close()


class StopOnSignal(Callback):
    """Stop a fit at its next step on SIGINT or SIGTERM; a second signal stops it at once.

    Attributes:
        stopped: whether a signal was received.
        at_once: whether the next signal raises KeyboardInterrupt, because no steps are left after
            which the fit could stop.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.at_once = False

    def should_stop(self) -> bool:
        """Return whether a signal was received."""
        return self.stopped

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals within this context.

        Outside the main thread, where Python cannot handle signals, it has no effect.
        """
        former = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                former[number] = signal.signal(number, self._handle)
        except ValueError:
            pass
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped or self.at_once:
            raise KeyboardInterrupt
        self.stopped = True
