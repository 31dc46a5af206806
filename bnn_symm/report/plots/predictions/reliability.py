"""Plot reliability diagrams: observed against predicted frequencies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.formatting import count, percent
from bnn_symm.report.plots.axes import NAVY, RED, legend_below, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_BAND = {"color": "0.82", "lw": 0}


def plot_reliability(content: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot the diagram as PNG.

    Args:
        content: the reliability of classes or of numbers as plain data.
        path: of the PNG.
        title: of the figure.
    """
    save_png(reliability_figure(content, title=title), path)


def reliability_figure(content: Mapping[str, Any], *, title: str = "") -> Figure:
    """Plot the diagram with the band of a calibrated model and, for classes, the counts of bins.

    Args:
        content: the reliability of classes or of numbers as plain data.
        title: of the figure.

    Returns:
        The figure.
    """
    if content["kind"] == "classes":
        figure, (axes, below) = panels(
            2, (4.6, 2.8), columns=1, title=title, sharex=True, height_ratios=(3.2, 1)
        )
    else:
        figure, (axes,) = panels(1, (4.6, 4.8), title=title)
        below = None
    draw_reliability(axes, content, below)
    legend_below(figure)
    return figure


def draw_reliability(axes: Axes, content: Mapping[str, Any], below: Axes | None = None) -> None:
    """Draw the diagram with the band of a calibrated model.

    Args:
        axes: the panel.
        content: the reliability of classes or of numbers as plain data.
        below: for classes, a panel for the counts of bins; None to leave them out.
    """
    if content["kind"] == "classes":
        _classes(axes, below, content)
    else:
        _numbers(axes, content)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylim(-0.02, 1.02)


def _classes(axes: Axes, below: Axes | None, content: Mapping[str, Any]) -> None:
    left, right, count = (np.array(content[name]) for name in ("left", "right", "count"))
    confidence, accuracy, low, high = with_gaps(
        axes, *(content[name] for name in ("confidence", "accuracy", "low", "high"))
    )
    width = right - left
    axes.bar(left, high - low, width, low, align="edge", label=_band_label(content), **_BAND)
    axes.vlines(confidence, confidence, accuracy, color=NAVY, lw=1.0)
    _observed(axes, confidence, accuracy, low, high, "o", "bins of points")
    axes.set_ylabel("accuracy (above the dashed line: underconfident)")
    if below is not None:
        below.bar(left, count, width, align="edge", color="0.55", edgecolor="white", lw=0.5)
        below.set_ylabel("points")
    lowest = axes if below is None else below
    lowest.set_xlabel("confidence (largest probability)")
    lowest.set_xlim(np.nanmin([*left, *confidence]) - 0.03, 1.03)


def _numbers(axes: Axes, content: Mapping[str, Any]) -> None:
    nominal = np.array(content["nominal"])
    observed, low, high = with_gaps(axes, *(content[name] for name in ("observed", "low", "high")))
    axes.fill_between(nominal, low, high, label=_band_label(content), **_BAND)
    _observed(axes, nominal, observed, low, high, "-o", count(content["num_points"], "point"))
    axes.set_xlabel("level of the predicted quantile")
    axes.set_ylabel("share of targets not above it")
    axes.set_xlim(-0.02, 1.02)


def _observed(
    axes: Axes,
    predicted: np.ndarray,
    observed: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    style: str,
    label: str,
) -> None:
    """Draw the observed frequencies with the diagonal, and mark those outside the band."""
    axes.plot([0, 1], [0, 1], color="0.35", ls="--", lw=1.0)
    axes.plot(
        predicted, observed, style, color=NAVY, ms=5, lw=1.2, mec="white", mew=0.6, label=label
    )
    outside = (observed < low) | (observed > high)
    if outside.any():
        axes.plot(
            predicted[outside],
            observed[outside],
            "X",
            color=RED,
            ms=8,
            mec="white",
            mew=0.6,
            label="outside the band",
        )


def _band_label(content: Mapping[str, Any]) -> str:
    return f"a calibrated model, {percent(content['level'])}"
