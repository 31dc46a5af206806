"""Measure how often conformal and Bayesian regions contain the target, and how large they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from bnn_symm.data import Split
from bnn_symm.diagnostics.calibration.conformal import Conformal, central_levels, smallest_sets
from bnn_symm.diagnostics.statistics.bootstrap import Score, bootstrap_scores, weighted_mean
from bnn_symm.posteriors import Posterior, Predictive
from bnn_symm.summaries import Result

_BAYESIAN = {"numbers": "central interval", "classes": "smallest set of classes"}


@dataclass(frozen=True, kw_only=True)
class RegionCoverage(Result):
    """Coverage and size of regions of one level, over points.

    Attributes:
        region: what the regions are.
        coverage: share of points whose target is in the region.
        size: mean width of intervals in the target's own units, or number of classes of sets.
    """

    region: str
    coverage: Score
    size: Score


def region_coverage(
    posterior: Posterior,
    part: Split,
    conformal: Conformal,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, RegionCoverage]:
    """Compare conformal regions with those of the posterior predictive distribution.

    Args:
        posterior: any posterior.
        part: at least one point that is neither fitted nor a calibration point; one of weight w
            counts as w points.
        conformal: calibrated regions.
        num_resamples: bootstrap resamples of the points.
        seed: seed of the resamples.

    Returns:
        `bayesian` and `conformal` -> coverage and size.
    """
    columns, start = [], 0
    for predictive in posterior.iter_predict(part.x):
        rows = slice(start, start + predictive.outputs.shape[2])
        start = rows.stop
        predictive, y = predictive.given(part.y[rows].cpu())
        own = replace(part.take(rows), y=y)
        measure = _classes if predictive.is_classification else _numbers
        columns.append(measure(predictive, own, conformal))
    values = np.concatenate(columns)
    weight = part.observations.cpu().numpy()
    names = [(kind, what) for kind in ("bayesian", "conformal") for what in ("coverage", "size")]

    def statistics(
        counts: Float[np.ndarray, "resample point"],
    ) -> Mapping[str, Float[np.ndarray, " resample"]]:
        means = weighted_mean(counts * weight, values).T
        return {" ".join(name): mean for name, mean in zip(names, means, strict=True)}

    scores = bootstrap_scores(statistics, (len(part),), num_resamples=num_resamples, seed=seed)
    regions = {"bayesian": _BAYESIAN[conformal.kind], "conformal": conformal.method}
    return {
        kind: RegionCoverage(
            region=region, coverage=scores[f"{kind} coverage"], size=scores[f"{kind} size"]
        )
        for kind, region in regions.items()
    }


def _numbers(
    predictive: Predictive, part: Split, conformal: Conformal
) -> Float[np.ndarray, "point column"]:
    """Return coverage and width of Bayesian and of conformal intervals at every point."""
    target = predictive.location + predictive.scale * part.y.cpu().double()
    columns = []
    for low, high in (
        predictive.quantiles(central_levels(conformal.level)),
        conformal.intervals(predictive),
    ):
        inside, width = (low <= target) & (target <= high), (high - low).numpy()
        columns += [inside.double().numpy(), _without_rounding_errors(width)]
    return np.stack(columns, axis=1)


def _without_rounding_errors(width: Float[np.ndarray, " point"]) -> np.ndarray:
    """Return widths with six digits: ends are found by bisection, in single precision."""
    unit = 10.0 ** (np.floor(np.log10(np.maximum(np.abs(width), 1e-300))) - 5)
    return np.where(np.isfinite(width), np.round(width / unit) * unit, width)


def _classes(
    predictive: Predictive, part: Split, conformal: Conformal
) -> Float[np.ndarray, "point column"]:
    """Return coverage and size of Bayesian and of conformal sets at every point."""
    probabilities = predictive.probabilities().numpy()
    rows, columns = np.arange(len(part)), []
    for inside in (
        smallest_sets(probabilities, conformal.level),
        conformal.sets(predictive, part.x),
    ):
        columns += [inside[rows, part.y.cpu().numpy()], inside.sum(1)]
    return np.stack(columns, axis=1).astype(np.float64)
