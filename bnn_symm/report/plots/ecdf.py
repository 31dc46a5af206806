"""Plot differences of the ECDFs of ranks from uniform, with their simultaneous band."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

_MOST_PANELS = 12
_COLUMNS = 4
# Inside and outside the band, distinguishable by lightness, dash and width.
_INSIDE = {"color": "#2166ac", "ls": "-", "lw": 1.3}
_OUTSIDE = {"color": "#b2182b", "ls": (0, (4, 1)), "lw": 1.9}


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
    values = np.sort(np.asarray(content["values"], dtype=float), axis=0)
    rows = math.ceil(len(shown) / _COLUMNS)
    columns = math.ceil(len(shown) / rows)
    figure = Figure(figsize=(max(4.8, 2.5 * columns), 1.1 + 1.75 * rows), layout="constrained")
    panels = np.asarray(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    for axes, own in zip(panels.flat, shown, strict=False):
        ranked = values[:, names.index(own["name"])]
        # Both sides of every step.
        position = np.concatenate([[0.0], np.repeat(ranked, 2), [1.0]])
        height = np.repeat(np.arange(len(ranked) + 1) / len(ranked), 2)
        inside = own["shape"] == "calibrated"
        axes.fill_between(points, lower, upper, color="0.85", lw=0)
        axes.plot(points, lower, color="0.6", lw=0.6)
        axes.plot(points, upper, color="0.6", lw=0.6)
        axes.axhline(0, color="0.5", lw=0.7, ls=":")
        axes.plot(position, height - position, **(_INSIDE if inside else _OUTSIDE))
        weight = "normal" if inside else "bold"
        axes.set_title(f"{own['name']}\n{own['shape']}", fontsize=8, fontweight=weight)
        axes.tick_params(labelsize=7)
    for axes in panels.flat[len(shown) :]:
        axes.axis("off")
    figure.supxlabel("randomized rank of the true value, 0 to 1", fontsize=8)
    figure.supylabel("ECDF minus uniform", fontsize=8)
    left_out = len(content["quantities"]) - len(shown)
    more = f"; {left_out} more with larger p are not shown" if left_out else ""
    band_text = f"gray: simultaneous {1 - content['level']:.0%} band of a correct inference"
    figure.suptitle(f"{title}\n{band_text}{more}", fontsize=9)
    save_png(figure, path)
