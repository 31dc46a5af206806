"""Plot loss barriers: curves of a pair, and the simplex of three posteriors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.tri import Triangulation

from bnn_symm.diagnostics.barriers.curves import BarrierCurve
from bnn_symm.diagnostics.barriers.simplex import SimplexBarrier
from bnn_symm.diagnostics.barriers.temperature_scaled import TemperatureScaledCurve
from bnn_symm.formatting import number, with_error
from bnn_symm.report.plots.axes import BLUE, RED, panels, with_gaps
from bnn_symm.report.plots.figures.png import save_png

# Distinguishable in grayscale and with color blindness by lightness and dash.
_STYLES = {
    "naive": (RED, "--"),
    "aligned": (BLUE, "-"),
    "+ scale": ("0.15", "--"),
    "+ rotation": ("0.15", "-"),
    "+ scale + rotation": ("0.15", "-"),
}
_WIDTH = 2.0
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def plot_barrier_curves(
    curves: Mapping[str, BarrierCurve],
    path: Path,
    *,
    title: str,
    scaled: Mapping[str, TemperatureScaledCurve] | None = None,
) -> None:
    """Plot the marginal NLL along the path with bands, the chords and the mixture path.

    Args:
        curves: `naive`, and possibly `aligned` and the other ways of a `PairBarrier`.
        path: of the PNG.
        title: of the figure.
        scaled: the same after temperature scaling, if it was measured.
    """
    figure, (axes,) = panels(1, (6.4, 3.8), title=title)
    draw_barrier_curves(axes, curves, scaled)
    save_png(figure, path)


def draw_barrier_curves(
    axes: Axes,
    curves: Mapping[str, BarrierCurve],
    scaled: Mapping[str, TemperatureScaledCurve] | None = None,
) -> None:
    """Draw the marginal NLL along the path with bands, the chords and the mixture path.

    Args:
        axes: the panel.
        curves: as of `plot_barrier_curves`.
        scaled: as of `plot_barrier_curves`.
    """
    every = []
    for name, curve in curves.items():
        color, dash = _STYLES[name]
        nll, band = with_gaps(axes, curve.marginal_nll, curve.band)
        tau, half = curve.tau, _WIDTH * band
        axes.fill_between(tau, nll - half, nll + half, color=color, alpha=0.2, lw=0)
        label = f"{name}: height {with_error(curve.height, curve.standard_error)}"
        axes.plot(tau, nll, dash, color=color, lw=1.8, label=label)
        # Ends are estimated from other draws after a permutation, so each curve has its own chord.
        chord = None if every else "chord"
        axes.plot([0, 1], nll[[0, -1]], ":", color="0.35", lw=1.2, label=chord)
        every += [nll]
    for name, curve in (scaled or {}).items():
        color, _ = _STYLES[name]
        nll, band = with_gaps(axes, curve.marginal_nll, curve.band)
        half = _WIDTH * band
        axes.fill_between(curve.tau, nll - half, nll + half, color=color, alpha=0.1, lw=0)
        height = with_error(curve.height, curve.standard_error)
        label = f"{name}, temperature scaled: height {height}"
        axes.plot(curve.tau, nll, "-", color=color, lw=0.9, marker="o", ms=3, mfc="w", label=label)
        every += [nll]
    first = next(iter(curves.values()))
    (mixture,) = with_gaps(axes, first.mixture_nll)
    axes.plot(first.tau, mixture, "-.", color="0.6", lw=1.0, label="mixture of the two")
    axes.set_xlabel("tau, from the first posterior to the second")
    axes.set_ylabel("marginal test NLL, nats per point")
    axes.set_xlim(0, 1)
    # A small barrier should look small; the NLL of a regression has no natural zero.
    if min(np.min(nll[~np.isnan(nll)], initial=np.inf) for nll in every) > 0:
        axes.set_ylim(bottom=0)
    if scaled:  # bands of temperatures that are hardly determined may be very wide
        axes.set_ylim(top=1.6 * max(np.max(nll[~np.isnan(nll)], initial=0.0) for nll in every))
    axes.legend(fontsize=8, frameon=False)


def plot_simplex(
    simplexes: Mapping[str, SimplexBarrier], labels: Sequence[str], path: Path, *, title: str
) -> None:
    """Plot the marginal test NLL over the triangle of three posteriors as filled contours.

    Args:
        simplexes: `naive` and possibly `aligned`: barriers of three posteriors.
        labels: of the corners.
        path: of the PNG.
        title: of the figure.
    """
    figure, every = panels(len(simplexes), (4.4, 4.2), (0.6, 0.0), title=title)
    losses = [
        with_gaps(axes, own.marginal_nll)[0]
        for axes, own in zip(every, simplexes.values(), strict=True)
    ]
    values = np.concatenate(losses)
    values = values[~np.isnan(values)] if not np.isnan(values).all() else np.zeros(1)
    # Logarithmic steps above the lowest loss show aligned and unaligned barriers on one scale.
    steps = np.geomspace(0.01, 1.0, 13) * max(np.ptp(values), 1e-6)
    levels = values.min() + np.concatenate([[0.0], steps])
    filled = None
    for axes, (name, own), loss in zip(every, simplexes.items(), losses, strict=True):
        position = np.asarray(own.weights) @ _CORNERS
        triangles = Triangulation(position[:, 0], position[:, 1])
        gaps = np.isnan(loss)[triangles.triangles].any(1)
        triangles.set_mask(gaps)
        if not gaps.all():
            filled = axes.tricontourf(
                triangles,
                np.nan_to_num(loss, nan=levels[0]),
                levels=levels,
                cmap="cividis",
                norm=BoundaryNorm(levels, 256),
            )
        for corner, label, offset in zip(_CORNERS, labels, (-14, -14, 6), strict=True):
            style = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(label, corner, xytext=(0, offset), **style)
        axes.plot(*position[3], "o", mfc="none", mec="white", ms=6)
        heights = f"height {number(own.height)}, centroid {number(own.centroid)}"
        axes.set_title(f"{name}: {heights}", fontsize=9)
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_xlim(-0.1, 1.1)
        axes.set_ylim(-0.12, 1.0)
    if filled is not None:
        label = "marginal test NLL, nats per point"
        bar = figure.colorbar(filled, ax=every, label=label, shrink=0.8)
        bar.set_ticks(levels[::3], labels=[number(level) for level in levels[::3]])
    save_png(figure, path)
