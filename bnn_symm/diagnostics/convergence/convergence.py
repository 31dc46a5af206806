"""Convergence speed of one run: its curves, the time to a target, the area under a curve, bands
over runs.

A `Curve` is one quantity of one chain, with every clock that its rows have: steps, epochs, gradient
    evaluations,
seconds. It is smoothed over its rows (`diagnostics.smoothing`), so that a target is met between the
same two rows whichever clock is asked, and an answer changes with the clock's unit and nothing
else.

A run of several chains or ensemble members has one curve each, each on a clock of its own. The run
has reached a target when all of them have: its time is that of the slowest. Its curve and its area
are means over them.

A run that never reaches a target is not left out: its time is censored at its budget, the last row
    of its clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import integrate

from bnn_symm.diagnostics.convergence.smoothing import Smoothed, smooth

Direction = Literal["lower", "higher"]
"""Which values of a quantity are better."""

CLOCKS = ("step", "epoch", "gradient_evaluations", "seconds")
QUANTITIES: dict[str, Direction] = {
    "objective": "lower",
    "elbo": "higher",
    "nll": "lower",
    "validation_nll": "lower",
    "validation_accuracy": "higher",
}
"""Those of a history that can be a target; `nll` is the training part's, in nats a point."""

# A band over runs lies where at least this share of them is known: beyond, it would be about the
# few that are left.
_KNOWN = 0.5
# Quantiles of a band.
_BAND = (0.1, 0.9)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity of one chain.

    Attributes:
        quantity: its name.
        direction: which values are better.
        values: (row,), all finite.
        clocks: name -> (row,), never falling.
        chain: number of the chain or member.
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
        """Without its noise."""
        return smooth(self.values)

    @property
    def sign(self) -> float:
        """-1 where higher values are better: `sign * values` always falls as a run gets better."""
        return 1.0 if self.direction == "lower" else -1.0

    @property
    def start(self) -> float:
        """The first smoothed value."""
        return float(self.smoothed.values[0])

    @property
    def best(self) -> float:
        """The best smoothed value."""
        return self.sign * float((self.sign * self.smoothed.values).min())

    def budget(self, clock: str) -> float:
        """The last reading of a clock."""
        return float(self.clocks[clock][-1])


@dataclass(frozen=True, kw_only=True)
class TimeToTarget:
    """When a run reached a target, on one clock.

    Attributes:
        time: when; if censored the end of what was watched, by which it was not reached.
        censored: whether it was never reached.
        low: when the smoothed curve less two standard errors reached it.
        high: when the smoothed curve plus two standard errors reached it; None if that never did.
        budget: the last reading of the clock.
    """

    time: float
    censored: bool
    low: float | None
    high: float | None
    budget: float


def curves_of_history(
    history: Sequence[Mapping[str, Any]], quantity: str, direction: Direction | None = None
) -> list[Curve]:
    """The curves of one quantity, by chain; empty if no row has it.

    Rows in which it is missing or not finite are left out; so are clocks that not every row of a
    chain has.

    Args:
        history: rows of a posterior's history.
        quantity: a key of the rows.
        direction: default the known one of `QUANTITIES`, else `lower`.
    """
    chains: dict[int, list[Mapping[str, Any]]] = {}
    for row in history:
        value = row.get(quantity)
        if value is not None and np.isfinite(value):
            chains.setdefault(int(row.get("chain") or 0), []).append(row)
    curves = []
    for chain, rows in sorted(chains.items()):
        # Of a step told twice, as after a kill, the later row.
        rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
        clocks = {
            name: np.array([row[name] for row in rows], dtype=np.float64)
            for name in CLOCKS
            if all(row.get(name) is not None for row in rows)
        }
        curves.append(
            Curve(
                quantity=quantity,
                direction=direction or QUANTITIES.get(quantity, "lower"),
                values=np.array([row[quantity] for row in rows], dtype=np.float64),
                clocks=clocks,
                chain=chain,
            )
        )
    return curves


def time_to_target(curve: Curve, target: float, clock: str) -> TimeToTarget:
    """When the smoothed curve first reaches a value, interpolated between rows.

    A curve that begins beyond the target has reached it at its first row.
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
    """The time of a run, from those of its chains: that of the last; censored if any never came.

    A censored run's time is the latest that is known to be too early: of its chains, the last that
    came or the longest that was watched in vain. Its budget is that of the chain that was watched
    the shortest.
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
    """Mean over the clock of the values, from the first row to `until`; of several chains their
    mean.

    By the trapezoid rule on the rows as they are, divided by the range: in the quantity's own
        units, and the same
    whatever the unit of the clock. No target is needed. Beyond the end of a curve its last value
    stands.
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
        areas.append(float(integrate.trapezoid(y, x)) / float(until - times[0]))
    return float(np.mean(areas))


@dataclass(frozen=True, kw_only=True)
class Band:
    """Several runs on one grid.

    Attributes:
        clock: of the grid.
        times: (time,).
        median: (time,), over runs, each the mean of its smoothed chains.
        low: (time,), the 10 % quantile.
        high: (time,), the 90 % quantile.
        num_runs: (time,), runs that are known there.
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
    """Median and quantiles over runs on a common grid; None without a curve.

    The grid is geometric, as fits are fast first and slow then. A run that has finished stays at
        its last value: that
    is what it gave. One that was cut off counts as far as it goes. The band lies where at least
    half of the runs are known, and `num_runs` says how many are behind each point.

    Args:
        runs: curves of the chains of each run; runs without one are left out.
        clock: of the grid.
        finished: whether each run came to its own end; default all.
        num_times: points of the grid.
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
    # Of a run whose chains are never on the clock together, one chain's end is known where the next
    # begins.
    goes_on = np.maximum(np.where([done for _, done in known], ends.max(), ends), firsts)
    half = int(np.ceil(_KNOWN * len(known)))
    first, last = float(np.sort(firsts)[half - 1]), float(np.sort(goes_on)[len(known) - half])
    first = min(first, last)
    times = (
        np.geomspace(first, last, num_times) if first > 0 else np.linspace(first, last, num_times)
    )
    # Exactly, so that the runs that begin and end there count.
    times[0], times[-1] = first, last
    rows = np.full((len(known), num_times), np.nan)
    for row, (curves, _), begin, end in zip(rows, known, firsts, goes_on, strict=True):
        values = [np.interp(times, curve.clocks[clock], curve.smoothed.values) for curve in curves]
        row[:] = np.where((times >= begin) & (times <= end), np.mean(values, axis=0), np.nan)
    told = np.isfinite(rows).any(0)
    rows, times = rows[:, told], times[told]
    low, high = np.nanquantile(rows, _BAND, axis=0)
    return Band(
        clock=clock,
        times=times,
        median=np.nanmedian(rows, axis=0),
        low=low,
        high=high,
        num_runs=np.isfinite(rows).sum(0).astype(np.float64),
    )
