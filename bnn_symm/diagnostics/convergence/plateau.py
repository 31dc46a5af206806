r"""Find the plateau of a noisy curve, its level, and its drift.

Start: the row d that makes the mean of the following rows most precise, by the marginal standard
error rule,

    minimize  ( sum_{i >= d} (y_i - mean)^2 + (n - d) eps^2 ) / (n - d)^2,

over batches of rows. Pure noise is averaged best over all rows; rows before convergence increase
the sum. The earliest start within a quarter of the minimum is used, because with few batches the
scatter is small by chance. eps, a thousandth of the total change of the curve, defines flat for a
curve without noise.

Drift: in the last two thirds of the plateau, a line through the means of up to 10 batches, with a
Student t interval. Batches longer than the correlation of the rows are nearly independent. The
drift is extrapolated to as many steps as the run has had. The plateau is

    reached       if even the ends of the interval change the level by less than a tolerance (2 % of
                  the total change),
    not reached   if the interval excludes zero and the estimate exceeds the tolerance,
    unclear       otherwise: noise hides which.

The standard error of the level comes from the same batches. For a sampler, a total change is not
defined: its plateau is reached if the drift, over the judged rows, is below two standard deviations
of them.

References:
    White 1997, doi:10.1177/003754979706900601 (the rule); Schmeiser 1982, doi:10.1287/opre.30.3.556
    (batch means).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from bnn_symm.diagnostics.convergence.convergence import Curve

Flatness = Literal["reached", "not reached", "unclear", "too short"]

# With fewer rows a drift cannot be distinguished from noise.
MIN_ROWS = 20
# Maximum change of a flat curve over as many steps again, relative to its total change.
TOLERANCE = 0.02
# Differences below this fraction of the total change are ignored.
_RESOLUTION = 1e-3
# Minimum length of a plateau, as a fraction of the rows; the end of any curve looks flat.
_LEAST_SHARE = 0.2
# The first part of a plateau is excluded from level and drift: a decay hidden by noise would still
# bias the mean of many rows.
_SETTLING = 1 / 3
_MOST_BATCHES = 10
# Factor of the minimum of the rule within which a start is as good as the best.
_AS_GOOD = 1.25
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The flat end of a curve, or its last quarter if there is none.

    Attributes:
        flatness: Whether there is a plateau.
        start: First row of the plateau, or of the last quarter. None if too short.
        level: Mean of the last two thirds of the plateau, or of the last quarter.
        standard_error: Standard error of `level`.
        low: Lower end of the 95 % interval of `level`.
        high: Upper end of the interval.
        drift: Slope of the same rows, in the quantity's unit per 1,000 steps.
        drift_low: Lower end of its 95 % interval.
        drift_high: Upper end of its interval.
        way: Change from the first smoothed value to `level`, positive if the run improved.
        tolerated: Drift per 1,000 steps that would change the level by the tolerance.
        is_long: Whether the flat end is long enough to be a plateau.
        spread: Standard deviation of the same rows.
    """

    flatness: Flatness
    start: int | None
    level: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    drift: float | None
    drift_low: float | None
    drift_high: float | None
    way: float | None
    tolerated: float | None
    is_long: bool | None
    spread: float | None


_TOO_SHORT = Plateau(
    flatness="too short",
    start=None,
    level=None,
    standard_error=None,
    low=None,
    high=None,
    drift=None,
    drift_low=None,
    drift_high=None,
    way=None,
    tolerated=None,
    is_long=None,
    spread=None,
)


def find_plateau(curve: Curve, *, tolerance: float = TOLERANCE, spreads: float = 0.0) -> Plateau:
    """Find the flat end of a curve.

    Args:
        curve: Curve with the clock `step`.
        tolerance: Maximum change of a flat curve over as many steps again, relative to its total
            change.
        spreads: For a sampler, whose spread is not noise: maximum change over the judged rows, in
            standard deviations of single rows; 0 for an optimizer.

    Returns:
        The plateau; without numbers if the curve is too short.
    """
    size = len(curve)
    if size < MIN_ROWS:
        return _TOO_SHORT
    values, steps = curve.values, curve.clocks["step"]
    total_change = abs(float(np.mean(values[-max(2, size // 10) :])) - curve.start)
    flat_start = _start(values, _RESOLUTION * total_change)
    is_long = size - flat_start >= max(MIN_ROWS // 2, _LEAST_SHARE * size)
    start = flat_start if is_long else size - max(MIN_ROWS // 2, size // 4)
    settled = start + int(_SETTLING * (size - start)) if is_long else start
    level, error, df = _level(values[settled:])
    slope, slope_error, slope_df = _slope(steps[settled:], values[settled:])
    reach, slope_reach = error * float(scipy.stats.t.isf((1 - _LEVEL) / 2, df)), 0.0
    if slope_error > 0:
        slope_reach = slope_error * float(scipy.stats.t.isf((1 - _LEVEL) / 2, slope_df))
    spread = float(np.std(values[settled:], ddof=1))
    margin = spreads * spread if spreads else tolerance * abs(level - curve.start)
    horizon = float(steps[-1] - steps[settled]) if spreads else float(steps[-1])
    return Plateau(
        flatness=_judge(slope, slope_reach, margin / horizon, is_long),
        start=start,
        level=level,
        standard_error=error,
        low=level - reach,
        high=level + reach,
        drift=1000 * slope,
        drift_low=1000 * (slope - slope_reach),
        drift_high=1000 * (slope + slope_reach),
        way=curve.sign * (curve.start - level),
        tolerated=1000 * margin / horizon,
        is_long=is_long,
        spread=spread,
    )


def pooled_flatness(chains: Sequence[Plateau]) -> Flatness:
    """Return the flatness of a sampler from the mean drift of its chains.

    The drift of a single chain is often too uncertain. A chain that has not reached its plateau by
    itself is not outvoted by the others.

    Args:
        chains: Plateaus of the chains.

    Returns:
        The pooled flatness.
    """
    present = {plateau.flatness for plateau in chains}
    for flatness in ("not reached", "too short"):
        if flatness in present:
            return flatness
    drift, reach, tolerated = pooled_drift(chains)
    return _judge(drift, reach, tolerated, all(plateau.is_long for plateau in chains))


def pooled_drift(chains: Sequence[Plateau]) -> tuple[float, float, float]:
    """Return the mean drift of chains, half the width of its 95 % interval, and its tolerance.

    Args:
        chains: Plateaus of the chains, none of them too short.

    Returns:
        Drift, half width and tolerance, per 1,000 steps.
    """
    drift, low, tolerated = (
        np.array([getattr(plateau, name) for plateau in chains])
        for name in ("drift", "drift_low", "tolerated")
    )
    return (
        float(drift.mean()),
        float(np.sqrt(np.square(drift - low).sum()) / len(chains)),
        float(tolerated.mean()),
    )


def _judge(slope: float, reach: float, tolerated: float, is_long: bool) -> Flatness:
    if abs(slope) + reach <= tolerated and is_long:
        return "reached"
    if abs(slope) > reach and abs(slope) > tolerated:
        return "not reached"
    return "unclear"


def _start(values: np.ndarray, resolution: float) -> int:
    """Return the first row that the rule keeps, for batches of rows counted from the end."""
    size = max(1, len(values) // 100)
    count = len(values) // size
    batches = values[len(values) - count * size :].reshape(count, size).mean(1)
    centered = batches - batches[-1]
    kept = np.arange(count, 0, -1)
    total, square = (np.cumsum(centered[::-1] ** power)[::-1] for power in (1, 2))
    scatter = np.maximum(square - total**2 / kept, 0.0) + kept * resolution**2
    # Over the very last batches the scatter is small by chance.
    candidates = count - max(5, count // 20)
    criterion = (scatter / kept**2)[:candidates]
    best = int(np.argmax(criterion <= _AS_GOOD * criterion.min()))
    return len(values) - count * size + best * size


def _batches(values: np.ndarray) -> np.ndarray:
    """Return means of equally long batches; surplus rows at the beginning are excluded."""
    size = max(1, len(values) // _MOST_BATCHES)
    count = len(values) // size
    return values[len(values) - count * size :].reshape(count, size).mean(1)


def _level(values: np.ndarray) -> tuple[float, float, int]:
    """Return mean, standard error and degrees of freedom."""
    means = _batches(values)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means))), len(means) - 1


def _slope(steps: np.ndarray, values: np.ndarray) -> tuple[float, float, int]:
    """Return the slope per step, its standard error and degrees of freedom."""
    x, y = _batches(steps), _batches(values)
    away = x - x.mean()
    spread = float((away**2).sum())
    slope = float((away * y).sum()) / spread
    residuals = y - y.mean() - slope * away
    return slope, float(np.sqrt((residuals**2).sum() / (len(x) - 2) / spread)), len(x) - 2
