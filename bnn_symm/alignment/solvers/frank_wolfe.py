"""Frank-Wolfe on a sum of bilinear assignments: all groups at once, over doubly stochastic
matrices.

A step goes towards the permutation that gains most to first order, one assignment a group, by the
length that is best: the objective is quadratic along it, so that the slopes at both of its ends say
which. Gains are linear there too; those at the end are gains at a permutation, which gathers make.

References:
    Crisostomi et al. (2024), arXiv:2405.17897; Frank and Wolfe (1956), doi:10.1002/nav.3800030109.
"""

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import assign_group, movable_groups
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.relaxation import can_relax, halfway_to_center, relaxed_gains
from bnn_symm.symmetry import Permutation, SymmetryGroup

_MAX_STEPS = 60
# Gap, relative to the objective, at which ascent ends: what is left is for the assignment.
_GAP = 1e-3


def frank_wolfe(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Relaxes all groups to doubly stochastic matrices, ascends, assigns, and ends with
    `coordinate`.

    The relaxation begins half way between the start and the center, where every unit of a cell goes
    to every other.

    Args:
        objective: to be maximized; its tensors have at most two axes of hidden units.
        group: to stay in.
        start: an element of it.
        key: of the random orders of the last ascent.

    Returns:
        An element of the group, and its objective.
    """
    cells = movable_groups(group)
    if not can_relax(objective, cells):
        return coordinate(objective, group, start, *key)
    point = halfway_to_center(start, cells)
    gains, vertex_gains, value = relaxed_gains(objective, start, point), objective.gains(), None
    for _ in range(_MAX_STEPS):
        vertex = start
        for name, gain in gains.items():
            vertex = assign_group(vertex, name, cells[name], gain)
        slope = sum(gain.value(vertex, name) for name, gain in gains.items()) - point.inner(gains)
        if value is not None and slope <= _GAP * abs(value):
            break
        there = {name: vertex_gains.gain(name, vertex) for name in cells}
        last_slope = sum(gain.value(vertex, name) for name, gain in there.items()) - point.inner(
            there
        )
        bend = (last_slope - slope) / 2
        if value is None:
            value = objective.value(vertex) - slope - bend
        step = 1.0 if bend >= 0 else min(1.0, -slope / (2 * bend))
        value += step * slope + step**2 * bend
        point.move(vertex, step)
        for name, gain in gains.items():
            gain.move(there[name], step)
    return coordinate(objective, group, point.nearest(start, cells), *key)
