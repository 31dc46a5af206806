"""Plot the measures of settings: means over seeds with intervals, and the values of all seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import finite, label_rows, panels, with_gaps, wrapped
from bnn_symm.report.plots.studies.styles import Style, draw_estimates

# Maximum number of characters of a label in one line.
_WRAP = 30


def measures_figure(
    measures: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    styles: Sequence[Style],
    *,
    columns: int = 0,
) -> Figure:
    """Plot one panel per measure and one row per setting, with a line at the first mean.

    Args:
        measures: each with `title` and `rows`, one per setting: `mean`, `low`, `high` (each may be
            None) and `values`, one per seed.
        labels: of the settings.
        styles: of the settings.
        columns: maximum number of panels in a row; 0 for a single row.

    Returns:
        The figure.
    """
    lines = [wrapped(label, _WRAP) for label in labels]
    height = 1.1 + sum(0.16 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure, every = panels(len(measures), (2.5, height), (2.2, 0.0), columns=columns, sharey=True)
    for axes, measure in zip(every, measures, strict=True):
        for place, (row, style) in enumerate(zip(measure["rows"], styles, strict=True)):
            (values,) = with_gaps(axes, row["values"])
            # Seeds are drawn below their mean, so that both are visible.
            below = [place + 0.22] * len(values)
            axes.plot(values, below, "|", color=style.color, ms=6, mew=1.0, alpha=0.75)
            draw_estimates(axes, [place], [row], style, along="y")
        first = finite([row["mean"] for row in measure["rows"][:1]])
        axes.vlines(first, -1, len(lines), color="0.6", lw=0.9, ls=":", zorder=0)
        axes.set_xlabel(measure["title"], fontsize=9)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.12)
        axes.grid(axis="y", color="0.93", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    label_rows(every[0], lines)
    return figure
