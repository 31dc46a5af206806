"""Plot the scores of a merged posterior, the naive merge, the ensemble and the parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png


def plot_merge(scores: Mapping[str, Mapping[str, Any] | None], path: Path) -> None:
    """Plot the test NLL of each as a bar with its value.

    Args:
        scores: on the test split, of `merged`, `naive`, `ensemble`, `parts`; each may be None.
        path: of the PNG.
    """
    shown = {name: own["nll"] for name, own in scores.items() if own is not None}
    figure, (axes,) = panels(1, (4.6, 2.6))
    (heights,) = with_gaps(axes, shown.values())
    bars = axes.barh(list(shown), heights, color="#92c5de", edgecolor="0.3", lw=0.5)
    labels = ["" if np.isnan(height) else number(height) for height in heights]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("marginal test NLL, nats per point")
    save_png(figure, path)
