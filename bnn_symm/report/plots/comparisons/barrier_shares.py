"""Plot parts of barriers: shares of causes, and barriers of layers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bnn_symm.diagnostics.barriers.decomposition import BarrierShare
from bnn_symm.diagnostics.barriers.layerwise import LayerBarrier
from bnn_symm.formatting import with_error
from bnn_symm.report.plots.axes import (
    BLUE,
    NAVY,
    ORANGE,
    PALE,
    RED,
    label_rows,
    legend_below,
    panels,
    wrapped,
)
from bnn_symm.report.plots.figures.png import save_png

_ERRORS = 2.0  # half of the width of an error bar, in standard errors
_LAYER_STYLES = (("at_first", RED, "o"), ("at_second", ORANGE, "s"), ("cumulative", NAVY, "D"))
_LAYER_LABELS = {
    "at_first": "alone, others at the first",
    "at_second": "alone, others at the second",
    "cumulative": "with all layers before it",
}


def plot_shares(
    barrier: BarrierShare, shares: Mapping[str, BarrierShare], path: Path, *, title: str
) -> None:
    """Plot the naive barrier and its shares as bars.

    Args:
        barrier: the naive barrier.
        shares: cause -> its share, in the order of the steps.
        path: of the PNG.
        title: of the figure.
    """
    rows = {"naive barrier": barrier, **shares}
    figure, (axes,) = panels(1, (6.4, 0.9 + 0.36 * len(rows)), title=title)
    halves = [_ERRORS * own.standard_error for own in rows.values()]
    low = min(0.0, *(own.value - half for own, half in zip(rows.values(), halves, strict=True)))
    high = max(0.0, *(own.value + half for own, half in zip(rows.values(), halves, strict=True)))
    extent = (high - low) or 1.0
    for row, (name, own) in enumerate(rows.items()):
        color = {"naive barrier": "0.75", "remainder": PALE}.get(name, BLUE)
        axes.barh(row, own.value, color=color, height=0.6)
        axes.errorbar(own.value, row, xerr=halves[row], color="0.2", lw=1.2, capsize=3)
        where = max(0.0, own.value + halves[row]) + 0.02 * extent
        text = with_error(own.value, own.standard_error)
        axes.text(where, row, text, va="center", fontsize=8)
    axes.axvline(0, color="0.35", lw=0.8)
    label_rows(axes, list(rows))
    axes.set_xlim(low - 0.02 * extent, high + 0.25 * extent)
    axes.set_xlabel("nats per point; error bars: 2 standard errors")
    save_png(figure, path)


def plot_layers(layers: Mapping[str, Sequence[LayerBarrier]], path: Path, *, title: str) -> None:
    """Plot the barrier of every layer, alone and with the layers before it.

    Args:
        layers: `naive` and possibly the last alignment -> barriers of layers.
        path: of the PNG.
        title: of the figure.
    """
    names = [own.layer for own in next(iter(layers.values()))]
    size = (4.4, 0.8 + 0.3 * max(2, len(names)))
    figure, every = panels(len(layers), size, (0.8, 0.7), title=title, sharey=True)
    for axes, (way, rows) in zip(every, layers.items(), strict=True):
        for shift, (key, color, marker) in zip((-0.2, 0.0, 0.2), _LAYER_STYLES, strict=True):
            heights = [getattr(own, key) for own in rows]
            axes.errorbar(
                [own.height for own in heights],
                [row + shift for row in range(len(rows))],
                xerr=[_ERRORS * own.standard_error for own in heights],
                fmt=marker,
                color=color,
                ms=4,
                lw=1.2,
                label=_LAYER_LABELS[key],
            )
        axes.axvline(0, color="0.35", lw=0.8)
        label_rows(axes, [wrapped(name, 30) for name in names])
        axes.set_title(way, fontsize=9)
        axes.set_xlabel("barrier, nats per point", fontsize=9)
    legend_below(figure)
    save_png(figure, path)
