"""Monotonic linear interpolation: how the loss goes along the straight line between two networks.

At evenly spaced places alpha_i of the line, with L the expected NLL of the points there, Lim et al.
count

    Delta               max over i of L(alpha_(i+1)) - L(alpha_i): not positive where the loss only
    falls local convexity     the share of inner places where L(alpha_(i-1)) - 2 L(alpha_i) +
    L(alpha_(i+1)) >= 0 global convexity    the share of inner places where L is not above the chord
    from L(0) to L(1)

From an initial value to what a fit made of it, most networks go down all the way; between two fits,
only such as lie in one basin are convex.

References:
    Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544; Lucas et al. (2021), arXiv:2104.11044; Lim
    et al. (2024), arXiv:2405.20231.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Part
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws, losses
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior

# Places that Lim et al. look at.
_PLACES = 25
# Of the largest loss: losses of float32 networks differ by this where they should be equal.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class LineShape:
    """The loss along a line.

    Attributes:
        alpha: evenly spaced positions from 0 to 1.
        loss: at each of them, in nats a point.
        delta: the largest step up from one place to the next.
        is_monotone: whether no step goes up.
        local_convexity: share of inner places.
        global_convexity: share of inner places.
        height: of the loss above the chord, at its maximum.
    """

    alpha: list[float]
    loss: list[float]
    delta: float
    is_monotone: bool
    local_convexity: float
    global_convexity: float
    height: float


def line_shape(loss: Sequence[float]) -> LineShape:
    """The shape of losses at evenly spaced places.

    Raises:
        ConfigError: for fewer than three places, none of which is an inner one.
    """
    if len(loss) < 3:
        raise ConfigError(f"the shape of a line wants 3 places or more, got {len(loss)}")
    values, alpha = np.asarray(loss), np.linspace(0, 1, len(loss))
    rounding = _ROUNDING * float(np.abs(values).max())
    above = values - (1 - alpha) * values[0] - alpha * values[-1]
    delta = float(np.diff(values).max())
    return LineShape(
        alpha=alpha.tolist(),
        loss=values.tolist(),
        delta=delta,
        is_monotone=delta <= rounding,
        local_convexity=float((np.diff(values, 2) >= -rounding).mean()),
        global_convexity=float((above[1:-1] <= rounding).mean()),
        height=max(0.0, float(above.max())),
    )


def loss_along_line(
    posterior: Posterior,
    start: Float[Tensor, " parameter"],
    end: Float[Tensor, " parameter"],
    part: Part,
    *,
    num_places: int = _PLACES,
) -> LineShape:
    """The NLL of the networks on the straight line between two flat vectors.

    Args:
        posterior: whose model and units are used.
        start: at alpha = 0.
        end: at alpha = 1.
        part: of the data that is predicted.
        num_places: on the line, the ends included.
    """
    line = CoupledDraws((start[None], end[None]), "straight line")
    places = np.linspace(0, 1, num_places).tolist()
    return line_shape([losses(posterior, line.at([1 - a, a]), part).expected_nll for a in places])
