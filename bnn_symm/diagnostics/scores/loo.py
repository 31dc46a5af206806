"""Estimate leave-one-out predictions from one fit by PSIS-LOO, through ArviZ.

elpd_loo = sum_i log p(y_i | y without y_i), with draws of the posterior of all points reweighted by
1 / p(y_i | draw), the largest weights smoothed (Pareto-smoothed importance sampling; Vehtari,
Gelman and Gabry 2017, doi:10.1007/s11222-016-9696-4). A Pareto k above 0.7 means that reweighting
does not reach the posterior without the point; with many such points elpd_loo is unreliable. Only
log likelihoods are used, which do not depend on the numbering of hidden units: chains in copies of
one mode are as good as chains in the same one. The draws must be from the posterior, though; for an
approximation, the approximation is reweighted, and k does not detect its error.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.errors import MissingExtra, require_extra
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.posteriors.io.arviz import from_groups
from bnn_symm.summaries import Result

# Smoothing fits the largest 20 % of the weights, and needs at least five of them.
_LEAST_DRAWS = 25
# Above it the reweighted mean converges too slowly (Vehtari et al. 2024, arXiv:1507.02646).
K_THRESHOLD = 0.7
# Log likelihoods in memory at once (128 MB in float64); beyond it, evenly spaced draws are used.
_NUMBERS = 2**24


@dataclass(frozen=True, kw_only=True)
class Loo(Result):
    """Leave-one-out predictions of training points.

    Attributes:
        elpd: Expected log pointwise predictive density, summed over points, in nats and the
            target's own units; None if not defined.
        standard_error: Standard error of `elpd` over points.
        p_loo: Effective number of parameters: the excess of the log density of fitted points.
        num_bad: Number of points with a Pareto k above 0.7.
        k_max: Largest Pareto k.
        num_points: Number of points.
        num_draws: Number of reweighted draws.
        notes: Caveats; the reason comes first if undefined.
    """

    elpd: float | None
    standard_error: float | None
    p_loo: float | None
    num_bad: int | None
    k_max: float | None
    num_points: int
    num_draws: int
    notes: tuple[str, ...]


def loo(posterior: Posterior, part: Split, *, max_points: int = 2000) -> Loo:
    """Return PSIS-LOO of a posterior at points that it was fitted to.

    Args:
        posterior: Posterior with at least 25 draws in all.
        part: Training points.
        max_points: Maximum number of points, the first ones; the order of a training split is
            random.

    Returns:
        The estimate, or why it is undefined.
    """
    if part.weight is not None:
        reason = (
            "undefined: points have weights, and without a point of weight w the posterior lacks w "
            "observations"
        )
        return _undefined(reason, len(part), posterior.shape[0] * posterior.shape[1])
    notes = []
    total = len(part)
    part = part.take(slice(0, max_points))
    if len(part) < total:
        notes.append(f"for the first {len(part)} of {total} training points")
    chains, draws, _ = posterior.shape
    if chains * draws < _LEAST_DRAWS or len(part) == 0:
        what = f"{chains * draws} draws" if len(part) else "no training points"
        needed = f"reweighting needs at least {_LEAST_DRAWS} draws and a training split"
        reason = f"undefined: {what}; {needed}"
        return _undefined(reason, len(part), chains * draws)
    try:
        require_extra("arviz", "arviz", "it")
    except MissingExtra as error:
        return _undefined(f"undefined: {error}", len(part), chains * draws)
    log_likelihood, thinned = _log_likelihood(posterior, part)
    if thinned:
        notes.append(f"with {log_likelihood.shape[1]} evenly spaced draws of each chain's {draws}")
    if not np.isfinite(log_likelihood).all():
        return _undefined(
            "undefined: some draws give a point probability 0", len(part), chains * draws
        )
    efficiency = (
        _relative_efficiency(log_likelihood) if isinstance(posterior, SamplePosterior) else 1.0
    )
    elpd, standard_error, p_loo, k = _through_arviz(log_likelihood, efficiency)
    bad = int((k > K_THRESHOLD).sum())
    if bad:
        notes.append(
            f"Pareto k above {K_THRESHOLD} at {bad} of {len(part)} points: reweighting does not "
            "reach the posterior without them, so elpd_loo is unreliable; use held-out points, or "
            "refit without these"
        )
    return Loo(
        elpd=elpd,
        standard_error=standard_error,
        p_loo=p_loo,
        num_bad=bad,
        k_max=float(k.max()),
        num_points=len(part),
        num_draws=log_likelihood.shape[0] * log_likelihood.shape[1],
        notes=(*notes, *_draw_notes(posterior)),
    )


def _undefined(reason: str, points: int, draws: int) -> Loo:
    numbers = dict.fromkeys(("elpd", "standard_error", "p_loo", "num_bad", "k_max"))
    return Loo(**numbers, num_points=points, num_draws=draws, notes=(reason,))


def _log_likelihood(
    posterior: Posterior, part: Split
) -> tuple[Float[np.ndarray, "chain draw point"], bool]:
    chains, draws, _ = posterior.shape
    kept = min(draws, max(1, _NUMBERS // (chains * len(part))))
    where = torch.linspace(0, draws - 1, kept).round().long()
    columns, start = [], 0
    for predictive in posterior.iter_predict(part.x):
        y = part.y[start : start + predictive.outputs.shape[2]].cpu()
        start += len(y)
        columns.append(predictive.draw_log_prob(y)[:, where].double())
    return torch.cat(columns, 2).numpy(), kept < draws


def _relative_efficiency(log_likelihood: Float[np.ndarray, "chain draw point"]) -> float:
    """Return effective draws per draw, for log likelihoods: weights depend on the numbering."""
    chains, draws, _ = log_likelihood.shape
    if draws < MIN_DRAWS:
        return 1.0
    ess = chain_statistics(log_likelihood).ess_bulk
    if not (ess > 0).any():
        return 1.0  # constant likelihoods
    # At most 1: with more, fewer of the largest weights would be smoothed.
    return float(min(np.nanmean(ess) / (chains * draws), 1.0))


def _through_arviz(
    log_likelihood: Float[np.ndarray, "chain draw point"], efficiency: float
) -> tuple[float, float, float, np.ndarray]:
    """Return elpd, its standard error, p_loo and the Pareto k of each point.

    ArviZ 0.x and 1.x name them differently.
    """
    import arviz

    data = from_groups({"log_likelihood": {"y": log_likelihood}})
    with warnings.catch_warnings():
        # Large Pareto k are counted and reported in the notes.
        warnings.simplefilter("ignore")
        result = arviz.loo(data, pointwise=True, reff=efficiency)
    names = (("elpd_loo", "elpd"), ("se", "se"), ("p_loo", "p"))
    elpd, standard_error, p_loo = (
        float(getattr(result, old if hasattr(result, old) else new)) for old, new in names
    )
    k = np.array(result.pareto_k, dtype=np.float64)
    # Equal weights have no tail to fit, and need no smoothing.
    k[np.ptp(log_likelihood, axis=(0, 1)) == 0] = 0.0
    return elpd, standard_error, p_loo, k


def _draw_notes(posterior: Posterior) -> list[str]:
    """Return notes on the effect of the kind of draws."""
    notes = []
    if not isinstance(posterior, SamplePosterior):
        notes.append(
            "its draws are those of a closed-form approximation, not of the posterior: elpd_loo "
            "inherits its error, which Pareto k do not detect"
        )
    temperature = posterior.info.get("temperature")
    if temperature not in (None, 1, 1.0):
        notes.append(
            f"its draws are from a posterior at temperature {temperature:g}, not 1, so elpd_loo is "
            "biased"
        )
    return notes
