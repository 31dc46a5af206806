"""Plot the scales of a posterior and its prior by layer, and signal-to-noise ratios of weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bnn_symm.formatting import number, percent
from bnn_symm.report.plots.axes import RED, finite, legend_below, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_LIGHT, _DARK, _LINE = "#c6dbef", "#4292c6", "#08306b"
_PRIOR = RED
# Heights of the bars, in rows.
_THIN, _THICK = 0.3, 0.56
# Smallest plotted |mean| / sd, and smallest plotted sd as a fraction of the largest.
_LEAST_RATIO, _LEAST_SD = 1e-3, 1e-6


def plot_posterior_scales(scales: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot posterior standard deviations (left) and |mean| / sd (right), one row per layer.

    The thick bar covers the central half of the weights of a layer, the thin bar 90 % of them, and
    the line is the median.

    Args:
        scales: of `describe_posterior_scales`, with layers.
        path: of the PNG.
        title: of the figure.
    """
    layers = {name: own for name, own in scales["layers"].items() if own["sd"] is not None}
    levels = [scales["quantiles"].index(level) for level in (0.05, 0.25, 0.5, 0.75, 0.95)]
    row_height = 0.42 if len(layers) <= 12 else 0.27
    note = f"\n{scales['note']}" if scales["note"] else ""
    height = 1.9 + row_height * len(layers) + (0.25 if note else 0.0)
    figure, (left, right) = panels(2, (4.5, height), title=f"{title}{note}", sharey=True)
    largest = np.nanmax([0.0, *finite(own["sd"][-1] for own in layers.values())])
    widths, ratios = [], [1.0]
    for row, own in enumerate(layers.values()):
        (sd,) = with_gaps(left, [own["sd"][i] for i in levels])
        (ratio,) = with_gaps(right, [own["signal_to_noise"][i] for i in levels])
        sd, ratio = np.maximum(sd, _LEAST_SD * largest), np.maximum(ratio, _LEAST_RATIO)
        _bars(left, row, sd)
        _bars(right, row, ratio)
        _prior(left, row, own["prior_sd"])
        widths += [*sd, *own["prior_sd"]]
        ratios += [*ratio]
        text = percent(own["told_from_zero"])
        right.text(1.02, row, text, transform=right.get_yaxis_transform(), va="center", fontsize=7)
    right.axvline(1.0, color=_PRIOR, ls="--", lw=1.2, label="|mean| = sd")
    right.text(
        1.02,
        -0.75,
        "above 1",
        transform=right.get_yaxis_transform(),
        va="center",
        fontsize=7,
        style="italic",
    )
    for axes, values in ((left, widths), (right, ratios)):
        _logarithmic(axes, float(np.nanmin(values)), float(np.nanmax(values)))
        axes.grid(axis="x", color="0.9", lw=0.6)
        axes.set_axisbelow(True)
    names = [f"{name}  ({number(own['num_parameters'])})" for name, own in layers.items()]
    left.set_yticks(range(len(layers)), names, fontsize=8)
    left.set_ylim(len(layers) - 0.4, -1.0)
    left.set_xlabel("posterior standard deviation", fontsize=8)
    right.set_xlabel("|posterior mean| / standard deviation", fontsize=8)
    legend_below(figure, most=5, fontsize=7)
    save_png(figure, path)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """Set ticks at 1, 2 and 5 for few decades, else at powers of ten."""
    axes.set_xscale("log")
    axes.set_xlim(low / 1.25, high * 1.25)
    few = high / low < 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,), numticks=10))
    axes.xaxis.set_minor_locator(NullLocator())
    if few:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _bars(axes: Axes, row: int, quantiles: np.ndarray) -> None:
    low, lower, median, upper, high = quantiles
    axes.barh(row, high - low, left=low, height=_THIN, color=_LIGHT, label="90 % of the weights")
    axes.barh(
        row, upper - lower, left=lower, height=_THICK, color=_DARK, label="half of the weights"
    )
    axes.vlines(median, row - _THICK / 2, row + _THICK / 2, color=_LINE, lw=2.2, label="median")


def _prior(axes: Axes, row: int, ends: Sequence[float]) -> None:
    low, high = ends
    if high > low:
        axes.hlines(row, low, high, color=_PRIOR, lw=1.2)
    marks = [low] if low == high else [low, high]
    axes.plot(
        marks,
        [row] * len(marks),
        "D",
        color="white",
        mec=_PRIOR,
        mew=1.4,
        ms=6,
        ls="none",
        label="prior sd",
    )
