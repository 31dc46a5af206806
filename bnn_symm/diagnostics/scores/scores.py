"""Score the predictions of a posterior on one split of the data.

Proper scores and calibration of the marginal predictive distribution. Regression scores are in the
target's own units. To add a score, compute it for every point in `_classes` or `_numbers`, and
add a line to `SCORES` of `diagnostics/measures.py`.
"""

import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.calibration_errors import equal_width_bins, expected_error
from bnn_symm.diagnostics.measures import FURTHER_SCORES, SCORES
from bnn_symm.diagnostics.scores.class_averages import balanced_accuracy, macro_auroc
from bnn_symm.diagnostics.scores.crps import crps, rps
from bnn_symm.diagnostics.scores.survival import concordance
from bnn_symm.models.likelihoods import has_events, is_ordered
from bnn_symm.posteriors import Posterior, Predictive


@checked
def score(posterior: Posterior, part: Split) -> dict[str, Any] | None:
    """Score the predictions of a posterior; None for a part without points.

    Args:
        posterior: Any posterior.
        part: Standardized points with their targets.

    Returns:
        `points`, `nll` (nats per point, of the marginal), `expected_nll` (mean over draws), and
        `accuracy`, `ece`, `brier`, `auc` and `balanced_accuracy` for classes, `rps` for ordered
        ones, `rmse`, `crps`, `coverage_90` (of the central interval) and `r2` for numbers, or
        `concordance` for times. `auc` and `r2` are None where the targets do not vary, and
        `concordance` where no two times can be ordered. Of several target columns, `nll` is that of
        all columns together, the other scores are means over columns, and `columns` has those of
        each column, in its own units. A point of weight w counts as w points.

    Example:
        >>> from bnn_symm import BayesianModel, Categorical, Prior, SamplePosterior, load_dataset
        >>> model = BayesianModel(torch.nn.Linear(4, 3), Prior(), Categorical())
        >>> posterior = SamplePosterior.from_draws(model, torch.randn(1, 20, 15))
        >>> list(score(posterior, load_dataset("iris").test))
        ['points', 'nll', 'accuracy', 'ece', 'brier', 'auc', 'balanced_accuracy', 'expected_nll']
    """
    return None if len(part) == 0 else score_points(posterior, part).scores


class ScoredPoints(NamedTuple):
    """Scores, and what further computations need of the same predictions.

    Attributes:
        scores: those of `score`.
        log_prob: log probability or density of the target of every point, in nats.
        probabilities: (point, class); None for numbers.
    """

    scores: dict[str, Any]
    log_prob: Float[np.ndarray, " point"]
    probabilities: Float[np.ndarray, "point class"] | None


def score_points(posterior: Posterior, part: Split) -> ScoredPoints:
    """Return the scores of `score`, with the log probability of the target of every point.

    Args:
        posterior: Any posterior.
        part: At least one point.
    """
    terms: dict[str, dict[str, list[Tensor]]] = {}
    start = 0
    for predictive in posterior.iter_predict(part.x):
        size = predictive.outputs.shape[2]
        y = part.y[start : start + size].cpu()
        start += size
        for column, pointwise in _pointwise(predictive, y).items():
            own = terms.setdefault(column, {})
            for name, value in pointwise.items():
                own.setdefault(name, []).append(value)
    joined = {
        column: {name: torch.cat(values) for name, values in own.items()}
        for column, own in terms.items()
    }
    columns = {column: _means(own, part) for column, own in joined.items()}
    result = {"points": len(part), **columns.pop("")}
    if columns:
        result = _mean_of_columns(columns) | result
    order = ("points", *SCORES, *FURTHER_SCORES)
    scores = {name: result[name] for name in order if name in result}
    probabilities = joined[""].get("probabilities")
    return ScoredPoints(
        scores={**scores, "columns": columns} if columns else scores,
        log_prob=-joined[""]["nll"].double().numpy(),
        probabilities=None if probabilities is None else probabilities.double().cpu().numpy(),
    )


def _pointwise(predictive: Predictive, y: Tensor) -> dict[str, dict[str, Tensor]]:
    """Return name of a column -> score -> one value per point; the empty name is all columns."""
    predictive, y = predictive.given(y)
    joint = {"nll": -predictive.log_prob(y), "expected_nll": -predictive.expected_log_prob(y)}
    if predictive.is_classification:
        return {"": _classes(predictive, y) | joint}
    if has_events(predictive.likelihood):
        time, event, median = predictive.observed(y), y[:, 1], predictive.quantiles([0.5])[0]
        return {"": {"time": time, "event": event, "median": median} | joint}
    if len(predictive.columns) == 1:
        return {"": _numbers(predictive, y) | joint}
    names = zip(predictive.column_names, predictive.columns, y.unbind(-1), strict=True)
    return {
        "": joint,
        **{name: {"nll": -own.log_prob(z), **_numbers(own, z)} for name, own, z in names},
    }


def _means(pointwise: dict[str, Tensor], part: Split) -> dict[str, float | None]:
    """Return scores from their values at every point."""
    result: dict[str, float | None] = {}
    if "probabilities" in pointwise:
        result.update(_class_scores(pointwise["probabilities"], part))
    if "squared_error" in pointwise:
        error, target = part.mean(pointwise["squared_error"]), pointwise["target"]
        result["rmse"] = math.sqrt(error)
        total = part.mean((target - part.mean(target)).square())
        result["r2"] = 1 - error / total if total > 0 else None
    if "median" in pointwise:
        keys, weight = ("time", "event", "median"), part.observations.cpu().numpy()
        time, event, median = (pointwise[key].double().numpy() for key in keys)
        value = float(concordance(time, event, median, weight[None])[0])
        result["concordance"] = None if math.isnan(value) else value
    others = {"probabilities", "squared_error", "target", "time", "event", "median"}
    return result | {
        name: part.mean(value) for name, value in pointwise.items() if name not in others
    }


def _mean_of_columns(columns: Mapping[str, dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each score over target columns; None if one of them is."""
    result: dict[str, float | None] = {}
    for name in next(iter(columns.values())):
        values = [own[name] for own in columns.values()]
        known = [value for value in values if value is not None]
        result[name] = statistics.fmean(known) if len(known) == len(values) else None
    return result


def _classes(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    probabilities = predictive.probabilities()
    target = torch.nn.functional.one_hot(y, probabilities.shape[-1])
    return {
        "accuracy": (probabilities.argmax(-1) == y).double(),
        "brier": (probabilities - target).square().sum(-1),
        "probabilities": probabilities,
        **({"rps": rps(probabilities, y)} if is_ordered(predictive.likelihood) else {}),
    }


def _class_scores(probabilities: Tensor, part: Split) -> dict[str, float | None]:
    """Return the scores that are no means over points."""
    p, y, weight = probabilities.double().cpu().numpy(), part.y.cpu(), part.observations.cpu()
    truth, weights = y.numpy(), weight.double().numpy()[None]
    area = float(macro_auroc(weights, p, truth)[0])
    return {
        "ece": expected_calibration_error(probabilities, y, weight),
        "auc": None if math.isnan(area) else area,
        "balanced_accuracy": float(balanced_accuracy(weights, p.argmax(1) == truth, truth)[0]),
    }


def _numbers(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    target = predictive.in_own_units(y)
    low, high = predictive.quantiles([0.05, 0.95])
    return {
        "target": target,
        "squared_error": (predictive.mean() - target).square(),
        "crps": crps(predictive, target),
        "coverage_90": ((low <= target) & (target <= high)).double(),
    }


def expected_calibration_error(
    probabilities: Float[Tensor, "point class"],
    y: Shaped[Tensor, " point"],
    weight: Float[Tensor, " point"] | None = None,
) -> float:
    """Return the mean over 15 bins of confidence of |accuracy - confidence|, weighted by points.

    Bins and edges are those of `calibration_errors`.

    Args:
        probabilities: Class probabilities.
        y: Class indices.
        weight: Numbers of observations for which the points stand; None for one each.

    Returns:
        The expected calibration error.
    """
    p = probabilities.double().cpu().numpy()
    confidence = p.max(1)
    residual = (p.argmax(1) == y.cpu().numpy()) - confidence
    size = float(len(p))
    if weight is not None:
        residual, size = residual * weight.numpy(), float(weight.sum())
    return float(expected_error(residual[None], equal_width_bins(confidence), size)[0])
