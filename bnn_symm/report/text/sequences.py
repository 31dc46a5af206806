"""Format the results of `bnn-symm align --sequence` and `bnn-symm barrier --sequence`."""

from collections.abc import Mapping
from typing import Any

from bnn_symm.alignment import SequenceAlignment
from bnn_symm.analyses.sequence_results import RULES, Rule, SequenceBarrier, mean_or_none
from bnn_symm.formatting import count, number, percent, plus_minus, with_error
from bnn_symm.report.text.tables import table
from bnn_symm.summaries import plain

RULE_LABELS: Mapping[Rule, str] = {
    "none": "none",
    "own": "own",
    "last": "last's",
    "first": "first's",
    "joint": "joint",
    "own_on_last": "own, on the last",
}


def sequence_alignment_text(
    alignments: Mapping[str, SequenceAlignment], steps: tuple[int, ...]
) -> str:
    """Return a table with one row per run and point.

    Args:
        alignments: of the runs, by name.
        steps: of the points.

    Returns:
        The text.
    """
    first = next(iter(alignments.values()))
    which = "all points together" if first.point is None else f"step {steps[first.point]}"
    rows = [
        [name, step, before, after, percent(1 - after / before) if before > 0 else "-"]
        for name, own in alignments.items()
        for step, before, after in zip(
            steps, own.distances_before, own.distances_after, strict=True
        )
    ]
    header = ["run", "step", "unaligned", "aligned", "reduction"]
    notes = [
        f"{name}: {count(own.num_moved, 'hidden unit')} moved ({own.solver}); change of outputs "
        f"{number(own.function_difference)}"
        for name, own in alignments.items()
    ]
    title = f"squared distance to the reference ({first.cost}), one permutation, of {which}"
    return "\n".join([title, table(header, rows), *notes])


def sequence_barrier_text(result: SequenceBarrier) -> str:
    """Return the barriers at every point, and the agreement of the permutations.

    Args:
        result: of `barrier_sequences`.

    Returns:
        The text.
    """
    points = list(enumerate(result.points))
    is_pruned = any(own.weights_left < 1 for own in result.points)
    header = ["step", "weights left" if is_pruned else "epoch", "NLL", *RULE_LABELS.values()]
    rows = [
        [
            own.step,
            percent(own.weights_left, 1) if is_pruned else own.epoch,
            own.nll,
            *(_height(result, point, rule) for rule in RULES),
        ]
        for point, own in points
    ]
    number_of_pairs = count(len(result.pairs), "pair")
    lines = [
        f"marginal test NLL above the chord by permutation, nats per point, {number_of_pairs} of "
        f"{len(result.runs)} sequences ({result.cost})",
        table(header, rows),
        "+- is the standard error over points, given the two fits"
        if len(result.pairs) == 1
        else "+- is half of the 95 % interval over runs, by the jackknife over pairs",
        "",
        _agreement_text(result),
    ]
    return "\n".join(lines)


def _height(result: SequenceBarrier, point: int, rule: Rule) -> str:
    rows = result.rows(point, rule)
    if len(rows) == 1:
        return with_error(rows[0].height, rows[0].standard_error)
    return plus_minus(plain(result.mean(point, rule)))


def _agreement_text(result: SequenceBarrier) -> str:
    """Return the agreement of permutations, and for three or more runs paths and cycles."""
    header = ["step", "own = last's", "joint = last's"]
    if result.paths:
        header += ["direct", "composed", "composed = direct", "fixed by a cycle", "after a cycle"]
    rows: list[list[Any]] = []
    for point, own in enumerate(result.points):
        row: list[Any] = [own.step]
        row += [percent(result.mean_agreement(point, rule)) for rule in ("own", "joint")]
        if result.paths:
            paths = [path for path in result.paths if path.point == point]
            loops = [cycle for cycle in result.cycles if cycle.point == point]
            row += [
                mean_or_none(path.direct for path in paths),
                mean_or_none(path.composed for path in paths),
                percent(mean_or_none(path.agreement for path in paths)),
                percent(mean_or_none(cycle.fixed for cycle in loops)),
                mean_or_none(cycle.height for cycle in loops),
            ]
        rows.append(row)
    title = "fraction of the units on which permutations agree"
    if result.paths:
        title += (
            f"; barriers of {count(len(result.paths) // len(rows), 'path')} through a third "
            f"network, and of networks with their images after "
            f"{count(len(result.cycles) // len(rows), 'cycle')} of three"
        )
    return f"{title}\n{table(header, rows)}"
