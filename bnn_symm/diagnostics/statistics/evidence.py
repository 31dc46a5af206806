"""The number behind a verdict: what was measured, and the limits that it was compared with.

A verdict is decided by comparing one number with its limits, and its sentence is built from that
same number, so that the sentence cannot quote another one that is inside its limits.
"""

from dataclasses import dataclass
from typing import Any

# Significant digits of a number in a sentence, and the most that are needed to tell it from its
# limit.
_DIGITS, _MOST_DIGITS = 3, 12


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A number and the limits that it was compared with.

    Attributes:
        measure: what was measured: a key of the same JSON, as a path with dots.
        value: the number.
        low: the smallest value inside the limits; None for no lower limit.
        high: the largest value inside the limits; None for no upper limit.
    """

    measure: str
    value: float | int
    low: float | int | None = None
    high: float | int | None = None

    @property
    def is_inside(self) -> bool:
        """Return whether the value is inside its limits; NaN is not."""
        return (self.low is None or self.value >= self.low) and (
            self.high is None or self.value <= self.high
        )

    @property
    def limit(self) -> float | int | None:
        """Return the limit that the value exceeds, or the nearer one if it exceeds none."""
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        return min(limits, key=lambda limit: abs(limit - self.value), default=None)

    def words(self, unit: str = "") -> str:
        """Return the value and its limits for a sentence, in as many digits as tell the value from
        each limit.

        Args:
            unit: written after each number.

        Example:
            >>> Evidence(measure="ece", value=0.1, high=0.05).words()
            '0.1 (limit 0.05)'
        """
        limits = [limit for limit in (self.low, self.high) if limit is not None]
        for digits in range(_DIGITS, _MOST_DIGITS):
            value, *others = (f"{number:.{digits}g}{unit}" for number in (self.value, *limits))
            if all(
                value != other
                for other, limit in zip(others, limits, strict=True)
                if limit != self.value
            ):
                break
        if not others:
            return value
        return f"{value} (limit{'s' * (len(others) > 1)} {' to '.join(others)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return {**vars(self), "is_inside": self.is_inside}
