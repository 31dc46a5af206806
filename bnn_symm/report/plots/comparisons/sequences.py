"""Plot barriers along sequences of points, by permutation, and the agreement of permutations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from bnn_symm.analyses.sequence_results import Rule, SequenceBarrier, mean_or_none
from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import (
    BLUE,
    NAVY,
    ORANGE,
    PALE,
    RED,
    legend_below,
    panels,
    set_limits,
    with_gaps,
)
from bnn_symm.report.plots.figures.png import save_png

_STYLES: dict[Rule, tuple[str, str, str]] = {
    "none": ("no permutation", RED, "o"),
    "first": ("the first point's permutation", ORANGE, "v"),
    "own": ("the point's own permutation", PALE, "s"),
    "last": ("the last point's permutation", BLUE, "D"),
    "joint": ("one permutation of all points", NAVY, "^"),
    "own_on_last": ("the point's permutation, on the last point", "0.45", "x"),
}
# Horizontal distance between the markers of one point.
_SHIFT = 0.07


def plot_sequences(result: SequenceBarrier, path: Path) -> None:
    """Plot the barriers at every point with their errors, and the agreement of permutations.

    Args:
        result: of `barrier_sequences`.
        path: of the PNG.
    """
    with_paths = bool(result.paths)
    figure, every = panels(3 if with_paths else 2, (4.6, 3.4), (0.0, 0.9))
    _plot_heights(result, every[0])
    _plot_agreement(result, every[1])
    if with_paths:
        _plot_paths(result, every[2])
    is_pruned = any(own.weights_left < 1 for own in result.points)
    labels = [
        number(100 * own.weights_left, 2) if is_pruned else number(own.epoch)
        for own in result.points
    ]
    for axes in every:
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("weights left, %" if is_pruned else "epoch of the point")
    legend_below(figure)
    save_png(figure, path)


def _plot_heights(result: SequenceBarrier, axes: Axes) -> None:
    positions = range(len(result.points))
    shown: list[np.ndarray] = []
    for place, (rule, (label, color, marker)) in enumerate(_STYLES.items()):
        estimates = [result.mean(point, rule) for point in positions]
        heights = [own.mean for own in estimates]
        halves = [_half(result, point, rule) for point in positions]
        values, errors = with_gaps(axes, heights, halves)
        shown += [values - np.nan_to_num(errors), values + np.nan_to_num(errors)]
        x = [point + _SHIFT * (place - (len(_STYLES) - 1) / 2) for point in positions]
        style = {"color": color, "marker": marker, "ms": 4, "lw": 1.2, "capsize": 2}
        axes.errorbar(x, values, yerr=errors, label=label, elinewidth=0.7, **style)
    axes.axhline(0, color="0.35", lw=0.8)
    set_limits(axes, "y", [0.0], *shown)
    what = "standard error" if len(result.pairs) == 1 else "95 % interval over runs"
    axes.set_ylabel(f"test NLL above the chord\n(bars: {what})")


def _half(result: SequenceBarrier, point: int, rule: Rule) -> float | None:
    """Return half of the length of an error bar."""
    rows, estimate = result.rows(point, rule), result.mean(point, rule)
    if len(rows) == 1:
        return rows[0].standard_error
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def _plot_agreement(result: SequenceBarrier, axes: Axes) -> None:
    positions = range(len(result.points))
    own, joint = (
        [result.mean_agreement(point, rule) for point in positions] for rule in ("own", "joint")
    )
    _plot_lines(axes, "--", "own permutation = the last point's", own, PALE, "s")
    _plot_lines(axes, "--", "joint permutation = the last point's", joint, NAVY, "^")
    if result.cycles:
        fixed = [
            mean_or_none(own.fixed for own in result.cycles if own.point == point)
            for point in positions
        ]
        _plot_lines(axes, "--", "returned by a cycle of three", fixed, ORANGE, "o")
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("fraction of units")


def _plot_paths(result: SequenceBarrier, axes: Axes) -> None:
    positions = range(len(result.points))
    paths = [[own for own in result.paths if own.point == point] for point in positions]
    loops = [[own for own in result.cycles if own.point == point] for point in positions]
    direct = [mean_or_none(own.direct for own in row) for row in paths]
    composed = [mean_or_none(own.composed for own in row) for row in paths]
    images = [mean_or_none(own.height for own in row) for row in loops]
    _plot_lines(axes, ":", "barrier, direct", direct, PALE, "s")
    _plot_lines(axes, ":", "barrier, composed through a third", composed, BLUE, "P")
    _plot_lines(axes, ":", "barrier with its image after a cycle", images, ORANGE, "o")
    axes.axhline(0, color="0.35", lw=0.8)
    set_limits(axes, "y", [0.0], direct, composed, images, above=0.2)
    axes.set_ylabel("test NLL above the chord")


def _plot_lines(
    axes: Axes,
    dashes: str,
    label: str,
    heights: Sequence[float | None],
    color: str,
    marker: str,
) -> None:
    (values,) = with_gaps(axes, heights)
    positions = range(len(values))
    axes.plot(positions, values, label=label, color=color, marker=marker, ls=dashes, ms=4, lw=1.2)
