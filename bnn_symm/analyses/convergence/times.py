"""Compute times to a target and areas under the curve, with censoring.

A run that was stopped or is still running is censored at its last step. A run that diverged would
never have reached the target: it is censored at the longest budget of all runs, and has no area.
"""

import dataclasses
from collections.abc import Sequence

from bnn_symm.analyses.convergence.target import Target
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
    """Return the clocks that all chains of a run have.

    Args:
        curves: the curves of the chains.
    """
    return [clock for clock in CLOCKS if all(clock in curve.clocks for curve in curves)]


def chain_times(curves: Sequence[Curve], target: Target, clock: str) -> list[TimeToTarget]:
    """Return the time at which each chain of a run reached the target.

    Args:
        curves: the curves of the chains.
        target: the target.
        clock: the clock.
    """
    return [time_to_target(*target.of(curve), clock) for curve in curves]


def _diverged(time: TimeToTarget | None, longest: float) -> TimeToTarget:
    """Return the time of a run that diverged, censored unless it had reached the target before."""
    if time is not None and not time.censored:
        return dataclasses.replace(time, budget=longest)
    return TimeToTarget(time=longest, censored=True, low=None, high=None, budget=longest)


def run_times(
    runs: Sequence[Run], curves: list[list[Curve]], targets: list[Target]
) -> dict[str, list[TimeToTarget | None]]:
    """Return the times of all runs by clock; None for runs without a curve or a target.

    Args:
        runs: the runs.
        curves: the curves of each run.
        targets: the target of each run.
    """
    times: dict[str, list[TimeToTarget | None]] = {}
    for clock in CLOCKS:
        longest = max(
            (curve.budget(clock) for chains in curves for curve in chains if clock in curve.clocks),
            default=None,
        )
        row: list[TimeToTarget | None] = []
        for run, chains, target in zip(runs, curves, targets, strict=True):
            failed = run.status == "failed" and longest is not None
            if target.value is None or clock not in common_clocks(chains) or not (chains or failed):
                row.append(None)
                continue
            time = slowest(chain_times(chains, target, clock)) if chains else None
            if run.status == "failed" and longest is not None:
                time = _diverged(time, longest)
            row.append(time)
        if any(time is not None for time in row):
            times[clock] = row
    return times


def run_areas(runs: Sequence[Run], curves: list[list[Curve]]) -> dict[str, list[float | None]]:
    """Return the areas of all runs by clock, up to the end of the shortest valid run.

    Runs that diverged have none.

    Args:
        runs: the runs.
        curves: the curves of each run.
    """
    areas: dict[str, list[float | None]] = {}
    for clock in CLOCKS:
        valid = [
            bool(chains) and clock in common_clocks(chains) and run.status != "failed"
            for run, chains in zip(runs, curves, strict=True)
        ]
        ends = [
            curve.budget(clock)
            for chains, is_valid in zip(curves, valid, strict=True)
            if is_valid
            for curve in chains
        ]
        if ends:
            areas[clock] = [
                area_under(chains, clock, until=min(ends)) if is_valid else None
                for chains, is_valid in zip(curves, valid, strict=True)
            ]
    return areas
