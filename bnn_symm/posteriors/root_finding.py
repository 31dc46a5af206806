"""Find roots of increasing functions, all of them at once.

References:
    Chandrupatla 1997, doi:10.1016/S0965-9978(96)00051-8.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# Halving of the interval takes at most 40 steps from 1e3 to 1e-9; this method is faster for smooth
# functions and rarely slower for others.
_STEPS = 100


def find_roots(
    function: Callable[[Tensor], Tensor],
    low: Float[Tensor, " point"],
    high: Float[Tensor, " point"],
    tolerance: Float[Tensor, " point"],
) -> Float[Tensor, " point"]:
    """Return the roots of increasing functions, by inverse quadratic interpolation and bisection.

    Args:
        function: evaluates the function of each point at one value per point.
        low: values at which the functions are not positive.
        high: values at which they are not negative.
        tolerance: largest errors.

    Returns:
        One root per point.

    Example:
        >>> two = torch.tensor([2.0], dtype=torch.float64)
        >>> root = find_roots(lambda t: t**2 - two, two / 2, two, two * 1e-12)
        >>> round(float(root), 10)
        1.4142135624
    """
    a, b = low, high
    at_a, at_b = function(a), function(b)
    fraction = torch.full_like(a, 0.5)
    best = a
    for _ in range(_STEPS):
        x = a + fraction * (b - a)
        at_x = function(x)
        # The root lies between a, the latest value, and b; c is the value before.
        is_same = (at_x > 0) == (at_a > 0)
        c, at_c = torch.where(is_same, a, b), torch.where(is_same, at_a, at_b)
        b, at_b = torch.where(is_same, b, a), torch.where(is_same, at_b, at_a)
        a, at_a = x, at_x
        best = torch.where(at_a.abs() < at_b.abs(), a, b)
        limit = tolerance / (b - a).abs()
        is_found = (limit >= 1) | (at_a == 0)
        if bool(is_found.all()):
            break
        xi, phi = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b)
        is_smooth = (phi.square() < xi) & ((1 - phi).square() < 1 - xi)
        quadratic = at_a / (at_b - at_a) * at_c / (at_b - at_c) + (c - a) / (b - a) * at_a / (
            at_c - at_a
        ) * at_b / (at_c - at_b)
        fraction = torch.where(is_smooth, quadratic, 0.5).nan_to_num(nan=0.5)
        fraction = torch.minimum(torch.maximum(fraction, 0.5 * limit), 1 - 0.5 * limit)
    return best
