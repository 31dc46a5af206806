"""Plot the gains of settings over the standard network of their context, better to the right."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import label_rows, panels, wrapped
from bnn_symm.report.plots.studies.styles import Style, draw_estimates

# Maximum numbers of characters of a label and of a title in one line.
_WRAP, _TITLE = 24, 30


def gains_figure(
    measures: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    styles: Sequence[Style],
    *,
    columns: int = 3,
) -> Figure:
    """Plot one panel per measure and one row per setting.

    Args:
        measures: each with `title`, `verdict`, `unit` and `gains`: `mean`, `low` and `high` of each
            setting, or None.
        labels: of the settings.
        styles: of the settings.
        columns: maximum number of panels in a row.

    Returns:
        The figure.
    """
    lines = [wrapped(label, _WRAP) for label in labels]
    height = 1.0 + sum(0.14 + 0.2 * (line.count("\n") + 1) for line in lines)
    extra = (1.6, 0.0)
    width = 2.6 if columns > 1 else 2.9
    figure, every = panels(len(measures), (width, height), extra, columns=columns, sharey=True)
    for axes, measure in zip(every, measures, strict=True):
        for place, (gain, style) in enumerate(zip(measure["gains"], styles, strict=True)):
            draw_estimates(axes, [place], [gain], style, along="y")
        axes.axvline(0, color="0.5", lw=0.9, ls=":", zorder=0)
        axes.set_title(f"{wrapped(measure['title'], _TITLE)}\n{measure['verdict']}", fontsize=9)
        axes.set_xlabel(f"worse  |  better by, {measure['unit']}", fontsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.margins(x=0.12)
        axes.grid(axis="y", color="0.93", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    label_rows(every[0], lines)
    return figure
