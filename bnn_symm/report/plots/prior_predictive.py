"""Plot functions drawn from a prior with the data: curves over one input, and distributions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.text.tables import format_number

_BINS = 25
_OWN, _DATA = "#7fb0d8", "#b23a48"
_OTHERS = ("#0b3c5d", "#d08770", "#6a994e")
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
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2) if curves else (1, 1))
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
    handles, labels = right.get_legend_handles_labels()
    figure.legend(
        handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=len(labels)
    )
    scale = format_number(content["own"]["prior.scale"])
    prior = f"{content['prior']}, scale {scale}"
    title = f"{content['draws']} functions of the prior ({prior}) on {content['data']}"
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, Any]) -> None:
    x, target = np.array(curves["x"]), np.array(curves["data_y"])
    for y in curves["y"]:
        axes.plot(x, y, color=_OWN, lw=0.9, alpha=0.9)
    axes.plot(curves["data_x"], target, "o", color=_DATA, ms=2.5, mew=0, label="training points")
    extent = float(np.ptp(target)) or 1.0
    functions = np.array(curves["y"])
    low = max(float(functions.min()), float(target.min()) - _BEYOND * extent)
    high = min(float(functions.max()), float(target.max()) + _BEYOND * extent)
    low, high = min(low, float(target.min())), max(high, float(target.max()))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlim(x.min(), x.max())
    axes.set_title(f"{len(curves['y'])} functions", fontsize=9)
    axes.set_xlabel(curves["input"], fontsize=9)
    axes.set_ylabel(curves["target"], fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper left")


def _draw_variation(axes: Axes, content: Mapping[str, Any], quantity: str, label: str) -> None:
    """Draw on a logarithmic axis, since scales of priors act as factors."""
    values = _values(content, quantity)
    every = np.concatenate(list(values.values()))
    every = every[every > 0]
    edges = (
        np.geomspace(every.min(), every.max() * (1 + 1e-9), 2 * _BINS)
        if len(every)
        else np.array([0.5, 2.0])
    )
    _draw(axes, content, values, quantity, label, edges)
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
    _draw(
        axes,
        content,
        _values(content, quantity),
        quantity,
        label,
        np.linspace(low, high, _BINS + 1),
    )


def _draw(
    axes: Axes,
    content: Mapping[str, Any],
    values: Mapping[str, np.ndarray],
    quantity: str,
    label: str,
    edges: np.ndarray,
) -> None:
    own, *others = values.items()
    axes.hist(own[1], edges.tolist(), color=_OWN, label=own[0])
    for (name, numbers), color in zip(others, _OTHERS, strict=False):
        axes.hist(numbers, edges.tolist(), histtype="step", color=color, lw=1.3, label=name)
    axes.axvline(content["of_data"][quantity], color=_DATA, ls="--", lw=1.4, label="data")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel("functions", fontsize=9)


def _values(content: Mapping[str, Any], quantity: str) -> dict[str, np.ndarray]:
    """Return the values of all functions by the label of their prior, this prior first."""
    priors = [one for one in (content["own"], *content["others"]) if "error" not in one]
    return {
        f"scale {format_number(one['prior.scale'])}": np.array(one["functions"][quantity])
        for one in priors
    }
