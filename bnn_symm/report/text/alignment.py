"""Format the results of `bnn-symm align`."""

from collections.abc import Sequence
from pathlib import Path

from bnn_symm.alignment import ContinuousAlignment
from bnn_symm.analyses.alignment import RunAlignment
from bnn_symm.formatting import number
from bnn_symm.report.text.tables import table


def alignment_text(alignments: Sequence[RunAlignment]) -> str:
    """Return a table with one row per aligned run and the distances of the baselines.

    Args:
        alignments: of the runs.

    Returns:
        The text.
    """
    every = {Path(own.run).name: own.alignment for own in alignments}
    rows = [
        [
            name,
            own.solver,
            own.distance_random,
            own.distance_before,
            own.distance_after,
            f"{own.num_moved} of {own.num_movable}",
            own.function_difference,
        ]
        for name, own in every.items()
    ]
    header = ["run", "solver", "random", "unaligned", "aligned", "units moved", "change of outputs"]
    title = f"squared distance to the reference ({alignments[0].alignment.matching})"
    notes = [f"{name}: {own.note}" for name, own in every.items() if not own.num_movable]
    notes += [
        f"{Path(own.run).name}: {continuous_text(own.continuous)}"
        for own in alignments
        if own.continuous
    ]
    notes += [vectors_text(own) for own in alignments if own.singular_vectors]
    return "\n".join([title, table(header, rows), *notes])


def continuous_text(own: ContinuousAlignment) -> str:
    """Return the distances before and after an alignment over scales and rotations.

    Args:
        own: the alignment.

    Returns:
        One line.
    """
    compared = "means" if own.compared == "means" else "means and standard deviations"
    return (
        f"{' + '.join(own.symmetries)}: squared distance of {compared} "
        f"{number(own.distance_before, 4)}, permuted {number(own.distance_permutation, 4)}, "
        f"aligned {number(own.distance_after, 4)}"
    )


def vectors_text(own: RunAlignment) -> str:
    """Return a table of the singular vectors of each weight, before and after an alignment.

    Args:
        own: the alignment of a run, with `singular_vectors`.

    Returns:
        The text.
    """
    rows = [
        [
            before.weight,
            before.alignment,
            after.alignment,
            after.leading,
            before.leading_alignment,
            after.leading_alignment,
            before.distance,
            after.distance,
            after.from_values,
        ]
        for before, after in own.singular_vectors
    ]
    header = ["weight", "weighted", "aligned", "leading", "theirs", "theirs, aligned"]
    header += ["distance", "distance, aligned", "of values"]
    title = f"{Path(own.run).name}: cosines of singular vectors, and squared distances of weights"
    return f"\n{title}\n{table(header, rows)}"
