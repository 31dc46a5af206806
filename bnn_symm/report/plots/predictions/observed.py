"""Plot predictions against the observed targets, with their intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.formatting import percent
from bnn_symm.report.plots.axes import NAVY, PALE, RED, legend_below, panels, with_gaps

Values = np.ndarray | Sequence[float | None]
# Number of points from which on their intervals are thinner.
_MANY = 150


def observed_figure(
    target: Values,
    mean: Values,
    low: Values,
    high: Values,
    *,
    level: float,
    name: str,
) -> Figure:
    """Plot predictions against observed targets.

    Args:
        target: true values.
        mean: of the predicted distributions.
        low: lower ends of their intervals.
        high: upper ends.
        level: of the intervals.
        name: of the target.

    Returns:
        The figure.
    """
    figure, (axes,) = panels(1, (4.8, 4.4))
    draw_observed(axes, target, mean, low, high, level=level, name=name)
    legend_below(figure)
    return figure


def draw_observed(
    axes: Axes,
    target: Values,
    mean: Values,
    low: Values,
    high: Values,
    *,
    level: float,
    name: str,
) -> None:
    """Draw a point and an interval for every target, and the line of equality.

    Args:
        axes: the panel.
        target: true values.
        mean: of the predicted distributions.
        low: lower ends of their intervals.
        high: upper ends.
        level: of the intervals.
        name: of the target.
    """
    target, mean, low, high = with_gaps(axes, target, mean, low, high)
    width = 0.5 if len(target) > _MANY else 1.0
    label = f"{percent(level)} interval"
    axes.vlines(target, low, high, color=PALE, lw=width, alpha=0.7, label=label, zorder=1)
    outside = (target < low) | (target > high)
    for chosen, style, color, text in (
        (~outside, "o", NAVY, "predicted mean"),
        (outside, "X", RED, "the same, target outside the interval"),
    ):
        if chosen.any():
            marks = {"color": color, "ms": 3.5 if style == "o" else 5, "mec": "white", "mew": 0.4}
            axes.plot(target[chosen], mean[chosen], style, **marks, label=text)
    known = target[np.isfinite(target)]
    if len(known):
        ends = [known.min(), known.max()]
        axes.plot(ends, ends, color="0.35", ls="--", lw=1.0, zorder=0)
    axes.set_xlabel(f"observed {name}")
    axes.set_ylabel(f"predicted {name}")
