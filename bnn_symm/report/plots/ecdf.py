"""Plot differences of the ECDFs of ranks from uniform, with their simultaneous band."""

from pathlib import Path

import numpy as np

from bnn_symm.diagnostics.simulation.sbc import SbcResult
from bnn_symm.diagnostics.statistics.ecdf_bands import EcdfBand
from bnn_symm.formatting import percent
from bnn_symm.report.plots.axes import BLUE, RED, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_MOST_PANELS = 12
# Inside and outside the band, distinguishable by lightness, dash and width.
_INSIDE = {"color": BLUE, "ls": "-", "lw": 1.3}
_OUTSIDE = {"color": RED, "ls": (0, (4, 1)), "lw": 1.9}


def plot_ecdf_differences(result: SbcResult, band: EcdfBand, path: Path, *, title: str) -> None:
    """Plot one panel per quantity, at most twelve, the smallest p-value first.

    Args:
        result: of the check.
        band: its band.
        path: of the PNG.
        title: of the figure.
    """
    points = np.concatenate([[0.0], band.points, [1.0]])
    lower, upper = (
        np.concatenate([[0.0], edge, [1.0]]) - points for edge in (band.lower, band.upper)
    )
    shown = result.worst_first[:_MOST_PANELS]
    left_out = len(result.quantities) - len(shown)
    more = f"; {left_out} more with larger p are not shown" if left_out else ""
    band_text = f"gray: simultaneous {percent(1 - result.level)} band of a correct inference"
    figure, every = panels(
        len(shown),
        (2.5, 1.75),
        (0.5, 1.1),
        columns=4,
        title=f"{title}\n{band_text}{more}",
        sharex=True,
        sharey=True,
    )
    for axes, own in zip(every, shown, strict=True):
        (ranked,) = with_gaps(axes, result.values[:, result.names.index(own.name)])
        ranked = np.sort(ranked[~np.isnan(ranked)])
        # Both sides of every step.
        position = np.concatenate([[0.0], np.repeat(ranked, 2), [1.0]])
        height = np.repeat(np.arange(len(ranked) + 1) / max(1, len(ranked)), 2)
        inside = own.shape == "calibrated"
        axes.fill_between(points, lower, upper, color="0.85", ec="0.6", lw=0.6)
        axes.axhline(0, color="0.5", lw=0.7, ls=":")
        axes.plot(position, height - position, **(_INSIDE if inside else _OUTSIDE))
        weight = "normal" if inside else "bold"
        axes.set_title(f"{own.name}\n{own.shape}", fontsize=8, fontweight=weight)
    figure.supxlabel("randomized rank of the true value, 0 to 1", fontsize=8)
    figure.supylabel("ECDF minus uniform", fontsize=8)
    save_png(figure, path)
