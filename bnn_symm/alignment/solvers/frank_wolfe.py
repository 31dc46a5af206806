"""Maximize a sum of bilinear assignments by Frank-Wolfe over doubly stochastic matrices.

All groups move together. A step moves towards the permutation with the largest first-order gain,
found by one assignment per group, with the best step size: the objective is quadratic along the
step, so the slopes at both ends determine it. Gains are linear along the step as well; those at its
end are gains at a permutation, which gathers compute.

References:
    Crisostomi et al. (2024), arXiv:2405.17897; Frank and Wolfe (1956), doi:10.1002/nav.3800030109.
"""

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import assign_group, movable_groups
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.relaxation import can_relax, halfway_to_center, relaxed_gains
from bnn_symm.symmetry import Permutation, SymmetryGroup

_MAX_STEPS = 60
# Gap, relative to the objective, at which ascent ends; the assignment closes the remaining gap.
_GAP = 1e-3


def frank_wolfe(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Relax all groups to doubly stochastic matrices, ascend, and round to a permutation.

    The relaxation begins at the midpoint between the start and the center, and ends with
    `coordinate` from the rounded permutation.

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
        end = {name: vertex_gains.gain(name, vertex) for name in cells}
        end_slope = sum(gain.value(vertex, name) for name, gain in end.items()) - point.inner(end)
        curvature = (end_slope - slope) / 2
        if value is None:
            value = objective.value(vertex) - slope - curvature
        step = 1.0 if curvature >= 0 else min(1.0, -slope / (2 * curvature))
        value += step * slope + step**2 * curvature
        point.move(vertex, step)
        for name, gain in gains.items():
            gain.move(end[name], step)
    return coordinate(objective, group, point.nearest(start, cells), *key)
