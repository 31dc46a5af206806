"""Plot R-hat in every view by layer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

# Distinguishable by lightness and marker.
_STYLES = {
    "raw": ("raw weights", "#b2182b", "X"),
    "aligned": ("aligned, one permutation per chain", "#2166ac", "o"),
    "aligned_per_draw": ("aligned, one permutation per draw", "#92c5de", "s"),
    "chainwise": ("within each chain", "0.55", "^"),
    "function": ("functions", "black", "D"),
}
# R-hat minus 1 is plotted on a logarithmic scale between these; infinite values are at the top.
_LEAST, _MOST = 1e-3, 1e3


def plot_rhat_views(mixing: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot the largest (marker) and the median (tick) R-hat of every layer and of functions.

    Args:
        mixing: of `describe_mixing`.
        path: of the PNG.
        title: of the figure.
    """
    layers = list(mixing["raw"]["by_layer"])
    kinds = {
        "outputs": "outputs",
        "points": "log likelihood\nof points",
        "log_likelihood": "log likelihood",
    }
    columns = [*layers, *kinds]
    figure = Figure(figsize=(max(6.4, 2.2 + 0.9 * len(columns)), 4.0), layout="constrained")
    axes = figure.subplots()
    weights = [
        name for name in _STYLES if name != "function" and (mixing.get(name) or {}).get("by_layer")
    ]
    every = []
    for number, name in enumerate(weights):
        label, color, marker = _STYLES[name]
        position = np.arange(len(layers)) + 0.16 * (number - (len(weights) - 1) / 2)
        own = [mixing[name]["by_layer"][layer] for layer in layers]
        every += _draw(axes, position, own, label, color, marker)
    label, color, marker = _STYLES["function"]
    position = len(layers) + np.arange(len(kinds))
    own = [mixing["function"]["by_kind"][kind] for kind in kinds]
    every += _draw(axes, position, own, label, color, marker)
    threshold = mixing["function"]["threshold"]
    axes.axhline(
        threshold - 1, color="0.3", ls="--", lw=1.0, label=f"threshold {threshold:.3g} of functions"
    )
    axes.axvline(len(layers) - 0.5, color="0.8", lw=0.8)
    axes.set_yscale("log")
    top = max([*every, threshold - 1, 0.1])
    axes.set_ylim(_LEAST, 2 * top)
    ticks = [tick for tick in (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3) if tick <= 2 * top]
    axes.set_yticks(ticks, labels=[f"{1 + tick:g}" for tick in ticks])
    axes.set_xticks(range(len(columns)), [*layers, *kinds.values()], fontsize=8)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylabel("R-hat: largest (marker), median (line)")
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=3)
    save_png(figure, path)


def _draw(
    axes: Any,
    position: np.ndarray,
    rows: list[Mapping[str, Any]],
    label: str,
    color: str,
    marker: str,
) -> list[float]:
    """Draw the defined values, and return them minus 1."""
    largest, median = (
        [np.nan if row[key] is None else min(max(row[key] - 1, _LEAST), _MOST) for row in rows]
        for key in ("rhat_max", "rhat_median")
    )
    style = {"color": color, "ms": 6, "mec": "white", "mew": 0.4, "clip_on": False}
    axes.plot(position, largest, marker, label=label, **style)
    axes.hlines(median, position - 0.06, position + 0.06, color=color, lw=1.6)
    axes.vlines(position, median, largest, color=color, lw=0.8, alpha=0.6)
    return [value for value in largest if not np.isnan(value)]
