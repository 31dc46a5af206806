"""Relax permutations to doubly stochastic matrices, one per group, and compute gains there.

The objective is a sum of products over tensors; with every group relaxed to a matrix it remains the
same polynomial. If no tensor has more than two axes of hidden units it is quadratic, so gains are
linear along every line.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import assign_group
from bnn_symm.alignment.solvers.gains import Gain, Term
from bnn_symm.symmetry import Component, Permutation
from bnn_symm.symmetry.group.permutation_spec import Axis


@dataclass
class Relaxed:
    """Represent a point in the convex hull of the permutations of some groups.

    Attributes:
        unsigned: group -> doubly stochastic matrix, (new unit, old unit).
        signed: the same with signs, for groups whose units can flip; its entries are at most as
            large in absolute value.
    """

    unsigned: dict[str, Tensor]
    signed: dict[str, Tensor]

    def matrix(self, name: str, flips: bool) -> Tensor:
        """Return the matrix that acts on entries of a group's units, with or without signs.

        Args:
            name: of the group.
            flips: whether the entries change sign with their unit.
        """
        return self.signed[name] if flips and name in self.signed else self.unsigned[name]

    def inner(self, gains: Mapping[str, Gain]) -> float:
        """Return the inner product of a linear function with the point, summed over groups.

        Args:
            gains: group -> gains.
        """
        total = 0.0
        for name, gain in gains.items():
            total += float(torch.dot(gain.unsigned.flatten(), self.unsigned[name].flatten()))
            if gain.signed is not None:
                total += float(torch.dot(gain.signed.flatten(), self.matrix(name, True).flatten()))
        return total

    def move(self, vertex: Permutation, step: float) -> None:
        """Move a fraction of the distance to a permutation, in place.

        Args:
            vertex: the permutation.
            step: the fraction.
        """
        for matrices in (self.unsigned, self.signed):
            for name, matrix in matrices.items():
                index, sign = vertex.indices[name], torch.full((len(matrix),), step)
                if matrices is self.signed:
                    sign = sign * vertex.signs[name]
                matrix.mul_(1 - step)
                matrix[torch.arange(len(matrix)), index] += sign

    def nearest(self, start: Permutation, cells: Mapping[str, list[Component]]) -> Permutation:
        """Return the permutation with the largest inner product, by one assignment per group.

        Args:
            start: determines the positions in other groups.
            cells: group -> its cells of interchangeable units.

        Returns:
            The permutation.
        """
        for name, components in cells.items():
            gain = Gain(self.unsigned[name])
            if name in self.signed:
                gain = Gain(torch.zeros_like(self.signed[name]), self.signed[name])
            start = assign_group(start, name, components, gain)
        return start


def halfway_to_center(start: Permutation, cells: Mapping[str, list[Component]]) -> Relaxed:
    """Return the midpoint between a permutation and the center.

    At the center, every unit of a cell is spread evenly over the cell.

    Args:
        start: the permutation.
        cells: group -> its cells of interchangeable units.

    Returns:
        The midpoint.
    """
    point = permutation_point(start, cells)
    for name, components in cells.items():
        for component in components:
            units = torch.tensor(component.units[name])
            square = (units[:, None], units)
            center = torch.full((len(units), len(units)), 1 / len(units))
            point.unsigned[name][square] = 0.5 * (point.unsigned[name][square] + center)
            if name in point.signed:
                turn = torch.tensor(component.orientation or [1] * len(units), dtype=torch.float32)
                if component.kind == "interchangeable, with signs":
                    turn = torch.zeros_like(turn)
                point.signed[name][square] = 0.5 * (
                    point.signed[name][square] + torch.outer(turn, turn) * center
                )
    return point


def permutation_point(permutation: Permutation, names: Iterable[str]) -> Relaxed:
    """Return a permutation as a point of the relaxation.

    Args:
        permutation: the permutation.
        names: groups to relax.
    """
    unsigned, signed = {}, {}
    for name in names:
        index = permutation.indices[name]
        plain = torch.zeros(len(index), len(index))
        plain[torch.arange(len(index)), index] = 1.0
        unsigned[name] = plain
        if name in permutation.signs:
            signed[name] = plain * permutation.signs[name][:, None]
    return Relaxed(unsigned, signed)


def can_relax(objective: Objective, names: Iterable[str]) -> bool:
    """Return whether groups can be relaxed.

    There has to be one, and no axis may hold blocks that another axis determines.

    Args:
        objective: to be maximized.
        names: groups to relax.
    """
    names = list(names)
    return bool(names) and not any(
        segment.within for name in names for _, _, segment, _ in objective.occurrences(name)
    )


def relaxed_gain(objective: Objective, name: str, start: Permutation, point: Relaxed) -> Gain:
    """Return the gain of every assignment of a group's units at a point, to first order.

    It is exact if no tensor has the group on two axes.

    Args:
        objective: to be maximized.
        name: of the group.
        start: determines the positions in groups that are not relaxed.
        point: of the relaxed groups.

    Returns:
        The gain of every pair of a new and an old unit.
    """
    size, occurrences = objective.spec.groups[name].size, list(objective.occurrences(name))
    flips = any(
        term.signed and segment.signed
        for term in objective.terms
        for _, _, segment, _ in occurrences
    )
    gain = Gain(torch.zeros(size, size), torch.zeros(size, size) if flips else None)
    for term in objective.terms:
        for tensor, dim, segment, first in occurrences:
            part = gain.signed if term.signed and segment.signed else gain.unsigned
            assert part is not None
            moved = _apply_to_others(objective, term, tensor, dim, start, point)
            part.addmm_(
                segment.by_unit(term.reference[tensor], dim, first),
                segment.by_unit(moved, dim, first).T,
            )
    return gain


def relaxed_gains(objective: Objective, start: Permutation, point: Relaxed) -> dict[str, Gain]:
    """Return the gains of all relaxed groups.

    Args:
        objective: to be maximized.
        start: determines the positions in groups that are not relaxed.
        point: of the relaxed groups.

    Returns:
        Group -> gain.
    """
    return {name: relaxed_gain(objective, name, start, point) for name in point.unsigned}


def _apply_to_others(
    objective: Objective, term: Term, tensor: str, dim: int, start: Permutation, point: Relaxed
) -> Tensor:
    """Return a tensor of a term, transformed along every dimension but one."""
    value = term.other[tensor]
    acting = start if term.signed else start.unsigned()
    for d, axis in enumerate(objective.spec.axes[tensor]):
        if d == dim:
            continue
        if any(segment.group in point.unsigned for segment in axis):
            value = _along(value, d, axis, term.signed, point)
        else:
            value = acting.apply_along(tensor, value, [d])
    return value


def _along(value: Tensor, dim: int, axis: Axis, signed: bool, point: Relaxed) -> Tensor:
    """Multiply the units of one axis by the matrices of their groups."""
    along = value.movedim(dim, 0)
    pieces, start = [], 0
    for segment in axis:
        piece = along[start : start + segment.length]
        start += segment.length
        if segment.group is not None and segment.group in point.unsigned:
            grid = piece.reshape(segment.outer, segment.size, -1)
            piece = (point.matrix(segment.group, signed and segment.signed) @ grid).reshape(
                piece.shape
            )
        pieces.append(piece)
    return torch.cat(pieces).movedim(0, dim)
