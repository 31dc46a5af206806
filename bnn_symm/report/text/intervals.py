"""Format means and their intervals with as many digits as the interval supports."""

import math
from collections.abc import Mapping
from typing import Any

from bnn_symm.report.text.tables import format_number

Estimate = Mapping[str, Any]
"""`mean`, `low` and `high`, each a number or None."""


def decimals_of(estimate: Estimate) -> int:
    """Return the number of decimals that show two significant digits of half the interval.

    Args:
        estimate: a mean with its interval.

    Returns:
        At most four, and four without an interval.
    """
    low, high = estimate.get("low"), estimate.get("high")
    half = 0.0 if low is None or high is None else (high - low) / 2
    return 4 if half <= 0 else min(4, max(0, 1 - math.floor(math.log10(half))))


def mean_text(estimate: Estimate | None) -> str:
    """Return the mean without its interval.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text; a dash if there is no mean.
    """
    if estimate is None or estimate.get("mean") is None:
        return "-"
    if estimate.get("low") is None or estimate.get("high") is None:
        return format_number(float(estimate["mean"]))
    return f"{estimate['mean']:,.{decimals_of(estimate)}f}"


def range_text(estimate: Estimate | None) -> str:
    """Return the interval as `low to high`.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text; empty if there is no interval.
    """
    if estimate is None or estimate.get("low") is None or estimate.get("high") is None:
        return ""
    decimals = decimals_of(estimate)
    return f"{estimate['low']:,.{decimals}f} to {estimate['high']:,.{decimals}f}"


def interval_text(estimate: Estimate | None) -> str:
    """Return `mean (low to high)`, or the mean alone.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text.
    """
    spread = range_text(estimate)
    return mean_text(estimate) + (f" ({spread})" if spread else "")


def plus_minus_text(estimate: Estimate | None) -> str:
    """Return `mean +- half of the interval`, or the mean alone.

    Args:
        estimate: a mean with its interval.

    Returns:
        The text, with two significant digits of the half-width.
    """
    if estimate is None or not range_text(estimate):
        return mean_text(estimate)
    half = max(estimate["high"] - estimate["mean"], estimate["mean"] - estimate["low"])
    return f"{mean_text(estimate)} +- {half:,.{decimals_of(estimate)}f}"
