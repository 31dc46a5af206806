"""Barriers of a study: mean curves over pairs of seeds, naive beside aligned, and the heights of
all pairs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from bnn_symm.report.plots.studies.measures import wrapped
from bnn_symm.report.plots.studies.styles import Style, bare, columns_of

# Settings in a row of matrices; seeds above which numbers no longer fit into cells.
_IN_A_ROW, _WITH_NUMBERS = 4, 10


def barrier_curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Any] | None]],
    labels: Sequence[str],
    styles: Sequence[Style],
) -> Figure:
    """Marginal test NLL above the chord along the path: a panel of naive paths, and one of aligned
    ones.

    Args:
        curves: `naive`, and `aligned` where there are any -> by setting `tau` and `mean`, `low`,
            `high` over pairs; None of a setting without pairs.
        labels: of the settings.
        styles: of the settings.
    """
    figure = Figure(figsize=(1.2 + 4.0 * len(curves), 4.0), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(curves), sharey=True)))
    words = {"naive": "naive, as fitted", "aligned": "aligned over permutations"}
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
        axes.set_title(words[way], fontsize=10)
        bare(axes)
    panels[0].set_ylabel("test NLL above the chord, nats a point")
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    columns = columns_of(list(handles), 110)
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
    """One matrix a setting, on one scale: above the diagonal naive heights, below it aligned ones.

    Args:
        matrices: each with `label`, `seeds`, and `naive` and `aligned`, (first seed, second seed,
            height).
    """
    rows = math.ceil(len(matrices) / _IN_A_ROW)
    columns = math.ceil(len(matrices) / rows)  # as even as can be
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
    figure.colorbar(image, ax=list(panels), label="barrier, nats a point", shrink=0.8, aspect=25)
    figure.suptitle("above the diagonal naive, below it aligned", fontsize=9)
    return figure


def _matrix(axes: Axes, own: Mapping[str, Any], norm: Normalize) -> None:
    place = {seed: number for number, seed in enumerate(own["seeds"])}
    values = np.full((len(place), len(place)), np.nan)
    for way in ("naive", "aligned"):
        for first, second, height in own[way]:
            i, j = sorted((place[first], place[second]))
            values[(i, j) if way == "naive" else (j, i)] = height
    axes.imshow(values, norm=norm, cmap="cividis")
    if len(place) <= _WITH_NUMBERS:
        size = 8 if len(place) <= 6 else 6
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                color = "black" if norm(value) > 0.5 else "white"
                axes.text(j, i, _short(value), ha="center", va="center", fontsize=size, color=color)
    axes.plot([-0.5, len(place) - 0.5], [-0.5, len(place) - 0.5], color="0.75", lw=0.8)
    axes.set_xticks(range(len(place)), [str(seed) for seed in place], fontsize=7)
    axes.set_yticks(range(len(place)), [str(seed) for seed in place], fontsize=7)
    axes.set_xlabel("seed", fontsize=7)
    axes.set_title(wrapped(own["label"], 24), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _short(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}"
