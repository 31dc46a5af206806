"""Measure convergence speed: curves, time to a target, area under a curve, bands over runs.

A `Curve` is one quantity of one chain, with every clock of its rows: steps, epochs, gradient
evaluations, seconds. It is smoothed over its rows (`smoothing`), so a target is reached between the
same two rows on every clock, and a result depends on the clock only by its unit.

A run of several chains or ensemble members has one curve per chain, each on its own clock. The run
has reached a target when all of them have: its time is that of the slowest. Its curve and its area
are means over them.

A run that never reaches a target is not excluded: its time is censored at its budget, the last row
of its clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float

from bnn_symm.diagnostics.convergence.smoothing import Smoothed, smooth
from bnn_symm.diagnostics.measures import Direction, measure_of

CLOCKS = ("step", "epoch", "gradient_evaluations", "seconds")
QUANTITIES = {
    **{key: measure_of(key) for key in ("objective", "elbo")},
    "nll": measure_of("train_nll"),
    **{key: measure_of(key) for key in ("validation_nll", "validation_accuracy")},
}
"""Key in a history -> the measure, for those that can be a target."""

# A band over runs needs at least this fraction of the runs; otherwise it describes the few that
# remain.
_KNOWN = 0.5
# Quantiles of a band.
_BAND = (0.1, 0.9)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity of one chain.

    Attributes:
        quantity: Name of the quantity.
        direction: Which values are better.
        values: (row,), all finite.
        clocks: Name -> (row,), nondecreasing.
        chain: Number of the chain or member.
    """

    quantity: str
    direction: Direction
    values: Float[np.ndarray, " row"]
    clocks: dict[str, np.ndarray]
    chain: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def smoothed(self) -> Smoothed:
        """Return the smoothed curve."""
        return smooth(self.values)

    @property
    def sign(self) -> float:
        """Return -1 if higher values are better: `sign * values` decreases as a run improves."""
        return 1.0 if self.direction == "lower" else -1.0

    @property
    def start(self) -> float:
        """Return the first smoothed value."""
        return float(self.smoothed.values[0])

    @property
    def best(self) -> float:
        """Return the best smoothed value."""
        return self.sign * float((self.sign * self.smoothed.values).min())

    def budget(self, clock: str) -> float:
        """Return the last reading of a clock."""
        return float(self.clocks[clock][-1])


@dataclass(frozen=True, kw_only=True)
class TimeToTarget:
    """The time at which a run reached a target, on one clock.

    Attributes:
        time: The time; if censored, the end of observation.
        censored: Whether the target was never reached.
        low: When the smoothed curve minus two standard errors reached it.
        high: When the smoothed curve plus two standard errors reached it; None if it never did.
        budget: The last reading of the clock.
    """

    time: float
    censored: bool
    low: float | None
    high: float | None
    budget: float


def curves_of_history(
    history: Sequence[Mapping[str, Any]], quantity: str, direction: Direction | None = None
) -> list[Curve]:
    """Return the curves of one quantity, by chain; empty if no row has it.

    Rows in which it is missing or not finite are excluded, and so are clocks that are missing in a
    row of the chain.

    Args:
        history: Rows of a posterior's history.
        quantity: A key of the rows.
        direction: Default: the direction of the measure, else `lower`.

    Returns:
        One curve per chain.
    """
    chains: dict[int, list[Mapping[str, Any]]] = {}
    for row in history:
        value = row.get(quantity)
        if value is not None and np.isfinite(value):
            chains.setdefault(int(row.get("chain") or 0), []).append(row)
    curves = []
    for chain, rows in sorted(chains.items()):
        # If a step is recorded twice, as after an interruption, the later row counts.
        rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
        clocks = {
            name: np.array([row[name] for row in rows], dtype=np.float64)
            for name in CLOCKS
            if all(row.get(name) is not None for row in rows)
        }
        curves.append(
            Curve(
                quantity=quantity,
                direction=direction or measure_of(quantity).better or "lower",
                values=np.array([row[quantity] for row in rows], dtype=np.float64),
                clocks=clocks,
                chain=chain,
            )
        )
    return curves


def time_to_target(curve: Curve, target: float, clock: str) -> TimeToTarget:
    """Return when the smoothed curve first reaches a value, interpolated between rows.

    A curve that begins beyond the target has reached it at its first row.

    Args:
        curve: The curve.
        target: Value of the quantity.
        clock: Name of the clock.

    Returns:
        The time, censored if the target is not reached.
    """
    smoothed, times, sign = curve.smoothed, curve.clocks[clock], curve.sign
    falling = sign * smoothed.values
    middle, low, high = (
        _first_below(times, falling + shift * smoothed.standard_error, sign * target)
        for shift in (0.0, -2.0, 2.0)
    )
    budget = float(times[-1])
    return TimeToTarget(
        time=budget if middle is None else middle,
        censored=middle is None,
        low=low,
        high=high,
        budget=budget,
    )


def _first_below(times: np.ndarray, values: np.ndarray, target: float) -> float | None:
    below = np.flatnonzero(values <= target)
    if not below.size:
        return None
    row = int(below[0])
    if row == 0:
        return float(times[0])
    share = (values[row - 1] - target) / (values[row - 1] - values[row])
    return float(times[row - 1] + share * (times[row] - times[row - 1]))


def slowest(times: Sequence[TimeToTarget]) -> TimeToTarget:
    """Return the time of a run from those of its chains: the slowest; censored if any is.

    The time of a censored run is the latest lower bound: the maximum over chains of the time, or of
    the end of observation. Its budget is the shortest of the chains' budgets.

    Args:
        times: Times of the chains.

    Returns:
        Time of the run.
    """
    censored = any(time.censored for time in times)
    return TimeToTarget(
        time=max(time.time for time in times),
        censored=censored,
        low=_latest(times, "low"),
        high=None if censored else _latest(times, "high"),
        budget=min(time.budget for time in times),
    )


def _latest(times: Sequence[TimeToTarget], name: str) -> float | None:
    values = [getattr(time, name) for time in times]
    return None if None in values else max(values)


def area_under(curves: Sequence[Curve], clock: str, *, until: float) -> float:
    """Return the mean of the values over the clock, from the first row to `until`.

    It is computed by the trapezoid rule on the unsmoothed rows, divided by the range: in the
    quantity's own unit, and independent of the unit of the clock. No target is needed. Beyond the
    end of a curve its last value is used. For several chains it is their mean.

    Args:
        curves: Curves of the chains.
        clock: Name of the clock.
        until: End of the range.

    Returns:
        The mean value.
    """
    areas = []
    for curve in curves:
        times, values = curve.clocks[clock], curve.values
        if until <= times[0]:
            areas.append(float(values[0]))
            continue
        inside = times < until
        x = np.concatenate([times[inside], [until]])
        y = np.concatenate([values[inside], [np.interp(until, times, values)]])
        areas.append(float(scipy.integrate.trapezoid(y, x)) / float(until - times[0]))
    return float(np.mean(areas))


@dataclass(frozen=True, kw_only=True)
class Band:
    """Median and quantiles of several runs on one grid.

    Attributes:
        clock: Clock of the grid.
        times: (time,).
        median: (time,), over runs, each the mean of its smoothed chains.
        low: (time,), the 10 % quantile.
        high: (time,), the 90 % quantile.
        num_runs: (time,), number of runs with a value there.
    """

    clock: str
    times: Float[np.ndarray, " time"]
    median: Float[np.ndarray, " time"]
    low: Float[np.ndarray, " time"]
    high: Float[np.ndarray, " time"]
    num_runs: Float[np.ndarray, " time"]


def band(
    runs: Sequence[Sequence[Curve]],
    clock: str,
    *,
    finished: Sequence[bool] | None = None,
    num_times: int = 100,
) -> Band | None:
    """Return median and quantiles over runs on a common grid; None without a curve.

    The grid is geometric, because fits are fast first and slow later. A finished run keeps its last
    value beyond its end. An interrupted run counts up to its end. The band covers the range in
    which at least half of the runs have a value, and `num_runs` counts these at each point.

    Args:
        runs: Curves of the chains of each run; runs without a curve are ignored.
        clock: Clock of the grid.
        finished: Whether each run completed; default all.
        num_times: Points of the grid.

    Returns:
        The band, or None.
    """
    finished = [True] * len(runs) if finished is None else finished
    known = [
        (curves, done)
        for curves, done in zip(runs, finished, strict=True)
        if curves and all(clock in curve.clocks for curve in curves)
    ]
    if not known:
        return None
    # A run begins and ends with all of its chains.
    firsts = np.array(
        [max(float(curve.clocks[clock][0]) for curve in curves) for curves, _ in known]
    )
    ends = np.array([min(curve.budget(clock) for curve in curves) for curves, _ in known])
    # For a run whose chains never overlap on the clock, the end of one chain is extended to the
    # begin of the next.
    extended = np.maximum(np.where([done for _, done in known], ends.max(), ends), firsts)
    half = int(np.ceil(_KNOWN * len(known)))
    first, last = float(np.sort(firsts)[half - 1]), float(np.sort(extended)[len(known) - half])
    first = min(first, last)
    times = (
        np.geomspace(first, last, num_times) if first > 0 else np.linspace(first, last, num_times)
    )
    # Exact ends, so that runs that begin and end there count.
    times[0], times[-1] = first, last
    rows = np.full((len(known), num_times), np.nan)
    for row, (curves, _), begin, end in zip(rows, known, firsts, extended, strict=True):
        values = [np.interp(times, curve.clocks[clock], curve.smoothed.values) for curve in curves]
        row[:] = np.where((times >= begin) & (times <= end), np.mean(values, axis=0), np.nan)
    is_known = np.isfinite(rows).any(0)
    rows, times = rows[:, is_known], times[is_known]
    low, high = np.nanquantile(rows, _BAND, axis=0)
    return Band(
        clock=clock,
        times=times,
        median=np.nanmedian(rows, axis=0),
        low=low,
        high=high,
        num_runs=np.isfinite(rows).sum(0).astype(np.float64),
    )
