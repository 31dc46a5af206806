"""Lay out the panels and the legend of a figure, and leave gaps at values that are not finite."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RED, BLUE, PALE, NAVY, ORANGE = "#b2182b", "#2166ac", "#7fb0d8", "#0b3c5d", "#d08770"
# Ticks of matplotlib overflow near the largest float.
_LARGEST = 1e100
_MOST_COLUMNS = 3
_NOTE = "values that are not finite are not drawn"


def panels(
    count: int,
    cell: tuple[float, float],
    extra: tuple[float, float] = (0.0, 0.0),
    *,
    columns: int = 0,
    title: str = "",
    **layout: Any,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in balanced rows.

    Args:
        count: number of panels.
        cell: width and height of a panel in inches.
        extra: width and height of the figure besides its panels.
        columns: maximum number of panels in a row; 0 for a single row.
        title: of the figure.
        layout: further arguments of `Figure.subplots`.

    Returns:
        The figure and its panels, row by row.
    """
    rows = math.ceil(count / (columns or count))
    columns = math.ceil(count / rows)
    size = (extra[0] + columns * cell[0], extra[1] + rows * cell[1])
    figure = Figure(figsize=size, layout="constrained")
    every: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, **layout).flat)
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    for axes in every[count:]:
        axes.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=10, wrap=True)
    return figure, every[:count]


def finite(values: Iterable[float | None]) -> np.ndarray:
    """Return values as floats, with NaN for undefined, infinite and huge ones.

    Args:
        values: to plot.

    Returns:
        The values; NaN leaves a gap in lines, bands and bars.
    """
    numbers = np.array(values if isinstance(values, np.ndarray) else list(values), dtype=float)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(numbers) <= _LARGEST, numbers, np.nan)


def with_gaps(axes: Axes, *series: Iterable[float | None]) -> list[np.ndarray]:
    """Return series with gaps at values that are not finite, with a note in the panel.

    Args:
        axes: the panel.
        series: to plot; None is an undefined value, which needs no note.

    Returns:
        The series as floats.
    """
    given = [own if isinstance(own, np.ndarray) else list(own) for own in series]
    gaps = [finite(own) for own in given]
    undefined = sum(own.count(None) for own in given if isinstance(own, list))
    missing = sum(int(np.isnan(own).sum()) for own in gaps)
    if missing > undefined and _NOTE not in (text.get_text() for text in axes.texts):
        axes.text(0.02, 0.02, _NOTE, transform=axes.transAxes, fontsize=7, style="italic")
    return gaps


def set_limits(
    axes: Axes,
    name: str,
    *values: Iterable[float | None],
    below: float = 0.05,
    above: float = 0.05,
) -> None:
    """Set the limits of an axis to the range of the finite values.

    Args:
        axes: the panel.
        name: of the axis, `x` or `y`.
        values: to contain; without a finite one, the limits stay.
        below: room below, as a fraction of the range.
        above: room above.
    """
    every = np.concatenate([finite(own).ravel() for own in values])
    every = every[np.isfinite(every)]
    if not len(every):
        return
    low, high = float(every.min()), float(every.max())
    extent = high - low or abs(high) or 1.0
    axes.set(**{f"{name}lim": (low - below * extent, high + above * extent)})


def legend_below(figure: Figure, *, width: int = 110, most: int = 0, fontsize: int = 8) -> None:
    """Draw one legend of all panels below them, with one entry per label.

    Args:
        figure: the figure.
        width: of the legend in characters, which limits its columns.
        most: maximum number of entries; 0 for all.
        fontsize: of the entries.
    """
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    shown = list(entries.items())[: most or None]
    if not shown:
        return
    labels = [label for label, _ in shown]
    longest = 8 + max(map(len, labels))
    figure.legend(
        [handle for _, handle in shown],
        labels,
        loc="outside lower center",
        ncols=most or max(1, min(_MOST_COLUMNS, len(labels), width // longest)),
        fontsize=fontsize,
        frameon=False,
    )


def wrapped(label: str, width: int) -> str:
    """Return a label in at most four lines, broken at spaces.

    Args:
        label: the label.
        width: approximate number of characters of a line.

    Returns:
        The lines.
    """
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    cut = [line if len(line) <= width + 8 else f"{line[: width + 5]}..." for line in lines]
    return "\n".join(cut if len(cut) <= 4 else [*cut[:3], f"{cut[3]} ..."])


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name the rows of a panel from top to bottom, without tick marks.

    Args:
        axes: the panel.
        labels: of the rows at 0, 1, ...
    """
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.4, -0.6)
