"""Plot differences of asymmetric networks from the standard network over the contexts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import Style, legend_columns, simplify

_IN_A_ROW = 3


def effects_figure(
    panels: Sequence[Mapping[str, Any]], contexts: Sequence[str], *, name: str
) -> Figure:
    """Plot one panel per measure: differences from the standard network with their intervals.

    Args:
        panels: each with `title` and `lines`, which have `label`, `style` and `points`: one per
            context, with `mean`, `low` and `high`, or None.
        contexts: their labels.
        name: of the varied keys.

    Returns:
        The figure.
    """
    columns = min(len(panels), _IN_A_ROW)
    rows = -(-len(panels) // columns)
    wide = 1.0 + max(2.6, 0.62 * len(contexts))
    figure = Figure(figsize=(wide * columns, 2.7 * rows + 0.8), layout="constrained")
    panel_axes = np.atleast_1d(np.asarray(figure.subplots(rows, columns, sharex=True))).ravel()
    for axes, panel in zip(panel_axes, panels, strict=False):
        count = len(panel["lines"])
        for number, line in enumerate(panel["lines"]):
            style: Style = line["style"]
            shift = 0.12 * (number - (count - 1) / 2)
            known = [
                (x + shift, point)
                for x, point in enumerate(line["points"])
                if point and point["mean"] is not None
            ]
            x = [position for position, _ in known]
            axes.plot(
                x, [point["mean"] for _, point in known], color=style.color, ls=style.dash, lw=1.2
            )
            for position, point in known:
                if point["low"] is not None and point["high"] is not None:
                    axes.vlines(position, point["low"], point["high"], color=style.color, lw=1.8)
            means = [point["mean"] for _, point in known]
            axes.plot(
                x,
                means,
                style.marker,
                color=style.color,
                ms=7,
                mec="white",
                mew=0.7,
                label=line["label"],
            )
        axes.axhline(0, color="0.5", lw=0.9, ls=":", zorder=0)
        axes.set_title(panel["title"], fontsize=9)
        labels = [wrapped(label, 10) for label in contexts]
        axes.set_xticks(range(len(contexts)), labels, fontsize=8)
        axes.set_xlim(-0.6, len(contexts) - 0.4)
        simplify(axes)
        axes.tick_params(axis="x", labelbottom=True)
    for axes in panel_axes[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(name, fontsize=9)
    handles, labels = panel_axes[0].get_legend_handles_labels()
    columns = legend_columns(labels, 40 * columns)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    return figure
