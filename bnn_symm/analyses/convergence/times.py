"""Times to a target and areas under the curve of several runs, with what became of each taken into
account.

A run that was stopped or is still running is censored where it is. One that diverged would never
    have got there: it is
censored at the longest budget of all runs, and has no area.
"""

import dataclasses
from collections.abc import Sequence

from bnn_symm.analyses.convergence.target import Aim
from bnn_symm.diagnostics.convergence.convergence import (
    CLOCKS,
    Curve,
    TimeToTarget,
    area_under,
    slowest,
    time_to_target,
)
from bnn_symm.runs.run import Run


def common_clocks(curves: Sequence[Curve]) -> list[str]:
    """Those that all chains of a run have."""
    return [clock for clock in CLOCKS if all(clock in curve.clocks for curve in curves)]


def chain_times(curves: Sequence[Curve], aim: Aim, clock: str) -> list[TimeToTarget]:
    """When each chain of a run reached the target."""
    return [time_to_target(*aim.of(curve), clock) for curve in curves]


def _diverged(time: TimeToTarget | None, longest: float) -> TimeToTarget:
    """Of a run that diverged after it had reached the target, its time stands; any other never
    would have.
    """
    if time is not None and not time.censored:
        return dataclasses.replace(time, budget=longest)
    return TimeToTarget(time=longest, censored=True, low=None, high=None, budget=longest)


def run_times(
    runs: Sequence[Run], curves: list[list[Curve]], aimed: list[Aim]
) -> dict[str, list[TimeToTarget | None]]:
    """Clock -> times of all runs; None of those that have no curve or nothing to reach."""
    found: dict[str, list[TimeToTarget | None]] = {}
    for clock in CLOCKS:
        longest = max(
            (curve.budget(clock) for own in curves for curve in own if clock in curve.clocks),
            default=None,
        )
        row: list[TimeToTarget | None] = []
        for run, own, aim in zip(runs, curves, aimed, strict=True):
            failed = run.status == "failed" and longest is not None
            if aim.value is None or clock not in common_clocks(own) or not (own or failed):
                row.append(None)
                continue
            time = slowest(chain_times(own, aim, clock)) if own else None
            if run.status == "failed" and longest is not None:
                time = _diverged(time, longest)
            row.append(time)
        if any(time is not None for time in row):
            found[clock] = row
    return found


def run_areas(runs: Sequence[Run], curves: list[list[Curve]]) -> dict[str, list[float | None]]:
    """Clock -> areas of all runs up to the end of the shortest that did not diverge; None of those
    that did.
    """
    found: dict[str, list[float | None]] = {}
    for clock in CLOCKS:
        good = [
            bool(own) and clock in common_clocks(own) and run.status != "failed"
            for run, own in zip(runs, curves, strict=True)
        ]
        ends = [
            curve.budget(clock)
            for own, fine in zip(curves, good, strict=True)
            if fine
            for curve in own
        ]
        if ends:
            found[clock] = [
                area_under(own, clock, until=min(ends)) if fine else None
                for own, fine in zip(curves, good, strict=True)
            ]
    return found
