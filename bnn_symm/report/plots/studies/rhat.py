"""R-hat of a study in its views: of raw weights, of aligned ones and of functions, setting by
setting.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import bare

# As in the pictures of a run: told apart by lightness and by the marker.
_STYLES = {
    "raw": ("raw weights", "#b2182b", "X"),
    "aligned": ("aligned weights", "#2166ac", "o"),
    "function": ("functions", "black", "D"),
}
# R-hat less 1 is drawn on a logarithmic scale between these.
_LEAST, _MOST = 1e-3, 1e3
_TICKS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3)


def study_rhat_figure(panels: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Figure:
    """One panel a way of comparing, one row a setting; a mark for each view, with its interval over
    seeds.

    Args:
        panels: each with `title`, and `raw`, `aligned`, `function`: by setting `mean`, `low`,
            `high`, or None.
        labels: of the settings.
    """
    lines = [wrapped(label, 30) for label in labels]
    height = 1.5 + sum(0.2 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure = Figure(figsize=(2.4 + 3.6 * len(panels), height), layout="constrained")
    every = np.atleast_1d(np.asarray(figure.subplots(1, len(panels), sharey=True)))
    for axes, panel in zip(every, panels, strict=True):
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
        bare(axes)
        axes.tick_params(axis="y", length=0)
        for place in range(1, len(labels)):
            axes.axhline(place - 0.5, color="0.9", lw=0.6)
    every[0].set_yticks(range(len(lines)), lines, fontsize=9)
    every[0].set_ylim(len(lines) - 0.5, -0.5)
    handles, names = every[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _view(
    axes: Axes, rows: Sequence[Mapping[str, Any] | None], view: str, number: int
) -> list[float]:
    """Draws one view; returns what was drawn, less 1."""
    label, color, marker = _STYLES[view]
    axes.plot([], [], marker, color=color, label=label)
    seen = []
    for place, row in enumerate(rows):
        if row is None or row["mean"] is None:
            continue
        height = place + 0.2 * (number - 1)
        mean = _less_one(row["mean"])
        seen.append(mean)
        if row["low"] is not None and row["high"] is not None:
            low, high = _less_one(row["low"]), _less_one(row["high"])
            axes.hlines(height, low, high, color=color, lw=1.6)
            seen += [low, high]
        axes.plot([mean], [height], marker, color=color, ms=7, mec="white", mew=0.6)
    return seen


def _less_one(value: float) -> float:
    return min(max(value - 1, _LEAST), _MOST)
