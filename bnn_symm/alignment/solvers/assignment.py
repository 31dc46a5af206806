"""One linear assignment: the best element of the group that is left, given what each assignment of
units would gain.

Only units of one cell of the residual group (`symmetry.group.Component`) may take each other's
places; each cell is one linear assignment problem. Units that may flip take the sign of their gain.
"""

import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.symmetry import Component, Permutation, SymmetryGroup

# Units of a group up to which all swaps of two are tried.
_SWAPPED = 24


def movable_groups(group: SymmetryGroup) -> dict[str, list[Component]]:
    """Group of units -> its cells of interchangeable units, which one assignment each serves."""
    found: dict[str, list[Component]] = {}
    for component in group.components:
        if component.kind != "entangled":
            ((name, _),) = component.units.items()
            found.setdefault(name, []).append(component)
    return found


def entangled_moves(group: SymmetryGroup) -> list[Permutation]:
    """Moves of entangled components, which no assignment serves: generators, and swaps of any two
    units of a block.
    """
    moves: list[Permutation] = []
    for component in group.components:
        if component.kind != "entangled":
            continue
        moves += group.generators_of(component)
        swaps = [
            group.spec.transposition(name, (i, j))
            for name, units in component.units.items()
            if group.spec.groups[name].size <= _SWAPPED
            for i, j in itertools.combinations(units, 2)
            if group.spec.same_block(name, i, j)
        ]
        moves += [swap for swap in swaps if group.represents(swap)]
    return moves


def assign(components: list[Component], gain: Gain) -> tuple[Tensor, Tensor]:
    """The order and the signs of a group's units that gain most.

    Args:
        components: the cells of the group.
        gain: (new unit, old unit).

    Returns:
        (unit,) old units, and (unit,) signs; units in no cell stay.
    """
    size = len(gain.unsigned)
    index, sign = torch.arange(size), torch.ones(size, dtype=torch.long)
    for component in components:
        ((_, own),) = component.units.items()
        units = np.asarray(own)
        # Most often one cell is the whole group, and nothing is copied.
        square = ... if len(units) == size else np.ix_(units, units)
        if component.kind == "interchangeable, with signs":
            assert gain.signed is not None
            rows, columns = linear_sum_assignment(gain.best().numpy()[square], maximize=True)
            flips = np.where(gain.signed.numpy()[square][rows, columns] < 0, -1, 1)
        elif len(set(component.orientation)) > 1:
            assert gain.signed is not None
            turned = np.outer(component.orientation, component.orientation)
            worth = turned * gain.signed.numpy()[square] + gain.unsigned.numpy()[square]
            rows, columns = linear_sum_assignment(worth, maximize=True)
            flips = turned[rows, columns]
        else:
            rows, columns = linear_sum_assignment(gain.unflipped().numpy()[square], maximize=True)
            flips = np.ones(len(units), dtype=np.int64)
        index[torch.from_numpy(units[rows])] = torch.from_numpy(units[columns])
        sign[torch.from_numpy(units[rows])] = torch.from_numpy(flips)
    return index, sign


def assign_group(
    current: Permutation, name: str, components: list[Component], gain: Gain
) -> Permutation:
    """A permutation with one group's units where their assignment gains most."""
    index, sign = assign(components, gain)
    signs = {**current.signs, name: sign} if name in current.signs else current.signs
    return Permutation(current.spec, {**current.indices, name: index}, signs)
