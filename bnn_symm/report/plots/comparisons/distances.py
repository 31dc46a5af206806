"""Plot distances of posteriors to a reference: unaligned, randomly permuted and aligned."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnn_symm.analyses.alignment import RunAlignment
from bnn_symm.report.plots.axes import panels, set_limits, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_BARS = {
    "distance_random": ("random permutation", "0.85", "//"),
    "distance_before": ("unaligned", "#92c5de", ""),
    "distance_after": ("aligned", "#053061", ""),
}


def plot_distances(alignments: Sequence[RunAlignment], labels: Sequence[str], path: Path) -> None:
    """Plot the distances as one group of bars per run.

    Args:
        alignments: of the runs.
        labels: of the runs.
        path: of the PNG.
    """
    figure, (axes,) = panels(1, (0.9 * len(labels), 3.4), (3.2, 0.0))
    position = np.arange(len(labels))
    heights = with_gaps(
        axes, *([getattr(own.alignment, key) for own in alignments] for key in _BARS)
    )
    for number, (height, (label, color, hatch)) in enumerate(
        zip(heights, _BARS.values(), strict=True)
    ):
        style = {"color": color, "hatch": hatch, "edgecolor": "0.3", "lw": 0.5}
        axes.bar(position + 0.27 * (number - 1), height, 0.26, label=label, **style)
    axes.set_xticks(position, labels, fontsize=8)
    axes.set_ylabel("squared distance to the reference")
    axes.legend(fontsize=8, frameon=False)
    set_limits(axes, "y", [0.0], *heights, below=0.0, above=0.35)
    save_png(figure, path)
