"""Validation scores of a distribution during its fit, and a check of its scales."""

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.posteriors import Posterior

# Points of the validation split that are used in a history row. It is bounded to keep monitoring
# cheap.
VALIDATION_POINTS = 1000
VALIDATION_DRAWS = 10
"""Draws for the validation NLL of a history row: enough to monitor, too few to report."""


def are_valid_scales(scale: Tensor) -> bool:
    """Return whether all scales are positive and finite.

    A scale can overflow or underflow although its logarithm is finite.

    Args:
        scale: standard deviations.
    """
    return bool(((scale > 0) & torch.isfinite(scale)).all())


def validation_scores(posterior: Posterior, dataset: Dataset) -> dict[str, float | None]:
    """Return the marginal NLL per point of the validation split and, for classes, the accuracy.

    Args:
        posterior: the distribution to score.
        dataset: at most `VALIDATION_POINTS` points of its validation split are used.

    Returns:
        `validation_nll` in the target's own units, None without a validation split, and
        `validation_accuracy` for classification.
    """
    if len(dataset.validation) == 0:
        return {"validation_nll": None}
    part = dataset.validation.take(slice(0, VALIDATION_POINTS))
    predictive = posterior.predict(part.x)
    nll = -part.mean(predictive.log_prob(part.y))
    scores: dict[str, float | None] = {"validation_nll": nll}
    if predictive.is_classification:
        correct = predictive.probabilities().argmax(-1) == part.y.cpu()
        scores["validation_accuracy"] = part.mean(correct)
    return scores
