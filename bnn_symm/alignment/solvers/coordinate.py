"""Maximize a sum of bilinear assignments by coordinate ascent, one group of units at a time.

This is Git Re-Basin's weight matching: each step is exact with the other groups fixed. It is
monotone, so it converges to a local optimum. A group is reassigned only if another one has moved
since.

The search stays inside the residual group. Of entangled components, whose units only move together,
heads of attention and channels of depthwise convolutions are assigned block by block (`blocks`);
all others are searched by their generators.

References:
    Ainsworth et al. (2023), arXiv:2209.04836, algorithm 1.
"""

import itertools
from functools import partial

import torch

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import assign_group, entangled_moves, movable_groups
from bnn_symm.alignment.solvers.blocks import assign_blocks, nested_components
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation, SymmetryGroup

_MAX_SWEEPS = 100
# Relative improvement of the objective below which a move is ignored: gains are in float32.
_TOLERANCE = 1e-7


def coordinate(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Assign one group of units after another, in random order, until nothing improves.

    Args:
        objective: to be maximized.
        group: to stay in.
        start: an element of it.
        key: of the random orders.

    Returns:
        An element of the group, and its objective, never below that of the start.
    """
    cells = movable_groups(group)
    names, gains = list(cells), objective.gains()
    current, start_value = start, objective.value(start)
    neighbors = {name: objective.neighbors(name) & cells.keys() for name in names}
    pending = set(names)
    for sweep in range(_MAX_SWEEPS):
        for number in torch.randperm(
            len(names), generator=torch_generator(*key, "sweep", sweep)
        ).tolist():
            name = names[number]
            if name not in pending:
                continue
            pending.remove(name)
            gain = gains.gain(name, current)
            moved = assign_group(current, name, cells[name], gain)
            better = gain.value(moved, name) - gain.value(current, name)
            if objective.is_quadratic(name):
                # A tensor with the group on two axes is not bilinear: the gain is first-order only.
                better = objective.value(moved) - objective.value(current)
            if better > _TOLERANCE * abs(start_value):
                current = moved
                pending |= neighbors[name]
        current, improved_any = _entangled(objective, group, current)
        if improved_any:
            pending = set(names)
        if not pending:
            break
    new_value = start_value if current is start else objective.value(current)
    # Gains are updated in float32, so the last moves may have decreased the objective slightly.
    return (current, new_value) if new_value >= start_value else (start, start_value)


def _entangled(
    objective: Objective, group: SymmetryGroup, current: Permutation
) -> tuple[Permutation, bool]:
    """Assign blocks and apply generators of entangled components as long as one improves.

    Returns:
        The permutation, and whether anything improved.
    """
    families, moves = nested_components(group), entangled_moves(group)
    if not families and not moves:
        return current, False
    improved, improved_any, values = True, False, objective.values(current)
    while improved:
        improved = False
        candidates = itertools.chain(
            (partial(assign_blocks, objective, *family) for family in families),
            (move.compose for move in moves),
        )
        for candidate in candidates:
            moved = candidate(current)
            new = values | objective.values(moved, moved.differs_from(current))
            value = sum(values.values())
            if sum(new.values()) > value + _TOLERANCE * abs(value):
                current, values, improved, improved_any = moved, new, True, True
    return current, improved_any
