"""Picture of the loss along straight lines: from initial values to fits, and between fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

# Told apart in gray and by the color-blind; more lines than these begin anew, with their names in
# the legend.
_COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#e08214", "0.3")
_DASHES = {"test": "-", "train": "--"}


def plot_line_shapes(
    lines: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path, *, title: str
) -> None:
    """NLL against alpha, one color a line, the training part dashed, and the chord of the test part
    dotted.

    Args:
        lines: what a line is -> `test` and `train` -> `diagnostics.line_shape` as plain data.
        path: of the PNG.
        title: of the picture.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, shapes) in enumerate(lines.items()):
        color = _COLOURS[number % len(_COLOURS)]
        for part, shape in shapes.items():
            label = f"{name}, {part}: {'monotone' if shape['is_monotone'] else 'not monotone'}"
            axes.plot(
                shape["alpha"], shape["loss"], _DASHES[part], color=color, lw=1.6, label=label
            )
        ends = shapes["test"]["loss"]
        axes.plot([0, 1], [ends[0], ends[-1]], ":", color=color, lw=1.0)
    axes.set_xlabel("alpha, from the first point of a line to the second")
    axes.set_ylabel("NLL of the point, nats a point")
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7, frameon=False)
    save_png(figure, path)
