"""Plot the predictive distribution of a regression on one input: mean, bands and points."""

from pathlib import Path

import torch
from matplotlib.axes import Axes

from bnn_symm.data import Dataset
from bnn_symm.data.points import rates
from bnn_symm.posteriors import Posterior
from bnn_symm.report.plots.axes import NAVY, PALE, panels, set_limits, with_gaps
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
    title = f"{posterior.info.get('method', 'posterior')} on {dataset.name}"
    columns = len(dataset.scaling.columns)
    figure, every = panels(columns, (7.0, 3.6), title=title)
    for column, axes in enumerate(every):
        draw_regression_bands(axes, posterior, dataset, column)
    save_png(figure, path)


def draw_regression_bands(
    axes: Axes, posterior: Posterior, dataset: Dataset, column: int = 0
) -> None:
    """Draw the predictive mean with the epistemic and the total band.

    Args:
        axes: the panel.
        posterior: of a regression.
        dataset: with a single input; its training and test points are drawn.
        column: number of the target column, if there are several.

    Raises:
        ValueError: if the data have more than one input.
    """
    if dataset.input_shape != (1,):
        raise ValueError(
            f"bands require a single input; the data have the input shape {dataset.input_shape}"
        )
    several, dataset = bool(dataset.scaling.y_columns), dataset.column(column)
    scaling = dataset.scaling
    mean, scale = float(scaling.x_mean[0]), float(scaling.x_scale[0])
    every = torch.cat([dataset.train.x, dataset.test.x])
    low, high = float(every.min()), float(every.max())
    margin = _MARGIN * (high - low)
    grid = torch.linspace(low - margin, high + margin, _CURVE_POINTS)[:, None]
    predictive = posterior.predict(grid)
    if several:
        predictive = predictive.columns[column]
    x = mean + scale * grid[:, 0].numpy()
    center, epistemic, total = with_gaps(
        axes,
        predictive.mean().numpy(),
        _WIDTH * predictive.epistemic_sd().numpy(),
        _WIDTH * predictive.standard_deviation().numpy(),
    )
    axes.fill_between(
        x, center - total, center + total, color="0.88", lw=0, label="2 sd, including noise"
    )
    axes.fill_between(
        x, center - epistemic, center + epistemic, color=PALE, lw=0, label="2 sd, epistemic"
    )
    axes.plot(x, center, color=NAVY, lw=1.5, label="predictive mean")
    for part, marker, color, label in (
        (dataset.test, "x", "0.45", "test points"),
        (dataset.train, "o", "black", "training points"),
    ):
        where = mean + scale * part.x[:, 0].numpy()
        target = scaling.y_mean + scaling.y_scale * rates(part).numpy()
        axes.plot(where, target, marker, color=color, ms=3, mew=0.8, label=label)
    axes.set_xlabel(dataset.feature_names[0])
    unit = f" per exposure of {scaling.exposure_scale:.3g}" if dataset.train.y.dim() == 2 else ""
    axes.set_ylabel((dataset.preprocessing.target or "y") + unit)
    axes.set_xlim(x.min(), x.max())
    set_limits(axes, "y", center - total, center + total, above=0.25)  # room for the legend
    axes.legend(fontsize=8, ncols=2, frameon=False)
