"""Reduce the curve of a cyclical sampler to one value per cycle, for its draws.

Within a cycle the objective rises and falls with the learning rate by design, so the rows of one
cycle do not show whether the next finds better modes. Draws are made at the ends of cycles, which
are comparable.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_symm.diagnostics.convergence.convergence import Curve


def without_exploration(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of a history outside the exploration phase; all rows without such a phase.

    Args:
        history: Rows of a history.

    Returns:
        The remaining rows.
    """
    return [row for row in history if row.get("phase") != "exploration"]


def ends_of_cycles(curve: Curve, cycle_steps: int) -> Curve:
    """Return one value per cycle, the mean of its rows, at the clocks of its last row.

    Args:
        curve: Curve with the clock `step`, of rows without exploration.
        cycle_steps: Steps per cycle.

    Returns:
        The curve of the cycles.
    """
    cycles = (curve.clocks["step"] - 1) // cycle_steps
    lasts = np.flatnonzero(np.diff(cycles, append=np.inf))
    return dataclasses.replace(
        curve,
        values=np.array([curve.values[cycles == cycle].mean() for cycle in cycles[lasts]]),
        clocks={name: times[lasts] for name, times in curve.clocks.items()},
    )
