"""Place the nodes of integrals of functions of distribution functions, such as the CRPS."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.posteriors import Predictive

# Draws that place the nodes, and the standard deviations from the mean of each at which they do.
_PLACING, REACH, STEPS = 64, 6.0, 25
# Ends of intervals among the draws, and the factors of their range by which intervals in the tails
# grow; of the tail of Student's distribution with 2 degrees of freedom, 1e-4 lies beyond.
_ENDS, _TAILS = 48, 3.0 ** torch.arange(0, 9, dtype=torch.float64)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


def quadrature(
    *predictives: Predictive, breaks: Float[Tensor, " point"] | None = None
) -> Iterator[tuple[Float[Tensor, " point"], Float[Tensor, " point"]]]:
    """Yield values and weights of an integral over all numbers, one pair for each node.

    Args:
        predictives: Mixtures of one or more draws at the same points; nodes are dense where their
            draws are.
        breaks: A value of each point at which the integrand has a step.

    Returns:
        Pairs of values and weights, in the target's own units.
    """
    moments = []
    for own in predictives:
        likelihood = own.likelihood
        variance = likelihood.variance(own.outputs, own.latents)  # pyright: ignore[reportAttributeAccessIssue]
        mean = own.draw_mean().double().flatten(0, 1)
        moments.append((mean, own.scale * variance.double().flatten(0, 1).sqrt()))
    inner = place_nodes(moments, _ENDS)
    reach = _TAILS[:, None] * (inner[-1] - inner[0])
    ends = torch.cat([inner[0] - reach, inner, inner[-1] + reach])
    if breaks is not None:
        ends = torch.cat([ends, breaks[None].double()])
    ends = ends.sort(0).values
    for left, right in pairwise(ends):
        half = 0.5 * (right - left)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            yield left + half * (1 + node), half * weight


def place_nodes(
    moments: Sequence[tuple[Float[Tensor, "draw point"], Float[Tensor, "draw point"]]], number: int
) -> Float[Tensor, "node point"]:
    """Return values that are dense where the draws of some mixtures are, in increasing order.

    Args:
        moments: Means and standard deviations of the draws of each mixture.
        number: Number of values.

    Returns:
        The values of each point.
    """
    z = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)[:, None, None]
    values = []
    for mean, sd in moments:
        kept = torch.linspace(0, len(mean) - 1, min(len(mean), _PLACING)).round().long()
        spread = (mean[kept] + z * sd[kept]).flatten(0, 1)
        # Equally many of all mixtures, whatever their numbers of draws.
        values.append(spread.repeat(math.ceil(_PLACING / len(kept)), 1)[: STEPS * _PLACING])
    placed = torch.cat(values).sort(0).values
    chosen = torch.linspace(0, len(placed) - 1, number).round().long()
    return placed[chosen]
