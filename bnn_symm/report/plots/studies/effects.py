"""Plot the gains of asymmetric networks over the standard network, over the contexts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import legend_below, panels, wrapped
from bnn_symm.report.plots.studies.styles import Style, draw_estimates

_IN_A_ROW = 3


def effects_figure(
    measures: Sequence[Mapping[str, Any]],
    contexts: Sequence[str],
    *,
    name: str,
    columns: int = _IN_A_ROW,
) -> Figure:
    """Plot one panel per measure: gains over the standard network with their intervals.

    Args:
        measures: each with `title`, `unit` of its gains, and `lines`, which have `label`, `style`
            and `points`: one per context, with `mean`, `low` and `high`, or None.
        contexts: their labels.
        name: of the varied keys.
        columns: maximum number of panels in a row.

    Returns:
        The figure.
    """
    wide = 1.0 + max(2.6, 0.62 * len(contexts))
    figure, every = panels(len(measures), (wide, 2.7), (0.0, 0.8), columns=columns, sharex=True)
    for axes, measure in zip(every, measures, strict=True):
        count = len(measure["lines"])
        for number, line in enumerate(measure["lines"]):
            style: Style = line["style"]
            x = np.arange(len(contexts)) + 0.12 * (number - (count - 1) / 2)
            means = draw_estimates(axes, x, line["points"], style, along="x", label=line["label"])
            known = ~np.isnan(means)
            axes.plot(x[known], means[known], color=style.color, ls=style.dash, lw=1.2, zorder=1)
        axes.axhline(0, color="0.5", lw=0.9, ls=":", zorder=0)
        axes.set_title(wrapped(measure["title"], 36), fontsize=9)
        axes.set_ylabel(measure["unit"], fontsize=8)
        labels = [wrapped(label, 10) for label in contexts]
        axes.set_xticks(range(len(contexts)), labels, fontsize=8)
        axes.set_xlim(-0.6, len(contexts) - 0.4)
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel(name, fontsize=9)
    legend_below(figure, width=40 * min(len(measures), columns))
    return figure
