"""Compute the histogram of the probability integral transform (PIT) with its pointwise band.

The PIT of a point is F(y), where F is its predicted distribution. It is uniform for a calibrated
model. A histogram shaped like a hill means intervals that are too wide, one shaped like a valley
intervals that are too narrow, and a slope a bias (Gneiting et al. 2007,
doi:10.1111/j.1467-9868.2007.00587.x).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float, Int

# Bins, and the number of points from which on there are more of them.
_BINS, _MANY_BINS, _MANY = 10, 20, 400


@dataclass(frozen=True, kw_only=True, eq=False)
class PitHistogram:
    """A histogram of PIT values.

    Attributes:
        left: Lower edge of every bin.
        right: Upper edge.
        count: Number of points with a PIT in the bin.
        expected: Mean number of a calibrated model.
        low: Lower end of the band of a calibrated model, the same for every bin.
        high: Upper end.
        level: Probability that a bin of a calibrated model is within its band.
    """

    left: Float[np.ndarray, " bin"]
    right: Float[np.ndarray, " bin"]
    count: Int[np.ndarray, " bin"]
    expected: float
    low: float
    high: float
    level: float

    @property
    def num_outside(self) -> int:
        """Return the number of bins outside of the band."""
        return int(((self.count < self.low) | (self.count > self.high)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the histogram as JSON types."""
        arrays = {name: getattr(self, name).tolist() for name in ("left", "right", "count")}
        return {**vars(self), **arrays, "num_outside": self.num_outside}


def pit_histogram(pit: Float[np.ndarray, " point"], *, level: float = 0.95) -> PitHistogram:
    """Return the histogram of PIT values, with the band of a calibrated model.

    Args:
        pit: Of every point, between 0 and 1.
        level: Of the band of each bin.

    Returns:
        The histogram, with 10 bins, and 20 for 400 points or more.

    Example:
        >>> histogram = pit_histogram(np.linspace(0.005, 0.995, 100))
        >>> histogram.count.tolist(), histogram.num_outside
        ([10, 10, 10, 10, 10, 10, 10, 10, 10, 10], 0)
    """
    bins = _MANY_BINS if len(pit) >= _MANY else _BINS
    count, edges = np.histogram(pit, np.linspace(0, 1, bins + 1))
    number = scipy.stats.binom(len(pit), 1 / bins)
    return PitHistogram(
        left=edges[:-1],
        right=edges[1:],
        count=count,
        expected=len(pit) / bins,
        low=float(number.ppf((1 - level) / 2)),
        high=float(number.ppf((1 + level) / 2)),
        level=level,
    )
