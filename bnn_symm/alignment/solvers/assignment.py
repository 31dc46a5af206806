"""Solve one linear assignment: the best reordering of a group's units inside the symmetry group.

Only units of one cell of the residual group (`symmetry.group.Component`) can exchange positions;
each cell is one linear assignment problem. Units that can flip take the sign of their gain.
"""

import itertools

import numpy as np
import scipy
import torch
from torch import Tensor

from bnn_symm.alignment.solvers.blocks import is_one_assignment
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.symmetry import Component, Permutation, SymmetryGroup

# Largest number of units of a group for which all swaps of two units are tried.
_MAX_SWAPPED = 24


def movable_groups(group: SymmetryGroup) -> dict[str, list[Component]]:
    """Return the cells of interchangeable units, each solved by one assignment.

    Args:
        group: the symmetry group.

    Returns:
        Group of units -> its cells.
    """
    cells: dict[str, list[Component]] = {}
    for component in group.components:
        if component.kind != "entangled":
            ((name, _),) = component.units.items()
            cells.setdefault(name, []).append(component)
    return cells


def entangled_moves(group: SymmetryGroup) -> list[Permutation]:
    """Return moves of the entangled components that no assignment covers.

    They are generators, and swaps of any two units of a block.

    Args:
        group: the symmetry group.

    Returns:
        The moves, all in the group.
    """
    moves: list[Permutation] = []
    for component in group.components:
        if component.kind != "entangled" or is_one_assignment(group.spec, component):
            continue
        moves += group.generators_of(component)
        swaps = [
            group.spec.transposition(name, (i, j))
            for name, units in component.units.items()
            if group.spec.groups[name].size <= _MAX_SWAPPED
            for i, j in itertools.combinations(units, 2)
            if group.spec.same_block(name, i, j)
        ]
        moves += [swap for swap in swaps if group.represents(swap)]
    return moves


def assign(components: list[Component], gain: Gain) -> tuple[Tensor, Tensor]:
    """Return the order and the signs of a group's units with the largest gain.

    Args:
        components: the cells of the group.
        gain: (new unit, old unit).

    Returns:
        (unit,) old units, and (unit,) signs; units in no cell are unchanged.
    """
    size = len(gain.unsigned)
    index, sign = torch.arange(size), torch.ones(size, dtype=torch.long)
    for component in components:
        ((_, members),) = component.units.items()
        units = np.asarray(members)
        # Usually one cell is the whole group, and nothing is copied.
        square = ... if len(units) == size else np.ix_(units, units)
        if component.kind == "interchangeable, with signs":
            assert gain.signed is not None
            rows, columns = scipy.optimize.linear_sum_assignment(
                gain.best().numpy()[square], maximize=True
            )
            flips = np.where(gain.signed.numpy()[square][rows, columns] < 0, -1, 1)
        elif len(set(component.orientation)) > 1:
            assert gain.signed is not None
            signs = np.outer(component.orientation, component.orientation)
            oriented = signs * gain.signed.numpy()[square] + gain.unsigned.numpy()[square]
            rows, columns = scipy.optimize.linear_sum_assignment(oriented, maximize=True)
            flips = signs[rows, columns]
        else:
            rows, columns = scipy.optimize.linear_sum_assignment(
                gain.unflipped().numpy()[square], maximize=True
            )
            flips = np.ones(len(units), dtype=np.int64)
        index[torch.from_numpy(units[rows])] = torch.from_numpy(units[columns])
        sign[torch.from_numpy(units[rows])] = torch.from_numpy(flips)
    return index, sign


def assign_group(
    current: Permutation, name: str, components: list[Component], gain: Gain
) -> Permutation:
    """Return a permutation with one group's units reassigned for the largest gain.

    Args:
        current: the permutation.
        name: of the group.
        components: the cells of the group.
        gain: (new unit, old unit).
    """
    index, sign = assign(components, gain)
    signs = {**current.signs, name: sign} if name in current.signs else current.signs
    return Permutation(current.spec, {**current.indices, name: index}, signs)
