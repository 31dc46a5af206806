"""Check monotonic linear interpolation: the loss along the straight line between two networks.

At evenly spaced positions alpha_i on the line, with L the expected NLL, Lim et al. report

    Delta               max over i of L(alpha_(i+1)) - L(alpha_i); not positive if L never increases
    local convexity     fraction of inner positions with
                        L(alpha_(i-1)) - 2 L(alpha_i) + L(alpha_(i+1)) >= 0
    global convexity    fraction of inner positions where L is not above the chord of L(0) and L(1)

From initialization to a fitted network the loss usually decreases monotonically; between two fits
it is convex only if both lie in the same basin.

References:
    Goodfellow, Vinyals and Saxe (2015), arXiv:1412.6544; Lucas et al. (2021), arXiv:2104.11044; Lim
    et al. (2024), arXiv:2405.20231.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws, losses
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior

# Number of positions in Lim et al.
_PLACES = 25
# Tolerance relative to the largest loss, for the rounding of float32 networks.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class LineShape:
    """The loss along a line.

    Attributes:
        alpha: Evenly spaced positions from 0 to 1.
        loss: Loss at each position, in nats per point.
        delta: Largest increase from one position to the next.
        is_monotone: Whether the loss never increases.
        local_convexity: Fraction of inner positions.
        global_convexity: Fraction of inner positions.
        height: Maximum of the loss above the chord.
    """

    alpha: list[float]
    loss: list[float]
    delta: float
    is_monotone: bool
    local_convexity: float
    global_convexity: float
    height: float


def line_shape(loss: Sequence[float]) -> LineShape:
    """Return the shape of losses at evenly spaced positions.

    Args:
        loss: Losses at evenly spaced positions, ends included.

    Returns:
        Monotonicity, convexity and height of the losses.

    Raises:
        ConfigError: If there are fewer than three positions, and so no inner one.
    """
    if len(loss) < 3:
        raise ConfigError(f"the shape of a line needs at least 3 positions, got {len(loss)}")
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
    part: Split,
    *,
    num_places: int = _PLACES,
    models: tuple[BayesianModel, ...] = (),
) -> LineShape:
    """Return the shape of the NLL on the straight line between two flat parameter vectors.

    Args:
        posterior: Provides the model and the units.
        start: Parameters at alpha = 0.
        end: Parameters at alpha = 1.
        part: Split of the data that is predicted.
        num_places: Number of positions, ends included.
        models: The models of both ends, if statistics of frozen batch norm differ.

    Returns:
        Losses along the line, and their shape.
    """
    line = CoupledDraws((start[None], end[None]), "straight line", models=models)
    places = [[1 - a, a] for a in np.linspace(0, 1, num_places).tolist()]
    return line_shape(
        [
            losses(posterior, line.interpolate(place), part, line.model(place)).expected_nll
            for place in places
        ]
    )
