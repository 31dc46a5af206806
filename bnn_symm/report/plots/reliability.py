"""Plot reliability diagrams: observed against predicted frequencies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png

_BAND, _OBSERVED = "0.82", "#0b3c5d"


def plot_reliability(content: Mapping[str, Any], path: Path, *, title: str) -> None:
    """Plot the diagram with the band of a calibrated model and, for classes, the counts of bins.

    Args:
        content: the reliability of classes or of numbers as plain data.
        path: of the PNG.
        title: of the figure.
    """
    if content["kind"] == "classes":
        figure = Figure(figsize=(4.6, 5.6), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        _classes(axes, below, content)
    else:
        figure = Figure(figsize=(4.6, 4.8), layout="constrained")
        axes = figure.subplots()
        _numbers(axes, content)
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6))
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    axes.set_title(title, fontsize=10)
    save_png(figure, path)


def _classes(axes: Any, below: Any, content: Mapping[str, Any]) -> None:
    left, right, confidence, accuracy, count, low, high = (
        np.array(content[name])
        for name in ("left", "right", "confidence", "accuracy", "count", "low", "high")
    )
    width = right - left
    axes.bar(
        left, high - low, width, low, align="edge", color=_BAND, lw=0, label=_band_label(content)
    )
    axes.plot([0, 1], [0, 1], color="0.35", ls="--", lw=1.0)
    axes.vlines(confidence, confidence, accuracy, color=_OBSERVED, lw=1.0)
    axes.plot(
        confidence,
        accuracy,
        "o",
        color=_OBSERVED,
        ms=5,
        mec="white",
        mew=0.6,
        label="bins of points",
    )
    outside = (accuracy < low) | (accuracy > high)
    if outside.any():
        axes.plot(
            confidence[outside],
            accuracy[outside],
            "X",
            color="#b2182b",
            ms=8,
            mec="white",
            mew=0.6,
            label="outside the band",
        )
    axes.set_ylabel("accuracy (above the dashed line: underconfident)")
    below.bar(left, count, width, align="edge", color="0.55", edgecolor="white", lw=0.5)
    below.set_ylabel("points")
    below.set_xlabel("confidence (largest probability)")
    below.set_xlim(min(left.min(), confidence.min()) - 0.03, 1.03)


def _numbers(axes: Any, content: Mapping[str, Any]) -> None:
    nominal, observed, low, high = (
        np.array(content[name]) for name in ("nominal", "observed", "low", "high")
    )
    axes.fill_between(nominal, low, high, color=_BAND, lw=0, label=_band_label(content))
    axes.plot([0, 1], [0, 1], color="0.35", ls="--", lw=1.0)
    axes.plot(
        nominal,
        observed,
        "-o",
        color=_OBSERVED,
        ms=4,
        lw=1.2,
        label=f"{content['num_points']} points",
    )
    outside = (observed < low) | (observed > high)
    if outside.any():
        axes.plot(
            nominal[outside],
            observed[outside],
            "X",
            color="#b2182b",
            ms=7,
            mec="white",
            label="outside the band",
        )
    axes.set_xlabel("level of the predicted quantile")
    axes.set_ylabel("share of targets not above it")
    axes.set_xlim(-0.02, 1.02)


def _band_label(content: Mapping[str, Any]) -> str:
    return f"a calibrated model, {content['level']:.0%}"
