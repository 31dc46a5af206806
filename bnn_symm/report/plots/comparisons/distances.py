"""Plot distances of posteriors to a reference: unaligned, randomly permuted and aligned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

_BARS = (
    ("distance_random", "random permutation", "0.85", "//"),
    ("distance_before", "unaligned", "#92c5de", ""),
    ("distance_after", "aligned", "#053061", ""),
)


def plot_distances(
    alignments: Sequence[Mapping[str, Any]], labels: Sequence[str], path: Path
) -> None:
    """Plot the distances as one group of bars per run.

    Args:
        alignments: as `alignment.json` contains them.
        labels: of the runs.
        path: of the PNG.
    """
    figure = Figure(figsize=(3.2 + 0.9 * len(labels), 3.4), layout="constrained")
    axes = figure.subplots()
    position = np.arange(len(labels))
    for number, (key, label, color, hatch) in enumerate(_BARS):
        height = [alignment[key] for alignment in alignments]
        axes.bar(
            position + 0.27 * (number - 1),
            height,
            0.26,
            color=color,
            hatch=hatch,
            edgecolor="0.3",
            lw=0.5,
            label=label,
        )
    axes.set_xticks(position, labels, fontsize=8)
    axes.set_ylabel("squared distance to the reference")
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylim(
        0, 1.35 * max(max(alignment[key] for key, *_ in _BARS) for alignment in alignments)
    )
    save_png(figure, path)
