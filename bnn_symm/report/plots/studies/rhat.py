"""Plot R-hat of raw weights, aligned weights and functions for the settings of a study."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import simplify

# As in the figures of a run: distinguishable by lightness and marker.
_STYLES = {
    "raw": ("raw weights", "#b2182b", "X"),
    "aligned": ("aligned weights", "#2166ac", "o"),
    "function": ("functions", "black", "D"),
}
# R-hat minus 1 is plotted on a logarithmic scale between these.
_LEAST, _MOST = 1e-3, 1e3
_TICKS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3)


def study_rhat_figure(panels: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Figure:
    """Plot R-hat of all views with intervals over seeds, one row per setting.

    Args:
        panels: each with `title`, and `raw`, `aligned` and `function`: for each setting `mean`,
            `low` and `high`, or None.
        labels: of the settings.

    Returns:
        The figure.
    """
    lines = [wrapped(label, 30) for label in labels]
    height = 1.5 + sum(0.2 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure = Figure(figsize=(2.4 + 3.6 * len(panels), height), layout="constrained")
    panel_axes = np.atleast_1d(np.asarray(figure.subplots(1, len(panels), sharey=True)))
    for axes, panel in zip(panel_axes, panels, strict=True):
        seen = [
            value
            for number, view in enumerate(_STYLES)
            for value in _view(axes, panel[view], view, number)
        ]
        axes.set_xscale("log")
        low, high = min([*seen, 0.01]) / 2, 2 * max([*seen, 0.1])
        axes.set_xlim(low, high)
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        axes.set_xticks(ticks, labels=[f"{1 + tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(panel["title"], fontsize=9)
        axes.grid(axis="x", color="0.93", lw=0.6)
        simplify(axes)
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(labels)):
            axes.axhline(row - 0.5, color="0.9", lw=0.6)
    panel_axes[0].set_yticks(range(len(lines)), lines, fontsize=9)
    panel_axes[0].set_ylim(len(lines) - 0.5, -0.5)
    handles, names = panel_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _view(
    axes: Axes, rows: Sequence[Mapping[str, Any] | None], view: str, number: int
) -> list[float]:
    """Draw one view, and return the plotted values minus 1."""
    label, color, marker = _STYLES[view]
    axes.plot([], [], marker, color=color, label=label)
    seen = []
    for index, row in enumerate(rows):
        if row is None or row["mean"] is None:
            continue
        height = index + 0.2 * (number - 1)
        mean = _minus_one(row["mean"])
        seen.append(mean)
        if row["low"] is not None and row["high"] is not None:
            low, high = _minus_one(row["low"]), _minus_one(row["high"])
            axes.hlines(height, low, high, color=color, lw=1.6)
            seen += [low, high]
        axes.plot([mean], [height], marker, color=color, ms=7, mec="white", mew=0.6)
    return seen


def _minus_one(value: float) -> float:
    return min(max(value - 1, _LEAST), _MOST)
