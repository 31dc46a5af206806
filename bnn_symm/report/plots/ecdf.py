"""Plot differences of the ECDFs of ranks from uniform, with their simultaneous band."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bnn_symm.formatting import percent
from bnn_symm.report.plots.axes import BLUE, RED, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_MOST_PANELS = 12
# Inside and outside the band, distinguishable by lightness, dash and width.
_INSIDE = {"color": BLUE, "ls": "-", "lw": 1.3}
_OUTSIDE = {"color": RED, "ls": (0, (4, 1)), "lw": 1.9}


def plot_ecdf_differences(content: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot one panel per quantity, at most twelve, the smallest p-value first.

    Args:
        content: of `sbc.json`, with a band.
        path: of the PNG.
        title: of the figure.
    """
    band, names = content["band"], content["names"]
    points = np.concatenate([[0.0], band["points"], [1.0]])
    lower, upper = (
        np.concatenate([[0.0], band[edge], [1.0]]) - points for edge in ("lower", "upper")
    )
    shown = sorted(content["quantities"], key=lambda own: own["p_value"])[:_MOST_PANELS]
    left_out = len(content["quantities"]) - len(shown)
    more = f"; {left_out} more with larger p are not shown" if left_out else ""
    band_text = f"gray: simultaneous {percent(1 - content['level'])} band of a correct inference"
    figure, every = panels(
        len(shown),
        (2.5, 1.75),
        (0.5, 1.1),
        columns=4,
        title=f"{title}\n{band_text}{more}",
        sharex=True,
        sharey=True,
    )
    values = np.asarray(content["values"], dtype=float)
    for axes, own in zip(every, shown, strict=True):
        (ranked,) = with_gaps(axes, values[:, names.index(own["name"])])
        ranked = np.sort(ranked[~np.isnan(ranked)])
        # Both sides of every step.
        position = np.concatenate([[0.0], np.repeat(ranked, 2), [1.0]])
        height = np.repeat(np.arange(len(ranked) + 1) / max(1, len(ranked)), 2)
        inside = own["shape"] == "calibrated"
        axes.fill_between(points, lower, upper, color="0.85", ec="0.6", lw=0.6)
        axes.axhline(0, color="0.5", lw=0.7, ls=":")
        axes.plot(position, height - position, **(_INSIDE if inside else _OUTSIDE))
        weight = "normal" if inside else "bold"
        axes.set_title(f"{own['name']}\n{own['shape']}", fontsize=8, fontweight=weight)
    figure.supxlabel("randomized rank of the true value, 0 to 1", fontsize=8)
    figure.supylabel("ECDF minus uniform", fontsize=8)
    save_png(figure, path)
