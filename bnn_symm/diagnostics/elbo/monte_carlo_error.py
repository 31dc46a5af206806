r"""Compute the Monte Carlo error of mutual information for rarely overlapping copies.

For a draw w from q, a term of the estimate is `most - c(w)`: `most` = log |G| of its permutations,

    c(w) = log sum_g q(g w) / q(w)  >=  0,
    E_q[e^c] = |G|,

because the sum includes the identity, and q^G integrates to one. c is 0 where no copy of q is near
w. If that holds for nearly all w, a small sample contains no large c: its standard deviation is 0
and underestimates the error. Known properties of c bound it. It is at least 0, and

    P(c > log |G| + s) <= e^{-s},        E[(c - log |G| - s)+] <= e^{-s},

so c is in [0, log |G| + s] up to e^{-s} nats. The standard error of n draws includes one more draw
with c = log |G|, which n draws cannot exclude. The interval is the narrower of two that hold for
means of bounded variables: Hoeffding's by relative entropy, which for c = 0 throughout is the rule
of three, and the empirical Bernstein bound.

An upper bound of a permanent of n units may be up to e^n times the permanent.

References:
    Hoeffding (1963), doi:10.1080/01621459.1963.10500830; Maurer and Pontil (2009), arXiv:0907.3740.
"""

import math
from collections.abc import Sequence
from typing import Any

import scipy
from jaxtyping import Float
from torch import Tensor

from bnn_symm.inference.variational.symmetry_information import InformationTerm
from bnn_symm.symmetry.group.permanent import log_factorial

# Level of intervals, and the corresponding quantile of the normal distribution.
LEVEL, NORMAL = 0.95, 1.96


def largest(terms: Sequence[InformationTerm]) -> float:
    """Return the maximum of the sum of the terms, in nats.

    Args:
        terms: Terms of the information.

    Returns:
        The maximum.
    """
    return math.fsum(_most(term) for term in terms)


def standard_error(information: Float[Tensor, " draw"], terms: Sequence[InformationTerm]) -> float:
    """Return the standard error of the mean, including overlaps that were not drawn.

    Args:
        information: Sum over the terms for every draw.
        terms: The terms.

    Returns:
        The standard error in nats.
    """
    most = largest(terms)
    deficit = most - information
    mean = float(deficit.mean())
    total = float((deficit - mean).square().sum()) + (most - mean) ** 2
    return math.sqrt(total) / len(deficit)


def interval(
    information: Float[Tensor, " draw"], terms: Sequence[InformationTerm]
) -> tuple[float, float]:
    """Return a 95 % interval of the expectation of the information, in nats.

    Args:
        information: Sum over the terms for every draw.
        terms: The terms.

    Returns:
        Lower and upper end.
    """
    most, number = largest(terms), len(information)
    tail = math.log(max(2, number))
    bound = most + math.fsum(
        tail + (len(t.units.units) if t.how == "bounded permanent" else 0) for t in terms
    )
    share = ((most - information).clamp(min=0, max=bound) / bound).double()
    low, high = _mean_interval(share)
    return most - bound * high - len(terms) * math.exp(-tail), most - bound * low


def _most(term: InformationTerm) -> float:
    size = len(term.units.units)
    orders = (
        math.fsum(log_factorial(len(block)) for block in term.blocks)
        if term.blocks
        else log_factorial(size)
    )
    return orders + (size * math.log(2) if term.units.flips else 0.0)


def _mean_interval(values: Float[Tensor, " draw"]) -> tuple[float, float]:
    """Return an interval of the mean of independent variables in [0, 1], the better of two bounds.

    Each end is chosen separately.
    """
    number, mean = len(values), float(values.mean())
    # Two ends, with two bounds each.
    log_odds = math.log(4 / (1 - LEVEL))
    spread = float(values.var()) if number > 1 else 1.0
    reach = math.sqrt(2 * spread * (log_odds + math.log(2)) / number)
    reach += 7 * (log_odds + math.log(2)) / (3 * max(1, number - 1))
    low, high = _by_relative_entropy(mean, log_odds / number)
    return max(low, mean - reach, 0.0), min(high, mean + reach, 1.0)


def _by_relative_entropy(mean: float, allowed: float) -> tuple[float, float]:
    """Return the range of Bernoulli means with relative entropy from `mean` up to `allowed`."""

    def excess(other: float) -> float:
        parts = [(mean, other), (1 - mean, 1 - other)]
        return math.fsum(p * math.log(p / q) for p, q in parts if p > 0) - allowed

    tiny = 1e-15
    high: Any = (
        scipy.optimize.brentq(excess, mean, 1 - tiny)
        if mean < 1 - tiny and excess(1 - tiny) > 0
        else 1.0
    )
    low: Any = (
        scipy.optimize.brentq(excess, tiny, mean) if mean > tiny and excess(tiny) > 0 else 0.0
    )
    return float(low), float(high)
