"""Predictions as the columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data import Preprocessing
from bnn_symm.diagnostics.calibration.conformal import Conformal
from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods import condition, has_events
from bnn_symm.posteriors import Posterior, Predictive


def prediction_columns(
    posterior: Posterior,
    preprocessing: Preprocessing,
    x: Float[Tensor, "point *feature"],
    levels: Sequence[float],
    conformal: Conformal | None = None,
    *,
    times: Sequence[float] = (),
    exposure: Float[np.ndarray, " point"] | None = None,
) -> dict[str, np.ndarray]:
    """Return predictions by the name of their column, in the units and labels of the data.

    Args:
        posterior: the posterior that predicts.
        preprocessing: encoding of the data.
        x: encoded inputs.
        levels: the levels of the quantiles.
        conformal: calibrated regions, for further columns.
        times: times at which probabilities of a later event are predicted.
        exposure: exposures of counts, in their own units; None for 1.

    Raises:
        ConfigError: if times are given for another target.
    """
    if times and not has_events(posterior.model.likelihood):
        raise ConfigError(
            f"{advise('--times', 'times')} is for survival times, but the target is of task "
            f"{preprocessing.task}; leave it out"
        )
    counts = None
    if condition(posterior.model.likelihood) == "exposure":
        exposure = np.ones(len(x)) if exposure is None else exposure
        scaled = torch.from_numpy(exposure / preprocessing.scaling.exposure_scale).to(x.dtype)
        counts = torch.stack([torch.zeros_like(scaled), scaled], dim=1)
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    for predictive in posterior.iter_predict(x):
        size = predictive.outputs.shape[2]
        if counts is not None:
            predictive, _ = predictive.given(counts[start : start + size])
        if predictive.is_classification:
            part = _class_columns(preprocessing, predictive)
        elif has_events(predictive.likelihood):
            part = _time_columns(predictive, levels, times)
        else:
            part = _number_columns(predictive, levels)
        if conformal is not None:
            points = x[start : start + size]
            part |= _conformal_columns(preprocessing, conformal, predictive, points)
        start += size
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def _number_columns(predictive: Predictive, levels: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the columns of predictions of numbers; names of several targets are in front."""
    if len(predictive.columns) == 1:
        return _regression_columns(predictive, levels)
    return {
        f"{target}_{name}": values
        for target, own in zip(predictive.column_names, predictive.columns, strict=True)
        for name, values in _regression_columns(own, levels).items()
    }


def _regression_columns(predictive: Predictive, levels: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the columns of predictions of numbers."""
    quantiles = predictive.quantiles(list(levels))
    values: dict[str, Any] = {
        "mean": predictive.mean(),
        "sd": predictive.standard_deviation(),
        "epistemic_sd": predictive.epistemic_sd(),
        "aleatoric_sd": predictive.aleatoric_sd(),
        **{f"quantile_{level:g}": row for level, row in zip(levels, quantiles, strict=True)},
    }
    return {name: value.numpy() for name, value in values.items()}


def _time_columns(
    predictive: Predictive, levels: Sequence[float], times: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return the columns of predictions of times."""
    quantiles = predictive.quantiles([0.5, *levels])
    like = quantiles[0]
    values = {
        "median": quantiles[0],
        **{f"quantile_{level:g}": row for level, row in zip(levels, quantiles[1:], strict=True)},
        **{
            f"survival_{time:g}": predictive.survival(torch.full_like(like, time)) for time in times
        },
    }
    return {name: value.numpy() for name, value in values.items()}


def _class_columns(preprocessing: Preprocessing, predictive: Predictive) -> dict[str, np.ndarray]:
    """Return the columns of predictions of classes."""
    probabilities = predictive.probabilities().numpy()
    labels = preprocessing.class_labels or ()
    return {
        "prediction": preprocessing.decode_labels(probabilities.argmax(-1)),
        **{f"probability_{label}": probabilities[:, i] for i, label in enumerate(labels)},
        "entropy": predictive.entropy().numpy(),
        "expected_entropy": predictive.expected_entropy().numpy(),
        "mutual_information": predictive.mutual_information().numpy(),
    }


def _conformal_columns(
    preprocessing: Preprocessing,
    conformal: Conformal,
    predictive: Predictive,
    x: Float[Tensor, "point *feature"],
) -> dict[str, np.ndarray]:
    """Return the columns of calibrated regions."""
    if not predictive.is_classification:
        low, high = conformal.intervals(predictive)
        return {"conformal_low": low.numpy(), "conformal_high": high.numpy()}
    inside = conformal.sets(predictive, x)
    labels = preprocessing.class_labels or ()
    return {
        **{f"in_set_{label}": inside[:, i] for i, label in enumerate(labels)},
        "set_size": inside.sum(1),
    }
