"""Plot the test scores of networks that were trained with masks of other networks."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from bnn_symm.analyses.mask_transport import KINDS, MaskKind, MaskScore
from bnn_symm.formatting import number
from bnn_symm.report.plots.axes import BLUE, NAVY, RED, legend_below, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

_STYLES: dict[MaskKind, tuple[str, str, str]] = {
    "own": ("the network's own mask", NAVY, "o"),
    "transported": ("mask of another network, permuted", BLUE, "s"),
    "untransported": ("the same mask, not permuted", RED, "^"),
    "random": ("a random mask", "0.45", "x"),
}


def plot_masks(rows: Sequence[MaskScore], path: Path, *, error: str) -> None:
    """Plot test NLL, error and overlap over levels, as means over sources.

    Args:
        rows: of `transport_masks`.
        path: of the PNG.
        error: what the error is, such as `error rate`.
    """
    levels = sorted({row.level for row in rows})
    figure, every = panels(3, (3.8, 3.2), (0.0, 0.7))
    labels = ("test NLL, nats per point", f"test {error}", "share of weights in the own mask")
    for axes, key, label in zip(every, ("nll", "error", "overlap"), labels, strict=True):
        for kind in KINDS[1:] if key == "overlap" else KINDS:
            name, color, marker = _STYLES[kind]
            means = [
                fmean(getattr(row, key) for row in rows if (row.level, row.mask) == (level, kind))
                for level in levels
            ]
            (heights,) = with_gaps(axes, means)
            axes.plot(
                range(len(levels)), heights, color=color, marker=marker, ms=4, lw=1.2, label=name
            )
        left = [fmean(row.weights_left for row in rows if row.level == level) for level in levels]
        axes.set_xticks(range(len(levels)), [number(100 * share, 2) for share in left])
        axes.set_xlabel("weights left, %")
        axes.set_ylabel(label)
    legend_below(figure)
    save_png(figure, path)
