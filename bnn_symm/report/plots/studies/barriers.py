"""Plot the barriers of a study: mean curves over pairs of seeds, and the heights of all pairs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import Style, legend_columns, simplify

# Matrices per row, and the largest number of seeds for which numbers fit into the cells.
_IN_A_ROW, _WITH_NUMBERS = 4, 10


def barrier_curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any] | None]],
    labels: Sequence[str],
    styles: Sequence[Style],
) -> Figure:
    """Plot the marginal test NLL above the chord along naive and aligned paths.

    Args:
        curves: `naive` and possibly `aligned`: for each setting `tau`, and `mean`, `low` and `high`
            over pairs; None for a setting without pairs.
        labels: of the settings.
        styles: of the settings.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(1.2 + 4.0 * len(curves), 4.0), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(curves), sharey=True)))
    titles = {"naive": "naive, unaligned", "aligned": "aligned over permutations"}
    for axes, (way, every) in zip(panels, curves.items(), strict=True):
        for own, label, style in zip(every, labels, styles, strict=True):
            if own is None:
                continue
            axes.fill_between(
                own["tau"], own["low"], own["high"], color=style.color, alpha=0.13, lw=0
            )
            axes.plot(
                own["tau"], own["mean"], color=style.color, ls=style.dash, lw=1.8, label=label
            )
            axes.plot(
                own["tau"][::5],
                own["mean"][::5],
                style.marker,
                color=style.color,
                ms=5,
                mec="white",
                mew=0.5,
            )
        axes.axhline(0, color="0.5", lw=0.8, zorder=0)
        axes.set_xlim(0, 1)
        axes.set_xlabel("tau, from one fit to another")
        axes.set_title(titles[way], fontsize=10)
        simplify(axes)
    panels[0].set_ylabel("test NLL above the chord, nats per point")
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    columns = legend_columns(list(handles), 110)
    figure.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )
    return figure


def barrier_matrix_figure(matrices: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot one matrix per setting: naive heights above the diagonal, aligned heights below it.

    Args:
        matrices: each with `label`, `seeds`, and `naive` and `aligned` as (first seed, second seed,
            height).

    Returns:
        The figure.
    """
    rows = math.ceil(len(matrices) / _IN_A_ROW)
    columns = math.ceil(len(matrices) / rows)
    most = max(len(own["seeds"]) for own in matrices)
    side = 0.9 + min(max(0.36 * most, 1.3), 4.0)
    figure = Figure(figsize=(side * columns + 1.0, (side + 0.3) * rows + 0.5), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(rows, columns))).ravel()
    top = max(
        [height for own in matrices for way in ("naive", "aligned") for *_, height in own[way]],
        default=0.0,
    )
    norm = Normalize(0, max(top, 1e-9))
    for axes, own in zip(panels, matrices, strict=False):
        _matrix(axes, own, norm)
    for axes in panels[len(matrices) :]:
        axes.set_axis_off()
    image = ScalarMappable(norm, "cividis")
    figure.colorbar(image, ax=list(panels), label="barrier, nats per point", shrink=0.8, aspect=25)
    figure.suptitle("naive above the diagonal, aligned below it", fontsize=9)
    return figure


def _matrix(axes: Axes, matrix: Mapping[str, Any], norm: Normalize) -> None:
    index = {seed: number for number, seed in enumerate(matrix["seeds"])}
    values = np.full((len(index), len(index)), np.nan)
    for way in ("naive", "aligned"):
        for first, second, height in matrix[way]:
            i, j = sorted((index[first], index[second]))
            values[(i, j) if way == "naive" else (j, i)] = height
    axes.imshow(values, norm=norm, cmap="cividis")
    if len(index) <= _WITH_NUMBERS:
        size = 8 if len(index) <= 6 else 6
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                color = "black" if norm(value) > 0.5 else "white"
                axes.text(j, i, _short(value), ha="center", va="center", fontsize=size, color=color)
    axes.plot([-0.5, len(index) - 0.5], [-0.5, len(index) - 0.5], color="0.75", lw=0.8)
    axes.set_xticks(range(len(index)), [str(seed) for seed in index], fontsize=7)
    axes.set_yticks(range(len(index)), [str(seed) for seed in index], fontsize=7)
    axes.set_xlabel("seed", fontsize=7)
    axes.set_title(wrapped(matrix["label"], 24), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}"
