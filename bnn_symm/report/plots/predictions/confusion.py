"""Plot a confusion matrix: how often each class was predicted as each other one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.axes import panels, wrapped
from bnn_symm.report.plots.comparisons.matrices import draw_cells

# The largest numbers of classes whose counts, and whose names, fit into the figure.
_WITH_COUNTS, _WITH_NAMES = 12, 30


def confusion_figure(counts: np.ndarray, labels: Sequence[str]) -> Figure:
    """Plot the matrix.

    Args:
        counts: number of points, (true class, predicted class).
        labels: of the classes.

    Returns:
        The figure.
    """
    side = min(1.2 + 0.36 * len(labels), 6.0)
    figure, (axes,) = panels(1, (max(side, 2.6), max(side, 2.4)))
    draw_confusion(axes, counts, labels)
    return figure


def draw_confusion(axes: Axes, counts: np.ndarray, labels: Sequence[str]) -> None:
    """Draw the matrix, shaded by the share of each true class.

    Args:
        axes: the panel.
        counts: number of points, (true class, predicted class).
        labels: of the classes.
    """
    size = len(labels)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    draw_cells(axes, shares, vmin=0, vmax=1, cmap="Blues")
    if size <= _WITH_COUNTS:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{count:,}", ha="center", va="center", fontsize=7, color=color)
    names = [wrapped(label, 12) for label in labels]
    ticks = range(size) if size <= _WITH_NAMES else range(0, size, -(-size // _WITH_NAMES))
    shown = [names[i] for i in ticks]
    turn = 90 if max(map(len, shown)) > 4 else 0
    axes.set_xticks(list(ticks), shown, fontsize=7, rotation=turn)
    axes.set_yticks(list(ticks), shown, fontsize=7)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
