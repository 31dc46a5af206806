"""Plot the measures of settings: means over seeds with intervals, and the values of all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.styles import Style, simplify

# Maximum number of characters of a label in one line.
_WRAP = 30


def measures_figure(
    panels: Sequence[Mapping[str, Any]], labels: Sequence[str], styles: Sequence[Style]
) -> Figure:
    """Plot one panel per measure and one row per setting, with a line at the first mean.

    Args:
        panels: each with `title` and `rows`, one per setting: `mean`, `low`, `high` (each may be
            None) and `values`, one per seed.
        labels: of the settings.
        styles: of the settings.

    Returns:
        The figure.
    """
    lines = [wrapped(label, _WRAP) for label in labels]
    height = 1.1 + sum(0.16 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure = Figure(figsize=(2.2 + 2.5 * len(panels), height), layout="constrained")
    panel_axes = np.atleast_1d(np.asarray(figure.subplots(1, len(panels), sharey=True)))
    for axes, panel in zip(panel_axes, panels, strict=True):
        for height, (row, style) in enumerate(zip(panel["rows"], styles, strict=True)):
            _row(axes, height, row, style)
        first = panel["rows"][0]["mean"] if panel["rows"] else None
        if first is not None:
            axes.axvline(first, color="0.6", lw=0.9, ls=":", zorder=0)
        axes.set_xlabel(panel["title"], fontsize=9)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.12)
        axes.grid(axis="y", color="0.93", lw=0.6)
        axes.set_axisbelow(True)
        simplify(axes)
        axes.tick_params(axis="y", length=0)
    panel_axes[0].set_yticks(range(len(lines)), lines, fontsize=9)
    panel_axes[0].set_ylim(len(lines) - 0.4, -0.6)
    return figure


def _row(axes: Axes, height: int, row: Mapping[str, Any], style: Style) -> None:
    values = row["values"]
    # Seeds are drawn below their mean, so that both are visible.
    axes.plot(
        values, [height + 0.22] * len(values), "|", color=style.color, ms=6, mew=1.0, alpha=0.75
    )
    if row["mean"] is None:
        return
    if row["low"] is not None and row["high"] is not None:
        axes.hlines(height, row["low"], row["high"], color=style.color, lw=2.0)
    axes.plot([row["mean"]], [height], style.marker, color=style.color, ms=7, mec="white", mew=0.7)


def wrapped(label: str, width: int) -> str:
    """Return a label in at most four lines, broken at spaces.

    Args:
        label: the label.
        width: approximate number of characters of a line.

    Returns:
        The lines.
    """
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    cut = [line if len(line) <= width + 8 else f"{line[: width + 5]}..." for line in lines]
    return "\n".join(cut if len(cut) <= 4 else [*cut[:3], f"{cut[3]} ..."])
