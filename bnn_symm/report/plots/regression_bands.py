"""Plot the predictive distribution of a regression on one input: mean, bands and points."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bnn_symm.data import Dataset
from bnn_symm.posteriors import Posterior
from bnn_symm.report.plots.figures.png import save_png

# Points of the curve, and its extent beyond the data on either side as a fraction of their range.
_CURVE_POINTS = 240
_MARGIN = 0.1
# Bands are this many standard deviations wide on either side.
_WIDTH = 2.0


def plot_regression_bands(posterior: Posterior, dataset: Dataset, path: Path) -> None:
    """Plot the predictive mean with the epistemic and the total band.

    Args:
        posterior: of a regression.
        dataset: with a single input; its training and test points are drawn.
        path: of the PNG.

    Raises:
        ValueError: if the data have more than one input.
    """
    if dataset.input_shape != (1,):
        raise ValueError(
            f"bands require a single input; the data have the input shape {dataset.input_shape}"
        )
    scaling = dataset.scaling
    mean, scale = float(scaling.x_mean[0]), float(scaling.x_scale[0])
    every = torch.cat([dataset.train.x, dataset.test.x])
    low, high = float(every.min()), float(every.max())
    margin = _MARGIN * (high - low)
    grid = torch.linspace(low - margin, high + margin, _CURVE_POINTS)[:, None]
    predictive = posterior.predict(grid)
    x = mean + scale * grid[:, 0].numpy()
    center = predictive.mean().numpy()
    epistemic = _WIDTH * predictive.epistemic_sd().numpy()
    total = _WIDTH * predictive.standard_deviation().numpy()

    figure = Figure(figsize=(7.0, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        x, center - total, center + total, color="0.88", lw=0, label="2 sd, including noise"
    )
    axes.fill_between(
        x, center - epistemic, center + epistemic, color="#7fb0d8", lw=0, label="2 sd, epistemic"
    )
    axes.plot(x, center, color="#0b3c5d", lw=1.5, label="predictive mean")
    for part, marker, color, label in (
        (dataset.test, "x", "0.45", "test points"),
        (dataset.train, "o", "black", "training points"),
    ):
        where = mean + scale * part.x[:, 0].numpy()
        target = scaling.y_mean + scaling.y_scale * part.y.numpy()
        axes.plot(where, target, marker, color=color, ms=3, mew=0.8, label=label)
    axes.set_xlabel(dataset.feature_names[0])
    axes.set_ylabel(dataset.preprocessing.target or "y")
    axes.set_title(f"{posterior.info.get('method', 'posterior')} on {dataset.name}", fontsize=10)
    axes.set_xlim(x.min(), x.max())
    axes.set_ylim(*_limits(center, total))
    axes.legend(fontsize=8, ncols=2, frameon=False)
    save_png(figure, path)


def _limits(center: np.ndarray, total: np.ndarray) -> tuple[float, float]:
    low, high = float((center - total).min()), float((center + total).max())
    # Room above for the legend.
    return low - 0.05 * (high - low), high + 0.25 * (high - low)
