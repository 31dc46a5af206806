"""What settings reached, measure by measure: the mean over seeds with its interval, and every seed
beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.styles import Style, bare

# Characters of a label in a line.
_WRAP = 30


def measures_figure(
    panels: Sequence[Mapping[str, Any]], labels: Sequence[str], styles: Sequence[Style]
) -> Figure:
    """One panel a measure, one row a setting, the first on top; a dotted line at the first
    setting's mean.

    Args:
        panels: each with `title` and `rows`, one a setting: `mean`, `low`, `high` (each may be
            None) and `values`, one a seed.
        labels: of the settings.
        styles: of the settings.
    """
    lines = [wrapped(label, _WRAP) for label in labels]
    height = 1.1 + sum(0.16 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure = Figure(figsize=(2.2 + 2.5 * len(panels), height), layout="constrained")
    every = np.atleast_1d(np.asarray(figure.subplots(1, len(panels), sharey=True)))
    for axes, panel in zip(every, panels, strict=True):
        for place, (row, style) in enumerate(zip(panel["rows"], styles, strict=True)):
            _row(axes, place, row, style)
        first = panel["rows"][0]["mean"] if panel["rows"] else None
        if first is not None:
            axes.axvline(first, color="0.6", lw=0.9, ls=":", zorder=0)
        axes.set_xlabel(panel["title"], fontsize=9)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.12)
        axes.grid(axis="y", color="0.93", lw=0.6)
        axes.set_axisbelow(True)
        bare(axes)
        axes.tick_params(axis="y", length=0)
    every[0].set_yticks(range(len(lines)), lines, fontsize=9)
    every[0].set_ylim(len(lines) - 0.4, -0.6)
    return figure


def _row(axes: Axes, place: int, row: Mapping[str, Any], style: Style) -> None:
    values = row["values"]
    # Seeds lie beneath their mean, so that both are seen.
    axes.plot(
        values, [place + 0.22] * len(values), "|", color=style.color, ms=6, mew=1.0, alpha=0.75
    )
    if row["mean"] is None:
        return
    if row["low"] is not None and row["high"] is not None:
        axes.hlines(place, row["low"], row["high"], color=style.color, lw=2.0)
    axes.plot([row["mean"]], [place], style.marker, color=style.color, ms=7, mec="white", mew=0.7)


def wrapped(label: str, width: int) -> str:
    """The label in lines of about so many characters, broken after commas and at spaces; four at
    most.
    """
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    cut = [line if len(line) <= width + 8 else f"{line[: width + 5]}..." for line in lines]
    return "\n".join(cut if len(cut) <= 4 else [*cut[:3], f"{cut[3]} ..."])
