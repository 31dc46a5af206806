r"""Compute the continuous ranked probability score (CRPS) of predictive mixtures.

    CRPS(F, y) = \int (F(t) - 1[y <= t])^2 dt = E|Y - y| - E|Y - Y'| / 2

- Mixtures of normals have a closed form (Grimit et al. 2006, doi:10.1256/qj.05.235).
- For counts the integral is a sum over counts, or over intervals where there are thousands.
- For every other likelihood the integral is computed by quadrature.

The ranked probability score (RPS) of ordered classes is the CRPS of their numbers (Epstein 1969,
doi:10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2).
"""

import dataclasses
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.diagnostics.scores.normal_mixtures import NormalMixture
from bnn_symm.diagnostics.scores.quadrature import quadrature
from bnn_symm.models.likelihoods import count_bound, count_intervals, is_count
from bnn_symm.posteriors import Predictive

# Maximum number of normal components, whose closed form needs every pair of them, and of draws in
# the quadrature; beyond them, evenly spaced draws are used.
_COMPONENTS, _DRAWS = 500, 200
# Pairs of mixture components per batch of the closed form (32 MB in float64).
_PAIRS_AT_ONCE = 2**22


def crps(predictive: Predictive, target: Float[Tensor, " point"]) -> Float[Tensor, " point"]:
    """Return the continuous ranked probability score, in the target's own units.

    The closed form of mixtures of normals uses at most 500 components, evenly spaced among the
    draws, and the quadrature of other likelihoods at most 200 draws. The score of counts is
    infinite for an infinite rate.

    Args:
        predictive: The predictive mixture.
        target: True values.

    Returns:
        One score per point.
    """
    if is_count(predictive.likelihood):
        return _of_counts(predictive, target)
    mixture = NormalMixture.of(_thinned(predictive, 1))
    if mixture is None:
        return _by_quadrature(_thinned(predictive, _DRAWS), target)
    most = max(1, _COMPONENTS // len(mixture.mean))
    mixture = NormalMixture.of(_thinned(predictive, most)) or mixture
    # In standardized units: adding a large location first would absorb the spread of the draws.
    z = (target.double() - predictive.location) / predictive.scale
    values = []
    for points in torch.arange(len(z)).split(max(1, _PAIRS_AT_ONCE // len(mixture.mean) ** 2)):
        w, m, s = mixture.weight[:, points], mixture.mean[:, points], mixture.sd[:, points]
        near = (w * _mean_absolute(z[points] - m, s)).sum(0)
        spread = (s[:, None].square() + s[None].square()).sqrt()
        pairs = w[:, None] * w[None] * _mean_absolute(m[:, None] - m[None], spread)
        values.append(near - 0.5 * pairs.sum((0, 1)))
    return predictive.scale * torch.cat(values)


def rps(
    probabilities: Float[Tensor, "point class"], y: Int[Tensor, " point"]
) -> Float[Tensor, " point"]:
    """Return the ranked probability score, the sum of (P(class <= k) - 1[y <= k])^2 over classes k.

    It is not divided by the number of classes less one, so that it is the CRPS of class numbers: a
    certain prediction that is d classes away from the truth has the score d.

    Args:
        probabilities: Class probabilities, from the lowest class to the highest.
        y: Class indices.

    Returns:
        One score per point.

    Example:
        >>> rps(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0]))
        tensor([0.2900])
    """
    classes = torch.arange(probabilities.shape[-1], device=probabilities.device)
    reached = (y[:, None] <= classes).to(probabilities)
    # The last term is 0 for probabilities that sum to 1.
    return (probabilities.cumsum(-1) - reached)[:, :-1].square().sum(-1)


def _thinned(predictive: Predictive, most: int) -> Predictive:
    """Return the mixture of at most so many draws, evenly spaced, as those of one chain."""
    number = predictive.num_draws
    kept = torch.linspace(0, number - 1, min(number, most)).round().long()
    return dataclasses.replace(
        predictive,
        outputs=predictive.outputs.flatten(0, 1)[kept][None],
        latents={name: value.flatten()[kept][None] for name, value in predictive.latents.items()},
    )


def _mean_absolute(mean: Tensor, sd: Tensor) -> Tensor:
    """Return E|z| for z ~ Normal(mean, sd)."""
    ratio = mean / sd
    density = torch.exp(-0.5 * ratio.square()) / (2 * torch.pi) ** 0.5
    return mean * (2 * torch.special.ndtr(ratio) - 1) + 2 * sd * density


def _of_counts(predictive: Predictive, target: Tensor) -> Tensor:
    target = target.double()
    lowest, highest = count_range(predictive)
    highest = highest.maximum(target)
    finite = torch.isfinite(highest)
    total = torch.zeros_like(target)
    for first, last in count_intervals(lowest, torch.where(finite, highest, lowest)):
        number = last - first + 1
        number_below = (target - first).clamp(min=0).minimum(number)
        cdf = predictive.cdf(((first + last) / 2).floor())
        total += number_below * cdf.square() + (number - number_below) * (1 - cdf).square()
    return torch.where(finite, total, math.inf)


def count_range(predictive: Predictive) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return counts outside of which a mixture of distributions of counts has negligible mass.

    Only zero may have mass below, that of a distribution with more zeros.

    Args:
        predictive: A mixture of distributions of counts.

    Returns:
        The lowest and the highest count per point; the highest is infinite for an infinite rate.
    """
    likelihood: Any = predictive.likelihood
    given = predictive.outputs, predictive.latents
    if hasattr(likelihood, "moments_of_counts"):
        moments = likelihood.moments_of_counts(*given)
    else:
        moments = likelihood.mean(*given), likelihood.variance(*given)
    mean, variance = (moment.double().flatten(0, 1) for moment in moments)
    lowest = (mean - 10 * variance.sqrt()).nan_to_num(nan=0.0).clamp(min=0.0).floor().amin(0)
    highest = count_bound(mean, variance).nan_to_num(nan=math.inf, posinf=math.inf).ceil().amax(0)
    return lowest, highest


def _by_quadrature(predictive: Predictive, target: Tensor) -> Tensor:
    target = target.double()
    total = torch.zeros_like(target)
    for value, weight in quadrature(predictive, breaks=target):
        gap = predictive.cdf(value) - (target <= value).double()
        total += weight * gap.square()
    return total
