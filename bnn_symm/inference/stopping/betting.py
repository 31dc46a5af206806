r"""Confidence bounds for the mean of bounded values, by betting.

A bettor with capital 1 bets against the hypothesis that the mean of independent values x_i in
[-b, b] is at least m. After the i-th value the capital is multiplied by

    1 + l_i (m - x_i),          0 <= l_i <= c / (b - m),   c < 1

where l_i depends on earlier values only. If the hypothesis is true, the capital is a nonnegative
supermartingale, so it ever exceeds 1 / delta with probability at most delta (Ville's inequality).
The upper bound is the smallest m from which on all hypotheses are rejected; the lower bound is that
of -x_i. No distribution is assumed, and the bound holds for every number of values.

The bets are those of Waudby-Smith & Ramdas, equation 15, for a known number n of values,

    l_i = sqrt(2 log(1 / delta) / (n v_i))

with v_i the variance of the values before the i-th.

References:
    Waudby-Smith & Ramdas 2024, arXiv:2010.09686.
"""

import math

import numpy as np
from jaxtyping import Float

# c, which keeps the capital above 0; and hypotheses that are tested, on an even grid.
_LARGEST_BET, _HYPOTHESES = 0.75, 1001
# Before any value, the standard deviation is assumed to be this fraction of the bound.
_FIRST_SD = 0.25
# Hypotheses at once, so that temporaries stay small.
_AT_ONCE = 64


def betting_interval(
    values: Float[np.ndarray, " value"], *, bound: float, delta: float
) -> tuple[float, float]:
    """Return a lower and an upper confidence bound for the mean of independent values.

    Each is wrong with probability at most `delta`, whatever the distribution of the values.

    Args:
        values: in an order that does not depend on them; values beyond the bound are clipped to it,
            and the interval is that of the mean of clipped values.
        bound: b, the largest absolute value.
        delta: level of each bound.

    Example:
        >>> import numpy as np
        >>> low, high = betting_interval(np.full(500, 0.1), bound=1.0, delta=0.01)
        >>> round(low, 2), round(high, 2)
        (0.09, 0.11)
    """
    if len(values) == 0:
        return -bound, bound
    clipped = np.clip(values, -bound, bound)
    upper = _upper_bound(clipped, bound, delta)
    return -_upper_bound(-clipped, bound, delta), upper


def fewest_values(margin: float, *, bound: float, delta: float) -> int:
    """Return how many values of exactly 0 have an upper confidence bound below a margin.

    With fewer values, no data without a difference can show that the mean is below the margin.

    Args:
        margin: between 0 and the bound.
        bound: b.
        delta: level of the bound.
    """
    growth = math.log1p(_LARGEST_BET * margin / (bound - margin))
    return math.ceil(math.log(1 / delta) / growth)


def _upper_bound(values: Float[np.ndarray, " value"], bound: float, delta: float) -> float:
    bets = _bets(values, bound, delta)
    grid = np.linspace(-bound, bound, _HYPOTHESES)[:-1]  # a mean of at least b is never rejected
    largest = np.concatenate(
        [
            _log_capital(values, bets, bound, part).max(-1)
            for part in np.split(grid, range(_AT_ONCE, len(grid), _AT_ONCE))
        ]
    )
    kept = np.flatnonzero(largest < math.log(1 / delta))
    after = int(kept[-1]) + 1 if len(kept) else 0
    return float(grid[after]) if after < len(grid) else bound


def _bets(
    values: Float[np.ndarray, " value"], bound: float, delta: float
) -> Float[np.ndarray, " value"]:
    """Return the bet on each value, which depends on earlier ones only."""
    number = np.arange(1, len(values) + 1)
    means = np.cumsum(values) / (number + 1)
    squares = (_FIRST_SD * bound) ** 2 + np.cumsum(np.square(values - means))
    variances = np.concatenate([[(_FIRST_SD * bound) ** 2], (squares / (number + 1))[:-1]])
    return np.sqrt(2 * math.log(1 / delta) / (len(values) * variances))


def _log_capital(
    values: Float[np.ndarray, " value"],
    bets: Float[np.ndarray, " value"],
    bound: float,
    means: Float[np.ndarray, " hypothesis"],
) -> Float[np.ndarray, "hypothesis value"]:
    """Return the log capital after each value, against each hypothesis."""
    limited = np.minimum(bets, _LARGEST_BET / (bound - means)[:, None])
    return np.cumsum(np.log1p(limited * (means[:, None] - values)), axis=-1)
