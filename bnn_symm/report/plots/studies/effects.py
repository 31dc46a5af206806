"""What an asymmetric network has against the standard one, context by context: the overview of a
large study.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import Style, bare, columns_of

_IN_A_ROW = 3


def effects_figure(
    panels: Sequence[Mapping[str, Any]], places: Sequence[str], *, name: str
) -> Figure:
    """One panel a measure: differences to the standard network against what varies, with their
    intervals.

    Args:
        panels: each with `title`, and `lines`: `label`, `style` and `points`, one a place: `mean`,
            `low`, `high` or None.
        places: of the contexts, in words.
        name: of what varies.
    """
    columns = min(len(panels), _IN_A_ROW)
    rows = -(-len(panels) // columns)
    wide = 1.0 + max(2.6, 0.62 * len(places))
    figure = Figure(figsize=(wide * columns, 2.7 * rows + 0.8), layout="constrained")
    every = np.atleast_1d(np.asarray(figure.subplots(rows, columns, sharex=True))).ravel()
    for axes, panel in zip(every, panels, strict=False):
        count = len(panel["lines"])
        for number, line in enumerate(panel["lines"]):
            style: Style = line["style"]
            shift = 0.12 * (number - (count - 1) / 2)
            known = [
                (x + shift, point)
                for x, point in enumerate(line["points"])
                if point and point["mean"] is not None
            ]
            x = [place for place, _ in known]
            axes.plot(
                x, [point["mean"] for _, point in known], color=style.color, ls=style.dash, lw=1.2
            )
            for place, point in known:
                if point["low"] is not None and point["high"] is not None:
                    axes.vlines(place, point["low"], point["high"], color=style.color, lw=1.8)
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
        axes.set_xticks(range(len(places)), [wrapped(place, 10) for place in places], fontsize=8)
        axes.set_xlim(-0.6, len(places) - 0.4)
        bare(axes)
        axes.tick_params(axis="x", labelbottom=True)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(name, fontsize=9)
    handles, labels = every[0].get_legend_handles_labels()
    columns = columns_of(labels, 40 * columns)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )
    return figure
