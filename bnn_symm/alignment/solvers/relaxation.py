"""Points between permutations: doubly stochastic matrices, one a group, and what the objective
gains from there.

The objective is a sum of products over tensors; with every group relaxed to a matrix it stays the
same polynomial. Where no tensor has more than two axes of hidden units it is quadratic, so that
gains are linear along every line.
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
    """A point between the permutations of some groups.

    Attributes:
        unsigned: group -> doubly stochastic matrix, (new unit, old unit).
        signed: the same with signs, of the groups whose units may flip: its entries are at most as
            large.
    """

    unsigned: dict[str, Tensor]
    signed: dict[str, Tensor]

    def matrix(self, name: str, flips: bool) -> Tensor:
        """What acts on entries of a group's units that change sign with them, or do not."""
        return self.signed[name] if flips and name in self.signed else self.unsigned[name]

    def inner(self, gains: Mapping[str, Gain]) -> float:
        """What a linear function gives there: the sum over groups."""
        total = 0.0
        for name, gain in gains.items():
            total += float(torch.dot(gain.unsigned.flatten(), self.unsigned[name].flatten()))
            if gain.signed is not None:
                total += float(torch.dot(gain.signed.flatten(), self.matrix(name, True).flatten()))
        return total

    def move(self, vertex: Permutation, step: float) -> None:
        """Goes a part of the way to a permutation."""
        for matrices in (self.unsigned, self.signed):
            for name, matrix in matrices.items():
                index, sign = vertex.indices[name], torch.full((len(matrix),), step)
                if matrices is self.signed:
                    sign = sign * vertex.signs[name]
                matrix.mul_(1 - step)
                matrix[torch.arange(len(matrix)), index] += sign

    def nearest(self, start: Permutation, cells: Mapping[str, list[Component]]) -> Permutation:
        """The permutation with the largest inner product, one assignment a group; other groups are
        where `start` is.
        """
        for name, components in cells.items():
            gain = Gain(self.unsigned[name])
            if name in self.signed:
                gain = Gain(torch.zeros_like(self.signed[name]), self.signed[name])
            start = assign_group(start, name, components, gain)
        return start


def halfway_to_center(start: Permutation, cells: Mapping[str, list[Component]]) -> Relaxed:
    """Half way between a permutation and the center, where every unit of a cell goes to every
    other.
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
    """A permutation as a point."""
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
    """Whether there is anything to relax, and no axis holds blocks that another axis names."""
    names = list(names)
    return bool(names) and not any(
        segment.within for name in names for _, _, segment, _ in objective.places(name)
    )


def relaxed_gain(objective: Objective, name: str, start: Permutation, point: Relaxed) -> Gain:
    """What every assignment of a group's units would gain at a point; groups that are not relaxed
    are where `start` is.

    To first order; exactly, if no tensor has the group on two axes.
    """
    size, places = objective.spec.groups[name].size, list(objective.places(name))
    flips = any(
        term.signed and segment.signed for term in objective.terms for _, _, segment, _ in places
    )
    gain = Gain(torch.zeros(size, size), torch.zeros(size, size) if flips else None)
    for term in objective.terms:
        for tensor, dim, segment, first in places:
            own = gain.signed if term.signed and segment.signed else gain.unsigned
            assert own is not None
            moved = _apply_to_others(objective, term, tensor, dim, start, point)
            own.addmm_(
                segment.by_unit(term.reference[tensor], dim, first),
                segment.by_unit(moved, dim, first).T,
            )
    return gain


def relaxed_gains(objective: Objective, start: Permutation, point: Relaxed) -> dict[str, Gain]:
    """The same of all relaxed groups."""
    return {name: relaxed_gain(objective, name, start, point) for name in point.unsigned}


def _apply_to_others(
    objective: Objective, term: Term, tensor: str, dim: int, start: Permutation, point: Relaxed
) -> Tensor:
    """A tensor of a term, moved along every dimension but one."""
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
    """Multiplies the units of one axis by the matrices of their groups."""
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
