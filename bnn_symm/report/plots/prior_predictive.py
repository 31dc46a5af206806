"""Plot functions drawn from a prior with the data: curves over one input, and distributions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bnn_symm.diagnostics.measures import measure_of
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
from bnn_symm.report.tables import cell

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
    scale = cell(content["own"]["prior.scale"]).text
    prior = f"{content['prior']}, scale {scale}"
    title = f"{content['draws']} functions of the prior ({prior}) on {content['data']}"
    ratios = (3, 2) if curves else (1, 1)
    figure, (left, right) = panels(2, (4.5, 3.6), title=title, width_ratios=ratios)
    if curves:
        _draw_curves(left, curves)
        _draw_variation(right, content, "variation")
    elif classes:
        count = max(2, content["num_outputs"])
        _draw(left, content, "confidence", np.linspace(1 / count, 1.0, _BINS + 1))
        _draw(right, content, "classes", np.linspace(1.0, count, _BINS + 1))
    else:
        _draw_variation(left, content, "variation")
        _draw_variation(right, content, "targets")
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


def _draw_variation(axes: Axes, content: Mapping[str, Any], quantity: str) -> None:
    """Draw on a logarithmic axis, since scales of priors act as factors."""
    every = np.concatenate(list(_values(axes, content, quantity).values()))
    every = every[every > 0]
    edges = (
        np.geomspace(every.min(), every.max() * (1 + 1e-9), 2 * _BINS)
        if len(every)
        else np.array([0.5, 2.0])
    )
    _draw(axes, content, quantity, edges)
    axes.set_xscale("log")


def _draw(axes: Axes, content: Mapping[str, Any], quantity: str, edges: np.ndarray) -> None:
    own, *others = _values(axes, content, quantity).items()
    axes.hist(own[1], edges.tolist(), color=_OWN, label=own[0])
    for (name, numbers), color in zip(others, _OTHERS, strict=False):
        axes.hist(numbers, edges.tolist(), histtype="step", color=color, lw=1.3, label=name)
    of_data = finite([content["of_data"][quantity]])[0]
    axes.axvline(of_data, color=_DATA, ls="--", lw=1.4, label="data")
    axes.set_xlabel(measure_of(quantity).title, fontsize=9)
    axes.set_ylabel("functions", fontsize=9)


def _values(axes: Axes, content: Mapping[str, Any], quantity: str) -> dict[str, np.ndarray]:
    """Return the finite values of all functions by the label of their prior, this prior first."""
    values = {}
    for one in (content["own"], *content["others"]):
        if "error" not in one:
            (drawn,) = with_gaps(axes, one["functions"][quantity])
            values[f"scale {cell(one['prior.scale']).text}"] = drawn[~np.isnan(drawn)]
    return values
