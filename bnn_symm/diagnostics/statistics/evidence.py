"""Represent the number behind a verdict: a measured value and its limits.

A verdict compares one number with its limits, and its sentence is built from the same number, so
the sentence cannot quote another number that is within its limits.
"""

import math
from dataclasses import dataclass
from typing import Any

# Minimum and maximum number of significant digits of a number in a sentence.
_DIGITS, _MOST_DIGITS = 3, 12
# Relative difference up to which a value equals its limit but for errors of rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A number and its limits.

    Attributes:
        measure: Name of the number: a key of the same JSON, as a path with dots.
        value: The number.
        low: Lower limit, included; None if there is none.
        high: Upper limit, included; None if there is none.
    """

    measure: str
    value: float | int
    low: float | int | None = None
    high: float | int | None = None

    @property
    def is_inside(self) -> bool:
        """Return whether the value is within its limits; NaN is not."""
        return (self.low is None or self.value >= self.low) and (
            self.high is None or self.value <= self.high
        )

    @property
    def limit(self) -> float | int | None:
        """Return the limit that the value exceeds, or the nearer one if it exceeds none."""
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        return min(limits, key=lambda limit: abs(limit - self.value), default=None)

    def describe(self, unit: str = "") -> str:
        """Return the value and its limits as text, with enough digits to show their difference.

        Args:
            unit: Unit after each number.

        Returns:
            The value, with its limits in parentheses.

        Example:
            >>> Evidence(measure="ece", value=0.1, high=0.05).describe()
            '0.1 (limit 0.05)'
        """
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        for digits in range(_DIGITS, _MOST_DIGITS):
            value, *others = (f"{number:.{digits}g}{unit}" for number in (self.value, *limits))
            if all(
                value != other
                for other, limit in zip(others, limits, strict=True)
                if not math.isclose(limit, self.value, rel_tol=_ROUNDING)
            ):
                break
        if not others:
            return value
        return f"{value} (limit{'s' * (len(others) > 1)} {' to '.join(others)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return {**vars(self), "is_inside": self.is_inside}
