r"""Whether and where a noisy curve has become flat, and at which level.

Where: the start d that makes the mean of what follows most precise, as the marginal standard error
    rule has it,

    minimize  ( sum_{i >= d} (y_i - mean)^2 + (n - d) eps^2 ) / (n - d)^2,

over batches of rows. Noise alone is averaged best by taking everything; what is still on its way
raises the sum. The earliest start within a quarter of the minimum is taken, since of few batches
the scatter is small by chance. eps, a thousandth of the way that the curve has come, is what flat
means where there is no noise at all.

How flat: in the last two thirds of it, a line over the means of up to 10 batches, with a Student t
    interval: batches
longer than the correlation of the rows are nearly independent, whatever the rows are. The drift is
carried on for as many steps as the run has had. The plateau is

    reached       if even the ends of its interval change the level by less than a tolerance (2 % of
    the way), not reached   if the interval leaves out zero and the estimate changes it by more than
    the tolerance, unclear       otherwise: noise hides which.

A level has its standard error from the same batches. A sampler has no way to go that a tolerance
could be a share of: its plateau is reached if the drift, along the rows that are judged, stays
below two standard deviations of them.

References:
    White 1997, doi:10.1177/003754979706900601 (the rule); Schmeiser 1982, doi:10.1287/opre.30.3.556
    (batch means).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from bnn_symm.diagnostics.convergence.convergence import Curve

Flatness = Literal["reached", "not reached", "unclear", "too short"]

# Fewer rows cannot tell a drift from noise.
MIN_ROWS = 20
# Change over as many steps again, as a share of the way come, below which a curve is flat.
TOLERANCE = 0.02
# Differences below this share of the way are not looked at.
_RESOLUTION = 1e-3
# A plateau is at least this share of the rows; shorter ones are what any curve's end looks like.
_LEAST_SHARE = 0.2
# The first part of a plateau is left out of level and drift: there, what still decays hides below
# the noise, and yet would show in the mean of many rows.
_SETTLING = 1 / 3
_MOST_BATCHES = 10
# Times the smallest value of the rule, below which a start is as good as the best.
_AS_GOOD = 1.25
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The flat end of a curve, or what is known of one that has none.

    Attributes:
        flatness: whether there is one.
        start: its first row; where none was found, the first row of the last quarter. None if too
            short.
        level: mean of its last two thirds; where none was found, of the last quarter.
        standard_error: of `level`.
        low: end of the 95 % interval of `level`.
        high: its other end.
        drift: slope of the same rows, in the quantity's unit per 1,000 steps.
        drift_low: end of its 95 % interval.
        drift_high: its other end.
        way: from the first smoothed value to `level`, positive if the run got better.
        tolerated: drift per 1,000 steps that would change the level by no more than the tolerance.
        is_long: whether what was found is long enough to be a plateau.
        spread: standard deviation of the same rows.
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
    """Looks for the flat end of a curve.

    Args:
        curve: with the clock `step`.
        tolerance: share of the way by which a flat curve may change over as many steps again.
        spreads: for a sampler, whose spread is no error but what it samples: standard deviations of
            single rows that it may change by along the rows that are judged; 0 for an optimizer.
    """
    size = len(curve)
    if size < MIN_ROWS:
        return _TOO_SHORT
    values, steps = curve.values, curve.clocks["step"]
    way_seen = abs(float(np.mean(values[-max(2, size // 10) :])) - curve.start)
    found = _start(values, _RESOLUTION * way_seen)
    is_long = size - found >= max(MIN_ROWS // 2, _LEAST_SHARE * size)
    start = found if is_long else size - max(MIN_ROWS // 2, size // 4)
    settled = start + int(_SETTLING * (size - start)) if is_long else start
    level, error, df = _level(values[settled:])
    slope, slope_error, slope_df = _slope(steps[settled:], values[settled:])
    reach, slope_reach = error * float(stats.t.isf((1 - _LEVEL) / 2, df)), 0.0
    if slope_error > 0:
        slope_reach = slope_error * float(stats.t.isf((1 - _LEVEL) / 2, slope_df))
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
    """Of the chains of one sampler, whose drifts one by one are often too uncertain to tell: of the
    mean drift.

    A chain that has not reached its plateau by itself is not outvoted by the others.
    """
    told = {plateau.flatness for plateau in chains}
    for flatness in ("not reached", "too short"):
        if flatness in told:
            return flatness
    drift, reach, tolerated = pooled_drift(chains)
    return _judge(drift, reach, tolerated, all(plateau.is_long for plateau in chains))


def pooled_drift(chains: Sequence[Plateau]) -> tuple[float, float, float]:
    """Return the mean drift of chains, half the width of its 95 % interval, and what is tolerated
    of it.

    Args:
        chains: none of which is too short.
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
    """The first row of what the rule keeps, of batches of rows counted from the end."""
    size = max(1, len(values) // 100)
    count = len(values) // size
    batches = values[len(values) - count * size :].reshape(count, size).mean(1)
    centered = batches - batches[-1]
    kept = np.arange(count, 0, -1)
    total, square = (np.cumsum(centered[::-1] ** power)[::-1] for power in (1, 2))
    scatter = np.maximum(square - total**2 / kept, 0.0) + kept * resolution**2
    # Of the very last batches the scatter is small by chance.
    candidates = count - max(5, count // 20)
    criterion = (scatter / kept**2)[:candidates]
    best = int(np.argmax(criterion <= _AS_GOOD * criterion.min()))
    return len(values) - count * size + best * size


def _batches(values: np.ndarray) -> np.ndarray:
    """Means of equally long batches, as many rows left out at the beginning as do not fit."""
    size = max(1, len(values) // _MOST_BATCHES)
    count = len(values) // size
    return values[len(values) - count * size :].reshape(count, size).mean(1)


def _level(values: np.ndarray) -> tuple[float, float, int]:
    """Mean, standard error and degrees of freedom."""
    means = _batches(values)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means))), len(means) - 1


def _slope(steps: np.ndarray, values: np.ndarray) -> tuple[float, float, int]:
    """Per step, with standard error and degrees of freedom."""
    x, y = _batches(steps), _batches(values)
    away = x - x.mean()
    spread = float((away**2).sum())
    slope = float((away * y).sum()) / spread
    residuals = y - y.mean() - slope * away
    return slope, float(np.sqrt((residuals**2).sum() / (len(x) - 2) / spread)), len(x) - 2
