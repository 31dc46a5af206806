"""Score predicted distributions of numbers, for many resamples at once, in the target's own units.

Proper scores (`nll`, `crps`), errors of the mean (`rmse`, `mae`, `r2`), calibration (`coverage_*`,
`qce`, `pit_distance`) and sharpness (`sd`, `epistemic_sd`, `width_*`), which is desirable only in
calibrated predictions (Gneiting et al. 2007, doi:10.1111/j.1467-9868.2007.00587.x).
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from bnn_symm.diagnostics.scores.point_predictions import (
    INTERVALS,
    ColumnPredictions,
    NumberPredictions,
)
from bnn_symm.diagnostics.statistics.bootstrap import Statistics, weighted_mean

# Levels of the quantiles whose frequencies `qce` compares.
QUANTILE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Scores that noise increases (see `bootstrap`).
CALIBRATION_DISTANCES = ("qce", "pit_distance")
# Scores of each of several target columns, beside the means over columns.
_OF_COLUMNS = ("nll", "rmse", "mae", "crps", "coverage_90")


def number_statistics(predictions: NumberPredictions) -> Statistics:
    """Return a function from counts (resample, point) to every score of each resample, by name.

    The scores are `nll` (nats per point), `rmse`, `mae`, `r2` (1 - mean squared error / variance of
    the targets of the resample), `crps`; `coverage_50`, `coverage_90`,
    `coverage_95` of the central intervals; `qce`, the mean over the levels 0.1, ..., 0.9 of
    |frequency of targets below the quantile - level|; `pit_distance`, the Kolmogorov-Smirnov
    distance of the PIT to uniform, and `pit_mean` (0.5 without bias); `sd`, `epistemic_sd` and
    `width_50`, `width_90`, `width_95`, means over points.

    Args:
        predictions: Predictions at the points.

    Returns:
        The function.
    """
    target, error = predictions.target, predictions.mean - predictions.target
    centered = target - target.mean()  # variances are not sums of large numbers
    names = [f"{100 * width:g}" for width in INTERVALS]
    inside = (predictions.low <= target) & (target <= predictions.high)
    means = {
        "nll": -predictions.log_prob,
        "squared_error": np.square(error),
        "mae": np.abs(error),
        "centered": centered,
        "centered_square": np.square(centered),
        "crps": predictions.crps,
        **{
            f"coverage_{name}": own.astype(np.float64)
            for name, own in zip(names, inside, strict=True)
        },
        "pit_mean": predictions.pit,
        "sd": predictions.sd,
        "epistemic_sd": predictions.epistemic_sd,
        **{
            f"width_{name}": own
            for name, own in zip(names, predictions.high - predictions.low, strict=True)
        },
    }
    columns = np.stack(list(means.values()), axis=1)
    total = float(np.square(centered).mean())

    def statistics(
        weights: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        mean = dict(zip(means, weighted_mean(weights, columns).T, strict=True))
        return {
            "nll": mean["nll"],
            "rmse": np.sqrt(mean["squared_error"]),
            "mae": mean["mae"],
            "r2": 1
            - _ratio(mean["squared_error"], mean["centered_square"] - mean["centered"] ** 2, total),
            "crps": mean["crps"],
            **{f"coverage_{name}": mean[f"coverage_{name}"] for name in names},
            "qce": quantile_calibration_error(weights, predictions.pit),
            "pit_distance": distance_to_uniform(weights, predictions.pit),
            "pit_mean": mean["pit_mean"],
            "sd": mean["sd"],
            "epistemic_sd": mean["epistemic_sd"],
            **{f"width_{name}": mean[f"width_{name}"] for name in names},
        }

    return statistics


def _ratio(
    error: Float[np.ndarray, " resample"], variance: Float[np.ndarray, " resample"], total: float
) -> Float[np.ndarray, " resample"]:
    """Return the quotient, NaN where a variance is 0 up to rounding of that of all points."""
    is_positive = variance > 1e-12 * total
    return np.divide(error, variance, out=np.full(error.shape, np.nan), where=is_positive)


def column_statistics(predictions: ColumnPredictions) -> Statistics:
    """Return a function from counts (resample, point) to scores of several target columns.

    `nll` is that of all columns together. The other scores of `number_statistics` are means over
    columns, and those of each column have its name in brackets: `rmse[a]`, in its own units.

    Args:
        predictions: Predictions at the points.

    Returns:
        The function.
    """
    columns = {name: number_statistics(own) for name, own in predictions.columns.items()}
    log_loss = -predictions.log_prob[:, None]

    def statistics(
        weights: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        own = {name: column(weights) for name, column in columns.items()}
        scores = next(iter(own.values()))
        return {
            **{name: np.mean([each[name] for each in own.values()], axis=0) for name in scores},
            "nll": weighted_mean(weights, log_loss)[:, 0],
            **{
                f"{name}[{column}]": values[name]
                for column, values in own.items()
                for name in _OF_COLUMNS
            },
        }

    return statistics


def column_notes(predictions: ColumnPredictions) -> list[str]:
    """Return notes on unusual points of each target column.

    Args:
        predictions: Predictions at the points.

    Returns:
        Notes, empty if nothing is unusual.
    """
    return [
        f"{name}: {note}" for name, own in predictions.columns.items() for note in number_notes(own)
    ]


def quantile_calibration_error(
    weights: Float[np.ndarray, "resample point"], pit: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " resample"]:
    """Return the mean over levels of |fraction of targets not above the quantile - level|.

    A target is not above the quantile of a level if its PIT is not above the level.

    Args:
        weights: Counts (resample, point).
        pit: Probability integral transform of every point.

    Returns:
        One error per resample.
    """
    levels = np.array(QUANTILE_LEVELS)
    below = (pit[:, None] <= levels).astype(np.float64)
    return np.abs((weights @ below) / weights.sum(1, keepdims=True) - levels).mean(1)


def distance_to_uniform(
    weights: Float[np.ndarray, "resample point"], pit: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " resample"]:
    """Return the largest |fraction of PIT not above u - u| over u in [0, 1] (Kolmogorov-Smirnov).

    Args:
        weights: Counts (resample, point).
        pit: Probability integral transform of every point.

    Returns:
        One distance per resample.
    """
    order = np.argsort(pit)
    ordered, counts = pit[order], weights[:, order]
    above = np.cumsum(counts, axis=1) / counts.sum(1, keepdims=True)
    below = above - counts / counts.sum(1, keepdims=True)
    # For tied PIT, and those absent from a resample, these are between values that count anyway.
    return np.maximum(np.abs(above - ordered), np.abs(below - ordered)).max(1)


def number_notes(predictions: NumberPredictions) -> list[str]:
    """Return notes on unusual points and their effect on the scores.

    Args:
        predictions: Predictions at the points.

    Returns:
        Notes, empty if nothing is unusual.
    """
    notes = []
    impossible = int(np.isinf(predictions.log_prob).sum())
    if impossible:
        notes.append(f"nll is infinite: the targets of {impossible} points have density 0")
    if not np.isfinite(predictions.crps).all():
        notes.append("crps is infinite: some predicted rates are infinite")
    if len(predictions) > 1 and predictions.sd.min() == predictions.sd.max():
        notes.append(
            "every point has the same predictive standard deviation, which is uninformative about "
            "errors"
        )
    return notes
