"""Scores of predictions on one part of the data.

Proper scores and calibration of the marginal predictive distribution; torchmetrics computes what it has. Regression
scores are in the target's own units.
"""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.data import Part
from bnn_symm.models import Poisson
from bnn_symm.posteriors import Posterior, Predictive

# Bins of equal width for the expected calibration error, as in Guo et al. 2017 (arXiv:1706.04599).
ECE_BINS = 15
# Components of the mixture behind the CRPS, whose closed form needs every pair of them; of more, evenly spaced ones.
_CRPS_DRAWS = 500
# Pairs of mixture components handled at once by the closed-form CRPS (32 MB in float64).
_PAIRS_AT_ONCE = 2**22


def score(posterior: Posterior, part: Part) -> dict[str, Any] | None:
    """Scores of a posterior's predictions; None for a part without points.

    Returns:
        `points`, `nll` (nats a point, of the marginal), `expected_nll` (mean over draws), and `accuracy`, `ece`,
        `brier` for classes or `rmse`, `crps`, `coverage_90` (of the central interval) for numbers.
    """
    if len(part) == 0:
        return None
    terms: dict[str, list[Tensor]] = {}
    start = 0
    for predictive in posterior.iter_predict(part.x):
        size = predictive.outputs.shape[2]
        y = part.y[start : start + size].cpu()
        start += size
        pointwise = _classes(predictive, y) if predictive.is_classification else _numbers(predictive, y)
        pointwise["nll"] = -predictive.log_prob(y)
        pointwise["expected_nll"] = -predictive.expected_log_prob(y)
        for name, value in pointwise.items():
            terms.setdefault(name, []).append(value)
    joined = {name: torch.cat(values) for name, values in terms.items()}
    result: dict[str, Any] = {"points": len(part)}
    if "probabilities" in joined:
        result["ece"] = expected_calibration_error(joined.pop("probabilities"), part.y.cpu())
    if "squared_error" in joined:
        result["rmse"] = float(joined.pop("squared_error").mean().sqrt())
    result.update({name: float(value.double().mean()) for name, value in joined.items()})
    order = ("points", "nll", "accuracy", "rmse", "ece", "crps", "brier", "coverage_90", "expected_nll")
    return {name: result[name] for name in order if name in result}


def _classes(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    probabilities = predictive.probabilities()
    target = torch.nn.functional.one_hot(y, probabilities.shape[-1])
    return {
        "accuracy": (probabilities.argmax(-1) == y).double(),
        "brier": (probabilities - target).square().sum(-1),
        "probabilities": probabilities,
    }


def _numbers(predictive: Predictive, y: Tensor) -> dict[str, Tensor]:
    target = predictive.location + predictive.scale * y.double()
    low, high = predictive.quantiles([0.05, 0.95])
    return {
        "squared_error": (predictive.mean() - target).square(),
        "crps": crps(predictive, target),
        "coverage_90": ((low <= target) & (target <= high)).double(),
    }


def expected_calibration_error(probabilities: Float[Tensor, "point class"], y: Shaped[Tensor, " point"]) -> float:
    """Mean over 15 bins of confidence of |accuracy - confidence|, weighted by the points in the bin."""
    with warnings.catch_warnings():
        # torchmetrics imports the long-deprecated pkg_resources where it is installed.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torchmetrics.functional.classification import multiclass_calibration_error

    return float(
        multiclass_calibration_error(probabilities, y, num_classes=probabilities.shape[-1], n_bins=ECE_BINS, norm="l1")
    )


def crps(predictive: Predictive, target: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """Continuous ranked probability score of the predictive mixture, in the target's own units.

    Of a mixture of normals in closed form (Grimit et al. 2006, doi:10.1256/qj.05.235); of a mixture of Poissons as
    the sum over counts of the squared difference of distribution functions.
    """
    if isinstance(predictive.likelihood, Poisson):
        return _crps_counts(predictive, target)
    mean = predictive.draw_mean().double().flatten(0, 1)
    kept = torch.linspace(0, len(mean) - 1, min(len(mean), _CRPS_DRAWS)).round().long()
    mean = mean[kept]
    likelihood: Any = predictive.likelihood
    variance = likelihood.variance(predictive.outputs, predictive.latents).double().flatten(0, 1)[kept]
    sd = predictive.scale * variance.sqrt()
    near = _mean_absolute(target - mean, sd).mean(0)
    draws, points = mean.shape
    apart = torch.zeros(points, dtype=torch.float64)
    step = max(1, _PAIRS_AT_ONCE // (draws * points))
    for rows in torch.arange(draws).split(step):
        spread = (sd[rows, None].square() + sd[None].square()).sqrt()
        apart += _mean_absolute(mean[rows, None] - mean[None], spread).sum((0, 1))
    return near - 0.5 * apart / draws**2


def _mean_absolute(mean: Tensor, sd: Tensor) -> Tensor:
    """E|z| for z ~ Normal(mean, sd)."""
    ratio = mean / sd
    density = torch.exp(-0.5 * ratio.square()) / (2 * torch.pi) ** 0.5
    return mean * (2 * torch.special.ndtr(ratio) - 1) + 2 * sd * density


def _crps_counts(predictive: Predictive, target: Tensor) -> Tensor:
    total = torch.zeros_like(target)
    count = 0
    while True:
        value = torch.full_like(target, float(count))
        below = predictive.cdf(value)
        total += (below - (target <= count).double()).square()
        # Beyond the largest target, the terms left are squares of upper tails, which shrink faster than geometrically.
        if count >= float(target.max()) and float((1 - below).max()) < 1e-9:
            return total
        count += 1
