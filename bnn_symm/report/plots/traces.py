"""Plot traces and rank histograms of raw weights, aligned weights and functions.

Rank histograms (Vehtari et al. 2021, doi:10.1214/20-BA1221) show the ranks of the draws of a chain
among all draws. They are flat if the chains mix.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from bnn_symm.report.plots.axes import legend_below, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_BINS = 20
# Neighboring chains differ in grayscale.
_COLORS = ("#053061", "#d6604d", "#4393c3", "#67001f", "#92c5de", "#f4a582", "#2166ac", "#b2182b")
_DASHES = ("-", "--", "-.", ":")


def plot_traces(quantities: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Plot one row per quantity: its trace on the left, its rank histogram on the right.

    Args:
        quantities: each with `title` and `values`, (chain, draw).
        path: of the PNG.
        title: of the figure.
    """
    figure, every = panels(
        2 * len(quantities), (4.5, 1.75), (0.0, 1.0), columns=2, title=title, width_ratios=[2.2, 1]
    )
    for left, right, own in zip(every[::2], every[1::2], quantities, strict=True):
        (values,) = with_gaps(left, np.asarray(own["values"], dtype=float))
        chains, draws = values.shape
        ranks = scipy.stats.rankdata(values, nan_policy="omit").reshape(values.shape)
        edges = np.linspace(0.5, values.size + 0.5, min(_BINS, max(2, draws // 5)) + 1)
        for chain in range(chains):
            style: dict[str, Any] = {
                "color": _COLORS[chain % len(_COLORS)],
                "ls": _DASHES[chain % len(_DASHES)],
            }
            left.plot(values[chain], lw=0.6, alpha=0.85, label=f"chain {chain}", **style)
            height, _ = np.histogram(ranks[chain], edges)
            right.stairs(height, edges, lw=1.2, **style)
        right.axhline(draws / (len(edges) - 1), color="0.3", lw=0.8, ls=":")
        right.set_ylim(bottom=0)
        right.set_yticks([])
        left.set_title(own["title"], fontsize=8, loc="left")
    every[-2].set_xlabel("draw", fontsize=8)
    every[-1].set_xlabel("rank among all draws", fontsize=8)
    legend_below(figure, most=8, fontsize=7)
    save_png(figure, path)
