"""Interrupt fits between two steps, and compare the results of fits bit by bit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.inference import FitState, HistoryRecorder, State
from bnn_symm.posteriors import Posterior


class Interruption(HistoryRecorder):
    """A callback that records everything that a fit reports, and stops it.

    Args:
        stop_after: number of calls of `should_stop` that let the fit continue; None never stops it.
        fit_state: the state that an interrupted fit resumes from.

    Example:
        >>> from bnn_symm import MAP
        >>> from bnn_symm.testing import linear_regression
        >>> model, dataset = linear_regression()
        >>> interruption, method = Interruption(stop_after=5), MAP(num_steps=20)
        >>> part = method.fit(model, dataset, seed=0, callbacks=[interruption])
        >>> state = method.truncate_to_checkpoint(interruption.fit_state())
        >>> part.info["status"], method.fit(model, dataset, seed=0, fit_state=state).info["status"]
        ('interrupted', 'complete')
    """

    def __init__(self, stop_after: int | None = None, fit_state: FitState | None = None):
        super().__init__(fit_state)
        self._calls_left = stop_after

    def on_state(self, chain: int, state: Callable[[], State], *, essential: bool = False) -> None:
        """Copy every state, essential or not."""
        self.keep_state(chain, state())

    def should_stop(self) -> bool:
        """Return whether the calls that let the fit continue are used up."""
        if self._calls_left is None:
            return False
        self._calls_left -= 1
        return self._calls_left < 0


def all_draws(posterior: Posterior) -> Float[Tensor, "draw parameter"]:
    """Return the draws of all chains, one chain after the other.

    Args:
        posterior: the posterior.
    """
    return torch.cat(list(posterior.iter_draws()))


def without_times(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a history without their clock times, which differ between equal fits.

    Args:
        history: the rows.
    """
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
