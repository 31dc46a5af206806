"""Compare the speed of groups of runs pair by pair, paired by seed where seeds match."""

import dataclasses
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from bnn_symm.analyses.convergence.seed_groups import SeedGroup, pair_by_seed
from bnn_symm.diagnostics.convergence.convergence import TimeToTarget
from bnn_symm.diagnostics.convergence.interpretation import comparison_verdict
from bnn_symm.diagnostics.convergence.time_to_target import (
    adjusted,
    compare_paired,
    compare_unpaired,
    sign_flip_p_value,
)

# Clocks on which groups are compared: work, and time on the machine.
COMPARED_CLOCKS = ("gradient_evaluations", "seconds")


def compare_groups(
    groups: Sequence[SeedGroup],
    times: dict[str, list[TimeToTarget | None]],
    areas: dict[str, list[float | None]],
) -> list[dict[str, Any]]:
    """Compare all pairs of groups on each clock, with p-values adjusted for the pairs of a clock.

    Args:
        groups: the groups of runs.
        times: clock -> times to the target, by run; None for a run without a time.
        areas: clock -> areas under the curve, by run.

    Returns:
        One dictionary for each pair and clock.
    """
    result = []
    for clock in COMPARED_CLOCKS:
        tests = [
            _comparison(groups, pair, clock, times[clock], areas.get(clock, []))
            for pair in combinations(range(len(groups)), 2)
            if clock in times
        ]
        tests = [test for test in tests if test is not None]
        for test, p_value in zip(tests, adjusted([test["p_value"] for test in tests]), strict=True):
            test["p_adjusted"] = p_value
            labels = [groups[test[side]].label for side in ("first", "second")]
            test["sentence"] = comparison_verdict(labels, test, len(tests)).text
        result += tests
    return result


def _comparison(
    groups: Sequence[SeedGroup],
    pair: tuple[int, int],
    clock: str,
    times: list[TimeToTarget | None],
    areas: list[float | None],
) -> dict[str, Any] | None:
    """Compare two groups on one clock; None if one of them has no time at all."""
    first, second = (groups[i] for i in pair)
    matched = [
        (i, j)
        for i, j in pair_by_seed(first, second)
        if times[i] is not None and times[j] is not None
    ]
    # A single pair has no distribution, and if most runs have no partner, pairing discards them.
    paired = 2 * len(matched) > max(len(first.members), len(second.members)) and len(matched) > 1
    chosen = list(zip(*matched, strict=True)) if paired else [first.members, second.members]
    first_times, second_times = (
        [time for time in (times[i] for i in side) if time is not None] for side in chosen
    )
    if not first_times or not second_times:
        return None
    test = (
        compare_paired(first_times, second_times)
        if paired
        else compare_unpaired(first_times, second_times)
    )
    differences = []
    if paired and areas:
        both = [(areas[i], areas[j]) for i, j in matched]
        differences = [a - b for a, b in both if a is not None and b is not None]
    return {
        "first": pair[0],
        "second": pair[1],
        "clock": clock,
        "paired": paired,
        "num_pairs": len(matched) if paired else None,
        "p_value": test.p_value,
        "smallest_p": test.smallest_p,
        "num_informative": test.num_informative,
        "ratio": dataclasses.asdict(test.ratio),
        "tau": test.tau,
        "num_censored": dict(zip(("first", "second"), test.num_censored, strict=True)),
        "reached": {
            "first": len(first_times) - test.num_censored[0],
            "second": len(second_times) - test.num_censored[1],
        },
        "area_difference": float(np.mean(differences)) if differences else None,
        "area_p_value": sign_flip_p_value(np.array(differences)) if differences else None,
    }
