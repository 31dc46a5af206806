"""Plot the heights of the barriers between all pairs of posteriors as matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import finite, panels, wrapped

# Matrices per row, and the largest number of posteriors for which numbers fit into the cells.
_IN_A_ROW, _WITH_NUMBERS = 4, 10


def barrier_matrix_figure(matrices: Sequence[Mapping[str, Any]], *, name: str = "seed") -> Figure:
    """Plot one matrix per setting: naive heights above the diagonal, aligned heights below it.

    Args:
        matrices: each with `label`, `seeds`, possibly other `names` of them, and `naive` and
            `aligned` as (first seed, second seed, height).
        name: of the rows and columns.

    Returns:
        The figure.
    """
    most = max(len(own["seeds"]) for own in matrices)
    side = 0.9 + min(max(0.36 * most, 1.3), 4.0)
    figure, every = panels(
        len(matrices),
        (side, side + 0.3),
        (1.0, 0.5),
        columns=_IN_A_ROW,
        title="naive above the diagonal, aligned below it",
    )
    values = [_matrix(own) for own in matrices]
    norm = Normalize(0, max([1e-9, *(float(own[~np.isnan(own)].max(initial=0)) for own in values)]))
    for axes, own, heights in zip(every, matrices, values, strict=True):
        _draw(axes, heights, own.get("names", own["seeds"]), norm)
        axes.set_xlabel(name, fontsize=7)
        axes.set_title(wrapped(own["label"], 24), fontsize=8)
    image = ScalarMappable(norm, "cividis")
    bar = figure.colorbar(image, ax=every, label="barrier, nats per point", shrink=0.8, aspect=25)
    if bar.solids is not None:
        bar.solids.set_rasterized(False)  # colors of pixels would not follow those of the page
    return figure


def _matrix(matrix: Mapping[str, Any]) -> np.ndarray:
    index = {seed: number for number, seed in enumerate(matrix["seeds"])}
    values = np.full((len(index), len(index)), np.nan)
    for way in ("naive", "aligned"):
        for first, second, height in matrix[way]:
            i, j = sorted((index[first], index[second]))
            values[(i, j) if way == "naive" else (j, i)] = finite([height])[0]
    return values


def _draw(axes: Axes, values: np.ndarray, names: Sequence[Any], norm: Normalize) -> None:
    draw_cells(axes, values, norm=norm, cmap="cividis")
    count = len(names)
    if count <= _WITH_NUMBERS:
        size = 8 if count <= 6 else 6
        for (i, j), value in np.ndenumerate(values):
            if not math.isnan(value):
                color = "black" if norm(value) > 0.5 else "white"
                axes.text(
                    j, i, number(value, 2), ha="center", va="center", fontsize=size, color=color
                )
    axes.plot([-0.5, count - 0.5], [-0.5, count - 0.5], color="0.75", lw=0.8)
    labels = [wrapped(str(name), 12) for name in names]
    axes.set_xticks(range(count), labels, fontsize=7)
    axes.set_yticks(range(count), labels, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_cells(axes: Axes, values: np.ndarray, **colors: Any) -> None:
    """Draw a matrix as squares, first row on top; as paths, whose colors follow those of a page.

    Args:
        axes: the panel.
        values: of the matrix; NaN is not drawn.
        colors: of `pcolormesh`.
    """
    rows, columns = values.shape
    edges = (np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5)
    axes.pcolormesh(*edges, np.ma.masked_invalid(values), edgecolors="face", lw=0.2, **colors)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
