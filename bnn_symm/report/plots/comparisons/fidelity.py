"""Plot the distances of all methods to a reference, with intervals and the floor."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.report.plots.axes import BLUE, finite, label_rows, legend_below, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

# Letters of a line below a panel.
_LINE = 24


def plot_fidelity(content: Mapping[str, Any], path: Path) -> None:
    """Plot one panel per measure: each method with its interval over points, nearest first.

    Args:
        content: of `fidelity.json`.
        path: of the PNG.
    """
    methods, floor = content["methods"], content["floor"]
    measures = [name for name, own in methods[0]["values"].items() if own["value"] is not None]
    height = 1.0 + 0.3 * len(methods)
    figure, every = panels(len(measures), (2.6, height), (1.0, 0.4), sharey=True)
    rows = range(len(methods))
    for axes, name in zip(every, measures, strict=True):
        scores = [own["values"][name] for own in methods]
        (values,) = with_gaps(axes, [own["value"] for own in scores])
        low, high = (finite([own[end] for own in scores]) for end in ("low", "high"))
        # A percentile interval may leave the value out.
        ends = np.maximum([values - low, high - values], 0.0)
        axes.errorbar(values, rows, xerr=ends, fmt="o", color=BLUE, ms=4, lw=1.2)
        if floor is not None and floor[name]["value"] is not None:
            label = "two halves of the reference"
            axes.axvline(floor[name]["value"], color="0.5", ls=":", lw=1.2, label=label)
        axes.set_xlabel(textwrap.fill(measure_of(name).title, _LINE), fontsize=8)
    label_rows(every[0], [own["label"] for own in methods])
    legend_below(figure)
    save_png(figure, path)
