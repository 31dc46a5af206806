"""Score class probabilities, for many resamples at once.

Proper scores (`nll`, `brier`, and `rps` of ordered classes), calibration of the confidence (`ece`,
`aece`, `cwce`, `mce`), averages over classes (`auc`, `balanced_accuracy`), detection of errors by
the confidence (`auroc_errors`, `aupr_errors`, `aurc`) and uncertainty (`entropy`,
`mutual_information`). The confidence of a point is its largest probability; the first
of tied classes is predicted.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float

from bnn_symm.diagnostics.calibration.calibration_errors import (
    class_wise_error,
    equal_mass_error,
    equal_width_bins,
    expected_error,
    maximum_error,
)
from bnn_symm.diagnostics.scores.class_averages import balanced_accuracy, macro_auroc
from bnn_symm.diagnostics.scores.crps import rps
from bnn_symm.diagnostics.scores.point_predictions import ClassPredictions
from bnn_symm.diagnostics.scores.ranking import area_under_risk_coverage, auroc, average_precision
from bnn_symm.diagnostics.statistics.bootstrap import Statistics, weighted_mean

# Scores that noise increases (see `bootstrap`).
CALIBRATION_ERRORS = ("ece", "aece", "cwce", "mce")


def class_statistics(predictions: ClassPredictions) -> Statistics:
    """Return a function from counts (resample, point) to every score of each resample, by name.

    The scores are `accuracy`; `nll` (nats per point); `brier`; `auc` (of more than two classes, the
    mean of each against the rest) and `balanced_accuracy` over classes with points; `ece` and `mce`
    over 15 bins of equal width, `aece` over 15 of equal mass, `cwce` (class-wise); `overconfidence`
    (mean confidence minus accuracy); `auroc_errors` and `aupr_errors` of 1 - confidence as a
    detector of errors; `aurc`; `entropy` and `mutual_information` (means, in nats). Ordered classes
    also have `rps`.

    Args:
        predictions: Predictions at the points.

    Returns:
        The function.
    """
    probabilities, y = predictions.probabilities, predictions.y
    confidence, doubt = probabilities.max(1), predictions.doubt
    right = probabilities.argmax(1) == y
    targets = np.zeros_like(probabilities)
    targets[np.arange(len(y)), y] = 1.0
    residual = right - confidence
    bins, bins_by_class = equal_width_bins(confidence), equal_width_bins(probabilities)
    means = {
        "accuracy": right.astype(np.float64),
        "nll": -predictions.log_prob,
        "brier": np.square(probabilities - targets).sum(1),
        "overconfidence": -residual,
        "entropy": predictions.entropy,
        "mutual_information": predictions.mutual_information,
    }
    if predictions.is_ordered:
        means["rps"] = rps(torch.from_numpy(probabilities), torch.from_numpy(y)).numpy()
    columns = np.stack(list(means.values()), axis=1)

    def statistics(
        weights: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        mean = dict(zip(means, weighted_mean(weights, columns).T, strict=True))
        residuals = weights * residual
        return {
            "accuracy": mean["accuracy"],
            "nll": mean["nll"],
            "brier": mean["brier"],
            **({"rps": mean["rps"]} if predictions.is_ordered else {}),
            "auc": macro_auroc(weights, probabilities, y),
            "balanced_accuracy": balanced_accuracy(weights, right, y),
            "ece": expected_error(residuals, bins, weights.sum(1)),
            "aece": equal_mass_error(residuals, weights, confidence),
            "cwce": class_wise_error(weights, probabilities, targets, bins_by_class),
            "mce": maximum_error(residuals, weights, bins),
            "overconfidence": mean["overconfidence"],
            "auroc_errors": auroc(weights, doubt, ~right),
            "aupr_errors": average_precision(weights, doubt, ~right),
            "aurc": area_under_risk_coverage(weights, -doubt, ~right),
            "entropy": mean["entropy"],
            "mutual_information": mean["mutual_information"],
        }

    return statistics


def class_reasons(predictions: ClassPredictions) -> dict[str, str]:
    """Return name -> why a score is not defined, for scores that may be undefined.

    Args:
        predictions: Predictions at the points.

    Returns:
        Reasons by name.
    """
    right = predictions.probabilities.argmax(1) == predictions.y
    reason = f"{'every' if right.all() else 'no'} point is right, so there is nothing to separate"
    reasons = {"auroc_errors": reason, "aupr_errors": reason, "auc": "all points have one class"}
    if np.isnan(predictions.probabilities).any():
        return dict.fromkeys(reasons, "some probabilities are not numbers")
    return reasons


def class_notes(predictions: ClassPredictions) -> list[str]:
    """Return notes on unusual points and their effect on the scores.

    Args:
        predictions: Predictions at the points.

    Returns:
        Notes, empty if nothing is unusual.
    """
    notes = []
    impossible = int(np.isinf(predictions.log_prob).sum())
    if impossible:
        notes.append(f"nll is infinite: the class of {impossible} points has probability 0")
    classes = predictions.probabilities.shape[1]
    absent = sorted(set(range(classes)) - set(predictions.y.tolist()))
    if absent:
        names = f"{', '.join(map(str, absent[:10]))}{', ...' if len(absent) > 10 else ''}"
        notes.append(
            f"no point has class {names} (by index); cwce counts it with its mean predicted "
            "probability, auc and balanced_accuracy do not count it"
        )
    confidence = predictions.probabilities.max(1)
    if len(predictions) > 1 and confidence.min() == confidence.max():
        notes.append(
            f"every point has the same confidence, {confidence[0]:.4g}, which is uninformative "
            "about errors"
        )
    return notes
