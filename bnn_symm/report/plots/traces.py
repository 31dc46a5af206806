"""Plot traces and rank histograms of raw weights, aligned weights and functions.

Rank histograms (Vehtari et al. 2021, doi:10.1214/20-BA1221) show the ranks of the draws of a chain
among all draws. They are flat if the chains mix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from bnn_symm.report.plots.figures.png import save_png

_BINS = 20
# Neighboring chains differ in grayscale.
_COLORS = ("#053061", "#d6604d", "#4393c3", "#67001f", "#92c5de", "#f4a582", "#2166ac", "#b2182b")
_DASHES = ("-", "--", "-.", ":")


def plot_traces(panels: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Plot one row per quantity: its trace on the left, its rank histogram on the right.

    Args:
        panels: each with `title` and `values`, (chain, draw).
        path: of the PNG.
        title: of the figure.
    """
    figure = Figure(figsize=(9.0, 1.0 + 1.75 * len(panels)), layout="constrained")
    grid = np.atleast_2d(
        np.asarray(figure.subplots(len(panels), 2, width_ratios=[2.2, 1], squeeze=False))
    )
    for (left, right), panel in zip(grid, panels, strict=True):
        values = np.asarray(panel["values"], dtype=float)
        chains, draws = values.shape
        ranks = rankdata(values).reshape(values.shape)
        edges = np.linspace(0.5, values.size + 0.5, min(_BINS, max(2, draws // 5)) + 1)
        for chain in range(chains):
            style = {"color": _COLORS[chain % len(_COLORS)], "ls": _DASHES[chain % len(_DASHES)]}
            left.plot(values[chain], lw=0.6, alpha=0.85, label=f"chain {chain}", **style)
            height, _ = np.histogram(ranks[chain], edges)
            right.stairs(height, edges, lw=1.2, **style)
        right.axhline(draws / (len(edges) - 1), color="0.3", lw=0.8, ls=":")
        right.set_ylim(bottom=0)
        right.set_yticks([])
        left.set_title(panel["title"], fontsize=8, loc="left")
        for axes in (left, right):
            axes.tick_params(labelsize=7)
    grid[-1, 0].set_xlabel("draw", fontsize=8)
    grid[-1, 1].set_xlabel("rank among all draws", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    shown = min(len(handles), 8)
    figure.legend(
        handles[:shown],
        labels[:shown],
        loc="outside lower center",
        ncols=shown,
        fontsize=7,
        frameon=False,
    )
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)
