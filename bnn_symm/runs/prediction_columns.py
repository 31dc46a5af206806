"""Predictions as the columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Preprocessing
from bnn_symm.diagnostics.calibration.conformal import Conformal
from bnn_symm.posteriors import Posterior, Predictive


def prediction_columns(
    posterior: Posterior,
    preprocessing: Preprocessing,
    x: Float[Tensor, "point *feature"],
    levels: Sequence[float],
    conformal: Conformal | None = None,
) -> dict[str, np.ndarray]:
    """Return predictions by the name of their column, in the units and labels of the data.

    Args:
        posterior: the posterior that predicts.
        preprocessing: encoding of the data.
        x: encoded inputs.
        levels: the levels of the quantiles.
        conformal: calibrated regions, for further columns.
    """
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    for predictive in posterior.iter_predict(x):
        part = (
            _class_columns(preprocessing, predictive)
            if predictive.is_classification
            else _number_columns(predictive, levels)
        )
        size = predictive.outputs.shape[2]
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
