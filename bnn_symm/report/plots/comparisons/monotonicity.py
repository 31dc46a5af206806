"""Plot the loss along straight lines: from initial values to fits, and between fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

# Distinguishable in grayscale and with color blindness; further lines repeat the colors.
_COLORS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "0.3")
_DASHES = {"test": "-", "train": "--"}


def plot_line_shapes(
    lines: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path, *, title: str
) -> None:
    """Plot the NLL over alpha, with one color per line and the chord of the test split dotted.

    Args:
        lines: shapes of the lines on the parts `test` and `train` as plain data, by name.
        path: of the PNG.
        title: of the figure.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, shapes) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        for part, shape in shapes.items():
            label = f"{name}, {part}: {'monotone' if shape['is_monotone'] else 'not monotone'}"
            axes.plot(
                shape["alpha"], shape["loss"], _DASHES[part], color=color, lw=1.6, label=label
            )
        ends = shapes["test"]["loss"]
        axes.plot([0, 1], [ends[0], ends[-1]], ":", color=color, lw=1.0)
    axes.set_xlabel("alpha, from the first point of a line to the second")
    axes.set_ylabel("NLL of the weights, nats per point")
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7, frameon=False)
    save_png(figure, path)
