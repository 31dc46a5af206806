"""Plot the histogram of the probability integral transform, with its pointwise band."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_symm.diagnostics.calibration.pit import PitHistogram
from bnn_symm.formatting import percent
from bnn_symm.report.plots.axes import BLUE, RED, legend_below, panels


def pit_figure(histogram: PitHistogram) -> Figure:
    """Plot the histogram.

    Args:
        histogram: of PIT values.

    Returns:
        The figure.
    """
    figure, (axes,) = panels(1, (4.8, 3.4))
    draw_pit(axes, histogram)
    legend_below(figure)
    return figure


def draw_pit(axes: Axes, histogram: PitHistogram) -> None:
    """Draw the counts of bins over the band of a calibrated model.

    Args:
        axes: the panel.
        histogram: of PIT values.
    """
    low, high, count = histogram.low, histogram.high, histogram.count
    band = f"a calibrated model, {percent(histogram.level)} of bins"
    axes.axhspan(low, high, color="0.82", lw=0, zorder=0, label=band)
    axes.axhline(histogram.expected, color="0.35", ls="--", lw=1.0)
    outside = (count < low) | (count > high)
    width = histogram.right - histogram.left
    for chosen, color, hatch, label in (
        (~outside, BLUE, "", "points"),
        (outside, RED, "//", "points, outside the band"),
    ):
        if chosen.any():
            axes.bar(
                histogram.left[chosen],
                count[chosen],
                width[chosen],
                align="edge",
                fc=(*_rgb(color), 0.55),
                ec=color,
                hatch=hatch,
                lw=1.0,
                label=label,
            )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.08 * max(high, float(count.max())))
    axes.set_xlabel("PIT: predicted probability of a target not above the true one")
    axes.set_ylabel("points")


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
