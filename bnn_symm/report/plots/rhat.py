"""Plot R-hat in every view: by layer for a run, and by setting for a study."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.diagnostics.measures import VIEWS
from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import BLUE, RED, label_rows, legend_below, panels, wrapped
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.plots.studies.styles import Style, draw_estimates

# Distinguishable by lightness and marker.
_STYLES = {
    "raw": (RED, "X"),
    "aligned": (BLUE, "o"),
    "aligned_per_draw": ("#92c5de", "s"),
    "chainwise": ("0.55", "^"),
    "function": ("black", "D"),
}
_KINDS = {
    "outputs": "outputs",
    "points": "log likelihood\nof points",
    "log_likelihood": "log likelihood",
}
_ENDS = ("mean", "low", "high")
_STUDY_VIEWS = ("raw", "aligned", "function")
# R-hat minus 1 is plotted on a logarithmic scale between these; infinite values are at the top.
_LEAST, _MOST = 1e-3, 1e3
_TICKS = np.array([1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3])


def plot_rhat_views(mixing: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot the largest (marker) and the median (tick) R-hat of every layer and of functions.

    Args:
        mixing: of `describe_mixing`.
        path: of the PNG.
        title: of the figure.
    """
    number_of_columns = len(mixing["raw"]["by_layer"]) + len(_KINDS)
    figure, (axes,) = panels(1, (max(6.4, 2.2 + 0.9 * number_of_columns), 4.0), title=title)
    draw_rhat_views(axes, mixing)
    legend_below(figure, fontsize=7)
    save_png(figure, path)


def draw_rhat_views(axes: Axes, mixing: Mapping[str, Any]) -> None:
    """Draw the largest (marker) and the median (tick) R-hat of every layer and of functions.

    Args:
        axes: the panel.
        mixing: of `describe_mixing`.
    """
    layers = list(mixing["raw"]["by_layer"])
    columns = [*layers, *_KINDS.values()]
    weights = [
        name for name in _STYLES if name != "function" and (mixing.get(name) or {}).get("by_layer")
    ]
    threshold = mixing["function"]["threshold"]
    every = [threshold - 1]
    for place, name in enumerate(weights):
        position = np.arange(len(layers)) + 0.16 * (place - (len(weights) - 1) / 2)
        every += _view(axes, position, [mixing[name]["by_layer"][layer] for layer in layers], name)
    position = len(layers) + np.arange(len(_KINDS))
    every += _view(
        axes, position, [mixing["function"]["by_kind"][kind] for kind in _KINDS], "function"
    )
    label = f"threshold {number(threshold)} of functions"
    axes.axhline(threshold - 1, color="0.3", ls="--", lw=1.0, label=label)
    axes.axvline(len(layers) - 0.5, color="0.8", lw=0.8)
    _rhat_axis(axes, "y", _LEAST, 2 * max(0.1, np.nanmax(every)))
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_xlim(-0.6, len(columns) - 0.4)
    axes.set_ylabel("R-hat: largest (marker), median (line)")


def study_rhat_figure(measures: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Figure:
    """Plot R-hat of all views with intervals over seeds, one row per setting.

    Args:
        measures: each with `title`, and `raw`, `aligned` and `function`: for each setting `mean`,
            `low` and `high`, or None.
        labels: of the settings.

    Returns:
        The figure.
    """
    lines = [wrapped(label, 30) for label in labels]
    height = 1.5 + sum(0.2 + 0.2 * (line.count("\n") + 1) for line in lines)
    figure, every = panels(len(measures), (3.6, height), (2.4, 0.0), sharey=True)
    for axes, own in zip(every, measures, strict=True):
        seen = [0.01, 0.1]
        for place, view in enumerate(_STUDY_VIEWS):
            color, marker = _STYLES[view]
            estimates = [_plotted(row or {}) for row in own[view]]
            draw_estimates(
                axes,
                np.arange(len(labels)) + 0.2 * (place - 1),
                estimates,
                Style(color=color, dash="-", marker=marker),
                along="y",
                label=VIEWS[view],
            )
            seen += [value for estimate in estimates for value in estimate.values()]
        _rhat_axis(axes, "x", np.nanmin(seen) / 2, 2 * np.nanmax(seen))
        axes.set_xlabel(own["title"], fontsize=9)
        axes.grid(axis="x", color="0.93", lw=0.6)
        axes.tick_params(axis="y", length=0)
        for row in range(1, len(labels)):
            axes.axhline(row - 0.5, color="0.9", lw=0.6)
    label_rows(every[0], lines)
    legend_below(figure)
    return figure


def _view(
    axes: Axes, position: np.ndarray, rows: Sequence[Mapping[str, Any]], view: str
) -> list[float]:
    """Draw one view by layer, and return the largest values minus 1."""
    color, marker = _STYLES[view]
    largest, median = (_minus_one(row[key] for row in rows) for key in ("rhat_max", "rhat_median"))
    style = {"color": color, "ms": 6, "mec": "white", "mew": 0.4, "clip_on": False}
    axes.plot(position, largest, marker, label=VIEWS[view], **style)
    axes.hlines(median, position - 0.06, position + 0.06, color=color, lw=1.6)
    axes.vlines(position, median, largest, color=color, lw=0.8, alpha=0.6)
    return [*largest]


def _minus_one(values: Iterable[float | None]) -> np.ndarray:
    """Return R-hat minus 1 within the limits, with NaN for undefined values."""
    return np.clip(np.array([*values], dtype=float) - 1, _LEAST, _MOST)


def _plotted(estimate: Mapping[str, Any]) -> dict[str, float]:
    known = {key: value for key in _ENDS if (value := estimate.get(key)) is not None}
    return dict(zip(known, _minus_one(known.values()), strict=True))


def _rhat_axis(axes: Axes, name: str, low: float, high: float) -> None:
    ticks = _TICKS[(low <= _TICKS) & (high >= _TICKS)]
    axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    axes.set(
        **{f"{name}ticks": ticks, f"{name}ticklabels": [number(1 + tick, 4) for tick in ticks]}
    )
    axes.minorticks_off()
