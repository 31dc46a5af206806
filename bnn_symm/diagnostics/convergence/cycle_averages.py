"""The curve of a sampler that goes in cycles, of what it draws: one value a cycle.

Within a cycle its objective rises and falls with the learning rate, by design, so that rows of one
cycle say nothing of whether the next will find better modes. Draws are made at the ends of cycles,
and these can be set side by side.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_symm.diagnostics.convergence.convergence import Curve


def without_exploration(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a history in which draws may be made; all, of a sampler that does not explore."""
    return [row for row in history if row.get("phase") != "exploration"]


def ends_of_cycles(curve: Curve, cycle_steps: int) -> Curve:
    """One value a cycle, the mean of its rows, at the clocks of the last of them.

    Args:
        curve: with the clock `step`, of rows without exploration.
        cycle_steps: steps of a cycle.
    """
    cycles = (curve.clocks["step"] - 1) // cycle_steps
    lasts = np.flatnonzero(np.diff(cycles, append=np.inf))
    return dataclasses.replace(
        curve,
        values=np.array([curve.values[cycles == cycle].mean() for cycle in cycles[lasts]]),
        clocks={name: times[lasts] for name, times in curve.clocks.items()},
    )
