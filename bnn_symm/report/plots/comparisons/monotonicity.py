"""Plot the loss along straight lines: from initial values to fits, and between fits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.report.plots.axes import BLUE, RED, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

# Distinguishable in grayscale and with color blindness; further lines repeat the colors.
_COLORS = (BLUE, RED, "#4d9221", "#762a83", "#e08214", "0.3")
_DASHES = {"test": "-", "train": "--"}


def plot_line_shapes(
    lines: Mapping[str, Mapping[str, LineShape]], path: Path, *, title: str
) -> None:
    """Plot the NLL over alpha, with one color per line and the chord of the test split dotted.

    Args:
        lines: shapes of the lines on the parts `test` and `train`, by name.
        path: of the PNG.
        title: of the figure.
    """
    figure, (axes,) = panels(1, (6.4, 3.8), title=title)
    drawn = [
        (number, f"{name}, {part}", part, shape)
        for number, (name, shapes) in enumerate(lines.items())
        for part, shape in shapes.items()
    ]
    losses = with_gaps(axes, *(shape.loss for *_, shape in drawn))
    for (number, name, part, shape), loss in zip(drawn, losses, strict=True):
        style: dict[str, Any] = {"color": _COLORS[number % len(_COLORS)]}
        label = f"{name}: {'monotone' if shape.is_monotone else 'not monotone'}"
        axes.plot(shape.alpha, loss, _DASHES[part], lw=1.6, label=label, **style)
        if part == "test":
            axes.plot([0, 1], loss[[0, -1]], ":", lw=1.0, **style)
    axes.set_xlabel("alpha, from the first point of a line to the second")
    axes.set_ylabel("NLL of the weights, nats per point")
    axes.set_xlim(0, 1)
    axes.legend(fontsize=7, frameon=False)
    save_png(figure, path)
