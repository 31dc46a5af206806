"""What is asked of a fitted distribution while it is fitted: whether it is one, and how good it
is.
"""

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.inference.optimization.training_loop import VALIDATION_POINTS
from bnn_symm.posteriors import Posterior

VALIDATION_DRAWS = 10
"""Draws behind the validation NLL of a history row: enough to watch, too few to report."""


def are_valid_scales(scale: Tensor) -> bool:
    """Whether every scale is positive and finite: its logarithm may be finite beyond where exp
    is.
    """
    return bool(((scale > 0) & torch.isfinite(scale)).all())


def validation_scores(posterior: Posterior, dataset: Dataset) -> dict[str, float | None]:
    """Marginal NLL a point on the validation part, in the target's own units; of classes, the
    accuracy beside it.

    Without such a part the NLL is None.
    """
    if len(dataset.validation) == 0:
        return {"validation_nll": None}
    part = dataset.validation.take(slice(0, VALIDATION_POINTS))
    predictive = posterior.predict(part.x)
    found: dict[str, float | None] = {"validation_nll": -float(predictive.log_prob(part.y).mean())}
    if predictive.is_classification:
        right = predictive.probabilities().argmax(-1) == part.y.cpu()
        found["validation_accuracy"] = float(right.double().mean())
    return found
