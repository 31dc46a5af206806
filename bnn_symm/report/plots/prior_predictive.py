"""Plot functions drawn from a prior with the data: curves over one input, and distributions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import (
    NAVY,
    ORANGE,
    PALE,
    finite,
    legend_below,
    panels,
    set_limits,
    with_gaps,
)
from bnn_symm.report.plots.figures.png import save_png

_BINS = 25
_OWN, _DATA = PALE, "#b23a48"
_OTHERS = (NAVY, ORANGE, "#6a994e")
# Curves are cut off beyond this many ranges of the targets on either side.
_BEYOND = 2.0


def plot_prior_predictive(content: Mapping[str, Any], path: Path) -> None:
    """Plot functions of the prior and the distributions of their statistics.

    Args:
        content: of `analyses.prior.describe_prior`.
        path: of the PNG.
    """
    classes = content["task"] == "classification"
    curves = content["curves"]
    scale = number(content["own"]["prior.scale"], 4)
    prior = f"{content['prior']}, scale {scale}"
    title = f"{content['draws']} functions of the prior ({prior}) on {content['data']}"
    ratios = (3, 2) if curves else (1, 1)
    figure, (left, right) = panels(2, (4.5, 3.6), title=title, width_ratios=ratios)
    if curves:
        _draw_curves(left, curves)
        _draw_variation(right, content, "variation", "sd of a function over points")
    elif classes:
        _draw_shares(
            left,
            content,
            "confidence",
            "mean largest probability",
            low=1 / max(2, content["num_outputs"]),
        )
        _draw_shares(
            right,
            content,
            "classes",
            "classes in use",
            low=1.0,
            high=float(max(2, content["num_outputs"])),
        )
    else:
        _draw_variation(left, content, "variation", "sd of a function over points")
        _draw_variation(right, content, "targets", "sd of simulated targets")
    legend_below(figure)
    save_png(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, Any]) -> None:
    x, target = np.array(curves["x"]), np.array(curves["data_y"])
    functions = with_gaps(axes, *curves["y"])
    for y in functions:
        axes.plot(x, y, color=_OWN, lw=0.9, alpha=0.9)
    axes.plot(curves["data_x"], target, "o", color=_DATA, ms=2.5, mew=0, label="training points")
    room = _BEYOND * (float(np.ptp(target)) or 1.0)
    seen = np.clip(np.concatenate(functions), target.min() - room, target.max() + room)
    set_limits(axes, "y", seen, target)
    axes.set_xlim(x.min(), x.max())
    axes.set_title(f"{len(curves['y'])} functions", fontsize=9)
    axes.set_xlabel(curves["input"], fontsize=9)
    axes.set_ylabel(curves["target"], fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_variation(axes: Axes, content: Mapping[str, Any], quantity: str, label: str) -> None:
    """Draw on a logarithmic axis, since scales of priors act as factors."""
    values = _values(axes, content, quantity)
    every = np.concatenate(list(values.values()))
    every = every[every > 0]
    edges = (
        np.geomspace(every.min(), every.max() * (1 + 1e-9), 2 * _BINS)
        if len(every)
        else np.array([0.5, 2.0])
    )
    _draw(axes, content["of_data"][quantity], values, label, edges)
    axes.set_xscale("log")


def _draw_shares(
    axes: Axes,
    content: Mapping[str, Any],
    quantity: str,
    label: str,
    *,
    low: float,
    high: float = 1.0,
) -> None:
    edges = np.linspace(low, high, _BINS + 1)
    _draw(axes, content["of_data"][quantity], _values(axes, content, quantity), label, edges)


def _draw(
    axes: Axes,
    of_data: float,
    values: Mapping[str, np.ndarray],
    label: str,
    edges: np.ndarray,
) -> None:
    own, *others = values.items()
    axes.hist(own[1], edges.tolist(), color=_OWN, label=own[0])
    for (name, numbers), color in zip(others, _OTHERS, strict=False):
        axes.hist(numbers, edges.tolist(), histtype="step", color=color, lw=1.3, label=name)
    axes.axvline(finite([of_data])[0], color=_DATA, ls="--", lw=1.4, label="data")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("functions", fontsize=9)


def _values(axes: Axes, content: Mapping[str, Any], quantity: str) -> dict[str, np.ndarray]:
    """Return the finite values of all functions by the label of their prior, this prior first."""
    values = {}
    for one in (content["own"], *content["others"]):
        if "error" not in one:
            (drawn,) = with_gaps(axes, one["functions"][quantity])
            values[f"scale {number(one['prior.scale'], 4)}"] = drawn[~np.isnan(drawn)]
    return values
