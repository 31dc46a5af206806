"""Plot loss barriers: curves of pairs, matrices of pairs, and the simplex of three posteriors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from bnn_symm.report.plots.figures.png import save_png

# Distinguishable in grayscale and with color blindness by lightness and dash.
_STYLES = {"naive": ("#b2182b", "--"), "aligned": ("#2166ac", "-")}
_WIDTH = 2.0


def plot_barrier_curves(curves: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Plot the marginal NLL along the path with bands, the chord and the mixture path.

    Args:
        curves: `naive` and possibly `aligned`: curves of `diagnostics.barriers` as plain data.
        path: of the PNG.
        title: of the figure.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        color, dash = _STYLES[name]
        tau, nll, band = (np.asarray(curve[key]) for key in ("tau", "marginal_nll", "band"))
        axes.fill_between(
            tau, nll - _WIDTH * band, nll + _WIDTH * band, color=color, alpha=0.2, lw=0
        )
        label = f"{name}: height {curve['height']:.3f} +- {curve['standard_error']:.3f}"
        axes.plot(tau, nll, dash, color=color, lw=1.8, label=label)
    curve = next(iter(curves.values()))
    axes.plot(
        [0, 1],
        [curve["marginal_nll"][0], curve["marginal_nll"][-1]],
        ":",
        color="0.35",
        lw=1.2,
        label="chord",
    )
    axes.plot(
        curve["tau"], curve["mixture_nll"], "-.", color="0.6", lw=1.0, label="mixture of the two"
    )
    axes.set_xlabel("tau, from the first posterior to the second")
    axes.set_ylabel("marginal test NLL, nats per point")
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, 1)
    # A small barrier should look small; the NLL of a regression has no natural zero.
    if min(min(own["marginal_nll"]) for own in curves.values()) > 0:
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    save_png(figure, path)


def plot_barrier_matrix(
    matrices: Mapping[str, np.ndarray], labels: Sequence[str], path: Path, *, title: str
) -> None:
    """Plot the heights between all pairs as matrices on a common scale.

    Args:
        matrices: `naive` and possibly `aligned`: (posterior, posterior) heights.
        labels: of the posteriors.
        path: of the PNG.
        title: of the figure.
    """
    size = 1.6 + 0.6 * len(labels)
    figure = Figure(figsize=(size * len(matrices) + 0.8, size + 0.6), layout="constrained")
    top = max(float(np.max(matrix)) for matrix in matrices.values())
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(matrices))))
    image = None
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        image = axes.imshow(matrix, vmin=0, vmax=max(top, 1e-9), cmap="cividis")
        for (i, j), value in np.ndenumerate(matrix):
            if i != j:
                color = "black" if value > top / 2 else "white"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_title(name, fontsize=10)
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="barrier, nats per point", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)


def plot_simplex(
    simplexes: Mapping[str, Mapping[str, Any]], labels: Sequence[str], path: Path, *, title: str
) -> None:
    """Plot the marginal test NLL over the triangle of three posteriors as filled contours.

    Args:
        simplexes: `naive` and possibly `aligned`: barriers of three posteriors as plain data.
        labels: of the corners.
        path: of the PNG.
        title: of the figure.
    """
    figure = Figure(figsize=(4.4 * len(simplexes) + 0.6, 4.2), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(1, len(simplexes))))
    values = np.concatenate([np.asarray(own["marginal_nll"]) for own in simplexes.values()])
    # Logarithmic steps above the lowest loss show aligned and unaligned barriers on one scale.
    steps = np.geomspace(0.01, 1.0, 13) * max(values.max() - values.min(), 1e-6)
    levels = values.min() + np.concatenate([[0.0], steps])
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    filled = None
    for axes, (name, own) in zip(panels, simplexes.items(), strict=True):
        position = np.asarray(own["weights"]) @ corners
        filled = axes.tricontourf(
            Triangulation(position[:, 0], position[:, 1]),
            own["marginal_nll"],
            levels=levels,
            cmap="cividis",
            norm=BoundaryNorm(levels, 256),
        )
        for corner, label, offset in zip(
            corners, labels, ((0, -14), (0, -14), (0, 6)), strict=True
        ):
            axes.annotate(
                label, corner, xytext=offset, textcoords="offset points", ha="center", fontsize=8
            )
        axes.plot(*position[3], "o", mfc="none", mec="white", ms=6)
        axes.set_title(
            f"{name}: height {own['height']:.3f}, centroid {own['centroid']:.3f}", fontsize=9
        )
        axes.set_aspect("equal")
        axes.axis("off")
        axes.set_xlim(-0.1, 1.1)
        axes.set_ylim(-0.12, 1.0)
    if filled is not None:
        bar = figure.colorbar(
            filled, ax=list(panels), label="marginal test NLL, nats per point", shrink=0.8
        )
        bar.set_ticks(levels[::3], labels=[f"{level:.3g}" for level in levels[::3]])
    figure.suptitle(title, fontsize=10)
    save_png(figure, path)
