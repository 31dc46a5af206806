"""Leave-one-out predictions from one fit: Pareto-smoothed importance sampling (PSIS-LOO), through
ArviZ.

elpd_loo = sum_i log p(y_i | y without y_i), with draws of the posterior of all points reweighted by
1 / p(y_i | draw), the largest weights smoothed (Vehtari, Gelman and Gabry 2017,
doi:10.1007/s11222-016-9696-4). A Pareto k above 0.7 says of a point that reweighting does not reach
the posterior without it, and of many such points that elpd_loo is not to be trusted. Only log
likelihoods enter, which do not know how hidden units are numbered: chains in copies of one mode are
as good as chains in the same one. The draws have to be those of the posterior, though; of an
approximation it is the approximation that is reweighted, and no k tells of it.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from bnn_symm.data import Split
from bnn_symm.diagnostics.mixing.chain_statistics import MIN_DRAWS, chain_statistics
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.posteriors.io.arviz import from_groups

# Smoothing fits the largest 20 % of the weights, of which it needs at least five.
_LEAST_DRAWS = 25
# Above it the reweighted mean converges too slowly to be used (Vehtari et al. 2024,
# arXiv:1507.02646).
K_THRESHOLD = 0.7
# Log likelihoods held at once (128 MB in float64): of more draws, evenly spaced ones.
_NUMBERS = 2**24


@dataclass(frozen=True, kw_only=True)
class Loo:
    """Leave-one-out predictions of training points.

    Attributes:
        elpd: expected log pointwise predictive density, summed over points, in nats and the
            target's own units; None where it is not defined.
        standard_error: of `elpd` over points.
        p_loo: effective number of parameters: how much higher the points score when they are
            fitted.
        num_bad: points with a Pareto k above 0.7.
        k_max: the largest Pareto k.
        num_points: that it is of.
        num_draws: that were reweighted.
        notes: what to mind; of an undefined one first of all why.
    """

    elpd: float | None
    standard_error: float | None
    p_loo: float | None
    num_bad: int | None
    k_max: float | None
    num_points: int
    num_draws: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {**vars(self), "notes": list(self.notes)}


def loo(posterior: Posterior, part: Split, *, max_points: int = 2000) -> Loo:
    """PSIS-LOO of a posterior at points that it was fitted to.

    Args:
        posterior: at least 25 draws in all.
        part: training points.
        max_points: of more, the first ones; the order of a training part is random.
    """
    notes = []
    total = len(part)
    part = part.take(slice(0, max_points))
    if len(part) < total:
        notes.append(f"of the first {len(part)} of {total} training points")
    chains, draws, _ = posterior.shape
    if chains * draws < _LEAST_DRAWS or len(part) == 0:
        what = f"{chains * draws} draws" if len(part) else "no training points"
        reason = f"undefined: {what}, and reweighting them needs at least {_LEAST_DRAWS} draws of a training part"
        return _undefined(reason, len(part), chains * draws)
    log_likelihood, thinned = _log_likelihood(posterior, part)
    if thinned:
        notes.append(f"of {log_likelihood.shape[1]} evenly spaced draws of each chain's {draws}")
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
            "reach the posterior "
            "without them, and elpd_loo, which may be far off there in either direction, is not "
            "to be used; look at "
            f"held-out points, or refit without these"
        )
    return Loo(
        elpd=elpd,
        standard_error=standard_error,
        p_loo=p_loo,
        num_bad=bad,
        k_max=float(k.max()),
        num_points=len(part),
        num_draws=log_likelihood.shape[0] * log_likelihood.shape[1],
        notes=(*notes, *_of_the_draws(posterior)),
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
    """Effective draws a draw, of the log likelihoods; that of weights would count how units are
    numbered.
    """
    chains, draws, _ = log_likelihood.shape
    if draws < MIN_DRAWS:
        return 1.0
    ess = chain_statistics(log_likelihood).ess_bulk
    if not (ess > 0).any():
        return 1.0  # likelihoods that never change
    # 1 at most: with more, fewer of the largest weights would be smoothed.
    return float(min(np.nanmean(ess) / (chains * draws), 1.0))


def _through_arviz(
    log_likelihood: Float[np.ndarray, "chain draw point"], efficiency: float
) -> tuple[float, float, float, np.ndarray]:
    """Elpd, its standard error, p_loo and the Pareto k of each point; ArviZ 0.x and 1.x name them
    differently.
    """
    import arviz

    data = from_groups({"log_likelihood": {"y": log_likelihood}})
    with warnings.catch_warnings():
        # Large Pareto k are counted and told in words.
        warnings.simplefilter("ignore")
        found = arviz.loo(data, pointwise=True, reff=efficiency)
    names = (("elpd_loo", "elpd"), ("se", "se"), ("p_loo", "p"))
    elpd, standard_error, p_loo = (
        float(getattr(found, old if hasattr(found, old) else new)) for old, new in names
    )
    k = np.array(found.pareto_k, dtype=np.float64)
    # Equal weights have no tail to fit, and need no smoothing.
    k[np.ptp(log_likelihood, axis=(0, 1)) == 0] = 0.0
    return elpd, standard_error, p_loo, k


def _of_the_draws(posterior: Posterior) -> list[str]:
    """What the way in which draws were made does to it."""
    notes = []
    if not isinstance(posterior, SamplePosterior):
        notes.append(
            "its draws are those of an approximation in closed form, not of the posterior: "
            "elpd_loo is right as far as the approximation is, and Pareto k do not tell how far"
        )
    temperature = posterior.info.get("temperature")
    if temperature not in (None, 1, 1.0):
        notes.append(
            f"its draws are of a posterior at temperature {temperature:g}, not 1: elpd_loo is "
            "biased"
        )
    return notes
