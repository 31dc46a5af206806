r"""Estimate means over seeds and paired differences, with intervals and tests.

For one value per seed, with mean m and standard deviation s over n seeds, the interval is
Student's: m +- t s / sqrt(n). For one value per pair of seeds, such as a barrier, there are two
cases. If no seed is in two pairs, the values are independent, and the same holds over pairs. If
pairs share seeds they are not: their mean u is a U-statistic, and its variance is estimated by
leaving out one seed at a time (Arvesen's jackknife). With u_k the mean of the pairs without k,

    v_k = n u - (n - 1) u_k      are its pseudo-values, whose mean is u if no pair is missing;
    u +- t sd(v) / sqrt(n),      with n - 1 degrees of freedom, n the number of seeds.

Coverage of such 95 % intervals, in 20,000 simulations with normal effects x (Monte Carlo error up
to 0.3 %); in parentheses, the coverage of Student's interval for independent pairs:

| value of the pair (i, j) | 3 seeds | 5 seeds | 8 seeds |
| --- | --- | --- | --- |
| x_i + x_j | 95 % (84 %) | 95 % (59 %) | 95 % (48 %) |
| x_i + x_j + noise of the pair | 97 % (89 %) | 96 % (71 %) | 96 % (59 %) |
| noise of the pair | 99 % (95 %) | 99 % (95 %) | 99 % (95 %) |
| absolute x_i - x_j | 95 % (88 %) | 92 % (78 %) | 92 % (67 %) |
| (x_i - x_j)^2 | 83 % (73 %) | 83 % (68 %) | 85 % (60 %) |

The last is a variance: for such a skewed value (chi-squared, one degree of freedom), intervals over
seeds cover it in 82 to 85 % as well.

For folds of cross-validation there is one value per fold, the mean over its seeds, and intervals
and tests are those of one value per seed, over folds. Folds share training points, so that their
values are not independent: no unbiased estimator of the variance of their mean exists (Bengio and
Grandvalet 2004), and these standard errors and intervals are optimistic.

Differences are taken seed by seed (or pair by pair), and treated as such values. p-values are those
of the paired t-test. The sign-flip test is added where it is exact; it assumes only that a
difference is symmetric about zero. With n seeds its p-value is at least 2 / 2^n.

References:
    Arvesen 1969, doi:10.1214/aoms/1177697287 (jackknifing U-statistics); Student 1908,
    doi:10.1093/biomet/6.1.1; Fieller 1954, doi:10.1111/j.2517-6161.1954.tb00159.x (intervals of
    ratios); Bengio and Grandvalet 2004, No Unbiased Estimator of the Variance of K-Fold
    Cross-Validation, Journal of Machine Learning Research 5.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import scipy
from jaxtyping import Float

from bnn_symm.diagnostics.convergence.time_to_target import (
    MIN_RUNS,
    sign_flip_p_value,
    smallest_p_value,
)

Pair = tuple[int, int]
Unit = TypeVar("Unit", int, Pair)
"""A seed, or a pair of seeds."""
Kind = Literal["seeds", "folds", "pairs", "pairs of seeds"]
"""Unit of the values; `pairs` share no seed."""

_LEVEL = 0.95
_SINGLE = ("seeds", "folds")
# Values whose relative difference is smaller are equal up to rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean: None if there is no value.
        sd: Standard deviation of the values, not of their mean; None for fewer than two.
        standard_error: Standard error of the mean over seeds or folds; None for fewer than two, and
            for pairs of seeds.
        low: Lower end of the interval; None if there is none.
        high: Upper end of the interval.
        n: Number of seeds; for pairs that share no seed, number of pairs.
        kind: Unit of the values.
        reason: Why there is no mean or no interval; None otherwise.
    """

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    n: int
    standard_error: float | None = None
    kind: Kind = "seeds"
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First minus second, over the seeds or pairs of both.

    Attributes:
        mean: None if there is no value.
        low: Lower end of the 95 % interval; None if there is none.
        high: Upper end of the interval.
        n: Number of seeds, or of pairs that share no seed.
        kind: Unit of the values.
        p_value: Two-sided p-value of the paired t-test.
        sign_flip_p: p-value of the sign-flip test; None if it would not be exact.
        smallest_sign_flip_p: Smallest possible p-value of the sign-flip test with this number.
        reason: Why there is no p-value or no interval; None otherwise.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    kind: Kind
    p_value: float | None
    sign_flip_p: float | None
    smallest_sign_flip_p: float | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """The fraction of an effect that a control explains; 1 for all of it.

    Attributes:
        value: Ratio of the mean differences; None if the effect is not significant.
        low: Lower end of Fieller's 95 % interval.
        high: Upper end of the interval.
        n: Number of seeds, or of pairs that share no seed.
        reason: Why there is no value; None otherwise.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


def estimate(values: Iterable[float], kind: Kind = "seeds") -> Estimate:
    """Return the mean of one value per seed with Student's interval; NaN counts as missing.

    Args:
        values: One value per seed, or per fold.
        kind: Unit of the values, `seeds` or `folds`.

    Returns:
        The mean and its interval.
    """
    defined = _sorted(values)
    return _estimate(defined, defined, kind)


def pair_estimate(pairs: Mapping[Pair, float]) -> Estimate:
    """Return the mean of one value per pair of seeds, with an interval for shared seeds.

    Args:
        pairs: Seeds -> value; NaN counts as missing, and pairs may be missing.

    Returns:
        The mean and its interval, by the jackknife if pairs share seeds.
    """
    defined = _defined(pairs)
    kind, units, reason = _units(defined)
    result = _estimate(_sorted(defined.values()), _sorted(units.values()), kind)
    return (
        result
        if reason is None
        else replace(result, low=None, high=None, n=_num_seeds(defined), reason=reason)
    )


def pseudo_values(pairs: Mapping[Pair, float]) -> dict[int, float]:
    """Return the jackknife pseudo-value of each seed for the mean over pairs.

    It is n u - (n - 1) u_k, with u_k the mean of the pairs without the seed.

    Args:
        pairs: Seeds -> value; pairs may be missing.

    Returns:
        Seed -> pseudo-value.

    Raises:
        ValueError: If a seed is in all pairs, so that no pair is without it.
    """
    defined = _defined(pairs)
    seeds = sorted({seed for pair in defined for seed in pair})
    total, n = math.fsum(defined.values()), len(seeds)
    result = {}
    for seed in seeds:
        left = [value for pair, value in defined.items() if seed not in pair]
        if not left:
            raise ValueError(f"seed {seed} is in all {len(defined)} pairs; add pairs without it")
        result[seed] = n * total / len(defined) - (n - 1) * math.fsum(left) / len(left)
    return result


def paired_difference(
    first: Mapping[Unit, float], second: Mapping[Unit, float], single: Kind = "seeds"
) -> Difference:
    """Return first minus second, with the paired t-test, and the sign-flip test if it is exact.

    Sign flips are exact for one value per seed and for pairs that share no seed (above 14 of them,
    with random flips).

    Args:
        first: Seed, or pair of seeds, -> value; NaN counts as missing.
        second: The values that are subtracted; only common seeds are used.
        single: Unit of values that are not of pairs, `seeds` or `folds`.

    Returns:
        The mean difference, its interval and p-values.
    """
    mine, theirs = _defined(first), _defined(second)
    both = sorted(mine.keys() & theirs.keys())
    infinite = sum(math.isinf(mine[unit]) or math.isinf(theirs[unit]) for unit in both)
    differences = {unit: 0.0 if infinite else mine[unit] - theirs[unit] for unit in both}
    kind, units, reason = _units(differences)
    kind = single if kind == "seeds" else kind
    if not both or infinite:
        unit = "fold" if kind == "folds" else "seed"
        reason = (
            f"infinite in {infinite} of {len(both)}"
            if infinite
            else f"they have no {unit} in common"
        )
        return _no_difference(len(units), kind, reason)
    scale = max(abs(value) for unit in both for value in (mine[unit], theirs[unit]))
    values = _sorted(
        0.0 if abs(value) <= _ROUNDING * scale else value for value in differences.values()
    )
    if reason is not None:
        return replace(_no_difference(_num_seeds(differences), kind, reason), mean=_mean(values))
    if not values.any():
        none = replace(_no_difference(len(units), kind, f"the same in all {len(units)}"), mean=0.0)
        return none if len(units) < MIN_RUNS else replace(none, p_value=1.0)
    result = _estimate(values, _sorted(units.values()), kind, scale)
    exact = kind != "pairs of seeds" and len(values) > 1
    return Difference(
        mean=result.mean,
        low=result.low,
        high=result.high,
        n=result.n,
        kind=kind,
        p_value=None if result.reason else _t_test(values, _sorted(units.values())),
        # A single nonzero difference is as likely with either sign.
        sign_flip_p=None
        if not exact
        else sign_flip_p_value(values)
        if np.count_nonzero(values) > 1
        else 1.0,
        smallest_sign_flip_p=smallest_p_value(int(np.count_nonzero(values))) if exact else None,
        reason=result.reason,
    )


def share_of_effect(control: Mapping[Unit, float], treatment: Mapping[Unit, float]) -> Share:
    r"""Return the fraction of a treatment's effect that a control explains: mean(c) / mean(t).

    Both are differences from the same baseline. Fieller's interval contains the ratios r at which
    the t-test of c - r t is not significant. It is bounded exactly if the t-test of the effect is
    significant at 5 %; otherwise the fraction is not defined. For pairs that share seeds, c and t
    are pseudo-values.

    Args:
        control: Seed, or pair of seeds, -> control minus baseline; NaN counts as missing.
        treatment: Likewise for the treatment; only common seeds are used.

    Returns:
        The fraction and its interval.
    """
    mine, theirs = _defined(control), _defined(treatment)
    both = sorted(mine.keys() & theirs.keys())
    above, below = ({unit: own[unit] for unit in both} for own in (mine, theirs))
    if not both or any(math.isinf(value) for own in (above, below) for value in own.values()):
        reason = "a value is infinite" if both else "they have no seed in common"
        return Share(value=None, low=None, high=None, n=len(both), reason=reason)
    (_, c, reason), (_, t, _) = _units(above), _units(below)
    n = len(c)
    if reason is None and n < MIN_RUNS:
        reason = _too_few(n, "seeds")
    if reason is not None:
        return Share(value=None, low=None, high=None, n=n, reason=reason)
    c_mean, t_mean = _mean(_sorted(above.values())), _mean(_sorted(below.values()))
    reach = np.cov(np.array([list(c.values()), [t[unit] for unit in c]])) * _quantile(n) ** 2 / n
    # The ends solve (c_mean - r t_mean)^2 = t^2 times the variance of the mean of c - r t:
    # a r^2 - 2 b r + ... = 0.
    a = t_mean**2 - float(reach[1, 1])
    b = c_mean * t_mean - float(reach[0, 1])
    if a <= _ROUNDING * t_mean**2:
        return Share(value=None, low=None, high=None, n=n, reason="the effect is not significant")
    # Negative only by rounding.
    root = math.sqrt(max(0.0, b**2 - a * (c_mean**2 - float(reach[0, 0]))))
    return Share(value=c_mean / t_mean, low=(b - root) / a, high=(b + root) / a, n=n)


def _defined(values: Mapping[Any, float]) -> dict[Any, float]:
    return {unit: value for unit, value in values.items() if not math.isnan(value)}


def _sorted(values: Iterable[float]) -> Float[np.ndarray, " value"]:
    """Return the values in an order that does not depend on the numbering of seeds."""
    return np.array(sorted(value for value in values if not math.isnan(value)), dtype=np.float64)


def _mean(values: Float[np.ndarray, " value"]) -> float:
    return math.fsum(values) / len(values)


def _num_seeds(pairs: Iterable[Pair]) -> int:
    return len({seed for pair in pairs for seed in pair})


def _units(values: Mapping[Any, float]) -> tuple[Kind, dict[Any, float], str | None]:
    """Return the units of a t interval (pseudo-values for shared seeds), or why there is none."""
    if not any(isinstance(unit, tuple) for unit in values):
        return "seeds", dict(values), None
    if 2 * len(values) == _num_seeds(values):
        return "pairs", dict(values), None
    if any(math.isinf(value) for value in values.values()):
        return (
            "pairs of seeds",
            dict.fromkeys(sorted({seed for pair in values for seed in pair}), math.inf),
            None,
        )
    try:
        return "pairs of seeds", pseudo_values(values), None
    except ValueError:
        reason = f"all {len(values)} pairs share a seed; an interval needs pairs of the other seeds"
        return "pairs of seeds", {}, reason


def _estimate(
    values: Float[np.ndarray, " value"],
    units: Float[np.ndarray, " unit"],
    kind: Kind,
    scale: float | None = None,
) -> Estimate:
    """Return the mean of values, with the spread of units.

    Args:
        values: Values of seeds or pairs.
        units: The values themselves, or pseudo-values.
        kind: Unit of the values.
        scale: Magnitude of the numbers of which these are differences; default, their own.
    """
    n = len(units)
    infinite = int(np.isinf(values).sum())
    if not len(values) or infinite:
        reason = f"infinite in {infinite} of {len(values)}" if infinite else "there is no value"
        return Estimate(mean=None, sd=None, low=None, high=None, n=n, kind=kind, reason=reason)
    scale = float(np.abs(values).max()) if scale is None else scale
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    is_constant = spread is not None and spread <= _ROUNDING * scale
    # Possible for different values: pairs may balance so that every seed has the same mean.
    balanced = n > 1 and _standard_error(units) <= _ROUNDING * scale
    result = Estimate(
        mean=_mean(values),
        sd=0.0 if is_constant else spread,
        low=None,
        high=None,
        n=n,
        standard_error=spread / math.sqrt(n) if spread is not None and kind in _SINGLE else None,
        kind=kind,
        reason=None,
    )
    if n < MIN_RUNS:
        return replace(result, reason=_too_few(n, kind))
    if is_constant:
        reason = f"all {len(values)} values are equal, so their spread is unknown"
        return replace(result, reason=reason)
    if balanced:
        reason = f"all {n} seeds give the same mean, so its spread is unknown"
        return replace(result, reason=reason)
    reach = _quantile(n) * _standard_error(units)
    mean = _mean(values)
    return replace(result, low=mean - reach, high=mean + reach)


def _too_few(n: int, kind: Kind) -> str:
    what = {"pairs": "pair", "folds": "fold"}.get(kind, "seed")
    return f"{n} {what}{'' if n == 1 else 's'}; an interval needs at least {MIN_RUNS}"


def _no_difference(n: int, kind: Kind, reason: str) -> Difference:
    return Difference(
        mean=None,
        low=None,
        high=None,
        n=n,
        kind=kind,
        p_value=None,
        sign_flip_p=None,
        smallest_sign_flip_p=None,
        reason=reason,
    )


def _standard_error(units: Float[np.ndarray, " unit"]) -> float:
    return float(units.std(ddof=1)) / math.sqrt(len(units))


def _t_test(values: Float[np.ndarray, " value"], units: Float[np.ndarray, " unit"]) -> float:
    """Return the two-sided p-value of the t-test."""
    return float(
        2 * scipy.special.stdtr(len(units) - 1, -abs(_mean(values)) / _standard_error(units))
    )


def _quantile(n: int) -> float:
    """Return the (1 + level) / 2 quantile of Student's t with n - 1 degrees of freedom."""
    return float(scipy.special.stdtrit(n - 1, (1 + _LEVEL) / 2))
