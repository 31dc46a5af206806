"""Format numbers for people: in texts, tables, pages, figures and messages.

Numbers have significant digits, and thousands separators in place of exponents where that is
shorter to read. A missing value is a dash.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Estimate = Mapping[str, Any]
"""`mean` (or `value`), `low` and `high`, each a number or None."""

# From here on, an exponent is easier to read than digits.
_HUGE = 1e10
# Relative half-width up to which an interval is a point with errors of rounding.
_ROUNDING = 1e-9


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with significant digits, or as an integer where it has more of them.

    Args:
        value: a number, or None.
        digits: significant digits of a float.

    Returns:
        The text; a dash for None.

    Example:
        >>> [number(value) for value in (0.012345, 1234.5, 7, None)]
        ['0.0123', '1,234', '7', '-']
    """
    if value is None:
        return "-"
    if isinstance(value, int) or 10 ** (digits - 1) <= abs(value) < _HUGE:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def percent(share: float | None, decimals: int = 0) -> str:
    """Return a fraction in percent.

    Args:
        share: a fraction of 1, or None.
        decimals: of the percentage.

    Returns:
        The text; a dash for None.
    """
    return "-" if share is None else f"{100 * share:.{decimals}f} %"


def count(size: int, noun: str, plural: str = "") -> str:
    """Return a number of things with their noun.

    Args:
        size: the number.
        noun: of one thing.
        plural: of several, by default with an `s`.

    Returns:
        The text.

    Example:
        >>> count(1, "seed"), count(1200, "draw")
        ('1 seed', '1,200 draws')
    """
    return f"{size:,} {noun if size == 1 else plural or noun + 's'}"


def p_value(p: float | None) -> str:
    """Return a p-value with its relation, such as `= 0.03` and `< 0.0001`.

    Args:
        p: the p-value; None if it is undefined.

    Returns:
        The text; a dash for None.
    """
    if p is None:
        return "-"
    return "< 0.0001" if p < 1e-4 else f"= {p:.2g}" if p < 0.995 else "= 1"


def listed(items: Sequence[str]) -> str:
    """Return items joined by commas, with `and` before the last.

    Args:
        items: the items.

    Returns:
        The text.
    """
    return ", ".join(items) if len(items) < 2 else f"{', '.join(items[:-1])} and {items[-1]}"


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Return names of at most a number of characters that are as distinct as the names.

    Long names keep their beginning, or their end if it is the end that distinguishes them. Names
    that neither distinguishes stay whole.

    Args:
        names: the names.
        most: number of characters.

    Example:
        >>> shortened(["width=16, kappa=0", "width=16, kappa=1", "standard"], 12)
        ['..., kappa=0', '..., kappa=1', 'standard']
    """
    kept = most - 3
    for cut in (lambda name: name[:kept] + "...", lambda name: "..." + name[-kept:]):
        short = [name if len(name) <= most else cut(name) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return list(names)


def first_lines(texts: Sequence[str], most: int, noun: str) -> list[str]:
    """Return the first of several lines, and how many more there are.

    Args:
        texts: the lines.
        most: maximum number of lines to return.
        noun: of what is left out, in the plural.

    Returns:
        The lines.
    """
    left_out = len(texts) - most
    return [*texts[:most], *([f"and {left_out:,} more {noun}"] if left_out > 0 else [])]


def mean(estimate: Estimate | None) -> str:
    """Return the mean with as many digits as its interval supports.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text; a dash if there is no mean.
    """
    value = _value(estimate)
    if value is None or estimate is None or _half(estimate) is None:
        return number(None if value is None else float(value), 4)
    return _fixed(value, estimate)


def interval(estimate: Estimate | None) -> str:
    """Return the interval as `low to high`, with two significant digits of its half-width.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text; empty if there is no interval.
    """
    if estimate is None or _half(estimate) is None:
        return ""
    return " to ".join(_fixed(estimate[end], estimate) for end in ("low", "high"))


def sided_interval(ends: Estimate, *, higher: bool) -> str:
    """Return the interval of a difference in words, so that its sign needs no explanation.

    Args:
        ends: `low` and `high`, which are numbers.
        higher: whether higher is better.

    Returns:
        Both ends with one word, `better` or `worse`, or each with its own if zero is between them.

    Example:
        >>> sided_interval({"low": -0.2, "high": -0.1}, higher=False)
        '0.1 to 0.2 better'
        >>> sided_interval({"low": -0.2, "high": 0.1}, higher=True)
        '0.2 worse to 0.1 better'
    """
    low, high = (ends["low"], ends["high"]) if higher else (-ends["high"], -ends["low"])
    if low > 0:
        return f"{number(low)} to {number(high)} better"
    if high < 0:
        return f"{number(-high)} to {number(-low)} worse"
    return f"{number(abs(low))} worse to {number(abs(high))} better"


def mean_and_interval(estimate: Estimate | None) -> str:
    """Return `mean (low to high)`, or the mean alone.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text.
    """
    ends = interval(estimate)
    return mean(estimate) + (f" ({ends})" if ends else "")


def plus_minus(estimate: Estimate | None) -> str:
    """Return `mean +- half-width of the interval`, or the mean alone.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text.
    """
    value = _value(estimate)
    if estimate is None or value is None or _half(estimate) is None:
        return mean(estimate)
    half = max(estimate["high"] - value, value - estimate["low"])
    return f"{mean(estimate)} +- {_fixed(half, estimate)}"


def with_error(value: float | None, standard_error: float | None) -> str:
    """Return `value +- standard error`, with two significant digits of the standard error.

    Args:
        value: an estimate, or None.
        standard_error: of it, or None.

    Returns:
        The text.
    """
    if value is None or standard_error is None:
        return number(value, 4)
    ends = {"low": value - standard_error, "high": value + standard_error}
    return plus_minus({"mean": value, **ends})


def _value(estimate: Estimate | None) -> Any:
    return None if estimate is None else estimate.get("mean", estimate.get("value"))


def _half(estimate: Estimate) -> float | None:
    """Return half of the width of the interval; None if an end is undefined or infinite."""
    low, high = estimate.get("low"), estimate.get("high")
    half = math.nan if low is None or high is None else (high - low) / 2
    return half if math.isfinite(half) else None


def _fixed(value: float, estimate: Estimate) -> str:
    """Return a number with the decimals that show two significant digits of the half-width."""
    half = _half(estimate) or 0.0
    is_point = half <= _ROUNDING * abs(value)
    decimals = 4 if is_point else min(8, max(0, 1 - math.floor(math.log10(half))))
    return f"{value:z,.{decimals}f}" if abs(value) < _HUGE else number(value, 4)
