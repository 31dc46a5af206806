"""Two solvers of the sum of bilinear assignments, which is NP-hard: the better result of many starts is taken.

- `coordinate`: one group of units at a time, exactly, with the others where they are, in random order, until no group
  improves (Git Re-Basin's weight matching; monotone, so it ends). It stops at the first local optimum.
- `frank_wolfe`: all groups at once over doubly stochastic matrices, with exact line search, then one assignment a group
  and a coordinate descent from there (Crisostomi et al. 2024).

Both stay inside the residual group. Of entangled components, whose units only move together, heads of attention are
assigned block by block (`blocks`); all others are searched by their generators.

References:
    Ainsworth et al. (2023), arXiv:2209.04836, algorithm 1; Crisostomi et al. (2024), arXiv:2405.17897; Frank and Wolfe
    (1956), doi:10.1002/nav.3800030109.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.alignment.assignment import assign, movable_groups, searched_moves
from bnn_symm.alignment.blocks import assign_blocks, nested_components
from bnn_symm.alignment.objective import Gain, Objective, Term, all_but, product
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Component, Permutation, SymmetryGroup
from bnn_symm.symmetry.spec import Axis

_MAX_SWEEPS = 100
_MAX_STEPS = 60
# Relative improvement of the objective below which a sweep, or a Frank-Wolfe gap, counts as none.
_TOLERANCE = 1e-9
_GAP = 1e-4


def coordinate(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Assigns one group of units after another, in random order, until nothing improves.

    Args:
        objective: to be maximised.
        group: to stay in.
        start: an element of it.
        key: of the random orders.

    Returns:
        An element of the group, and its objective, never below that of the start.
    """
    cells = movable_groups(group)
    names = list(cells)
    current, size = start, abs(objective.value(start))
    for sweep in range(_MAX_SWEEPS):
        improved = False
        for number in torch.randperm(len(names), generator=torch_generator(*key, "sweep", sweep)).tolist():
            name = names[number]
            gain = objective.gain(name, current)
            moved = _replaced(current, name, *assign(cells[name], gain))
            better = gain.at(moved, name) - gain.at(current, name)
            if objective.is_twice(name):
                # A tensor with the group on two axes is no bilinear form: the gain says the direction only.
                better = objective.value(moved) - objective.value(current)
            if better > _TOLERANCE * size:
                current, improved = moved, True
        current, helped = _entangled(objective, group, current)
        if not improved and not helped:
            break
    return current, objective.value(current)


def _replaced(current: Permutation, name: str, index: Tensor, sign: Tensor) -> Permutation:
    signs = {**current.signs, name: sign} if name in current.signs else current.signs
    return Permutation(current.spec, {**current.indices, name: index}, signs)


def _entangled(objective: Objective, group: SymmetryGroup, current: Permutation) -> tuple[Permutation, bool]:
    """Assigns blocks, and takes generators of entangled components as long as one improves; says whether any did."""
    moves = searched_moves(group)
    if not moves:
        return current, False
    improved, helped, value = True, False, objective.value(current)
    while improved:
        improved = False
        for owner, children in nested_components(group):
            moved = assign_blocks(objective, owner, children, current)
            reached = objective.value(moved)
            if reached > value + _TOLERANCE * abs(value):
                current, value, improved, helped = moved, reached, True, True
        for move in moves:
            moved = move.compose(current)
            reached = objective.value(moved)
            if reached > value + _TOLERANCE * abs(value):
                current, value, improved, helped = moved, reached, True, True
    return current, helped


@dataclass
class _Relaxed:
    """A point between permutations: for each group a signed and an unsigned matrix, (new unit, old unit)."""

    signed: dict[str, Tensor]
    unsigned: dict[str, Tensor]

    def move(self, vertex: "_Relaxed", step: float) -> None:
        for own, other in ((self.signed, vertex.signed), (self.unsigned, vertex.unsigned)):
            for name in own:
                own[name].lerp_(other[name], step)


def frank_wolfe(
    objective: Objective, group: SymmetryGroup, start: Permutation, *key: int | str
) -> tuple[Permutation, float]:
    """Relaxes all groups to doubly stochastic matrices, ascends, assigns, and ends with `coordinate`.

    The relaxation begins half way between the start and the centre, where every unit of a cell goes to every other.
    The objective is quadratic along a step, so its best length is known; what a step changes in the products is a
    gather, since it ends at a permutation.

    Args:
        objective: to be maximised; its tensors have at most two axes of hidden units.
        group: to stay in.
        start: an element of it.
        key: of the random orders of the last descent.

    Returns:
        An element of the group, and its objective.
    """
    cells = movable_groups(group)
    if not cells or any(segment.within for name in cells for _, _, segment, _ in objective.places(name)):
        return coordinate(objective, group, start, *key)
    point = _matrices(start, list(cells))
    _towards_the_centre(point, cells)
    products = _Products(objective, list(cells), start, point)
    for _ in range(_MAX_STEPS):
        gains, value = products.gains(point)
        vertex = start
        for name, gain in gains.items():
            vertex = _replaced(vertex, name, *assign(cells[name], gain))
        corner = _matrices(vertex, list(cells))
        slope = sum(_inner(gains[name], corner, name) - _inner(gains[name], point, name) for name in cells)
        if slope <= _GAP * abs(value):
            break
        at_vertex = products.at(vertex)
        bend = products.value_at(at_vertex, vertex) - value - slope
        step = 1.0 if bend >= 0 else min(1.0, -slope / (2 * bend))
        point.move(corner, step)
        products.move(at_vertex, step)
    rounded = start
    for name in cells:
        nearest = Gain(point.signed[name], torch.zeros_like(point.signed[name]))
        if not objective.spec.groups[name].signed:
            nearest = Gain(torch.zeros_like(point.unsigned[name]), point.unsigned[name])
        rounded = _replaced(rounded, name, *assign(cells[name], nearest))
    return coordinate(objective, group, rounded, *key)


def _inner(gain: Gain, point: _Relaxed, name: str) -> float:
    return float((gain.signed * point.signed[name]).sum() + (gain.unsigned * point.unsigned[name]).sum())


def _matrices(permutation: Permutation, names: list[str]) -> _Relaxed:
    signed, unsigned = {}, {}
    for name in names:
        index = permutation.indices[name]
        plain = torch.zeros(len(index), len(index))
        plain[torch.arange(len(index)), index] = 1.0
        sign = permutation.signs.get(name)
        unsigned[name] = plain
        signed[name] = plain.clone() if sign is None else plain * sign[:, None]
    return _Relaxed(signed, unsigned)


def _towards_the_centre(point: _Relaxed, cells: Mapping[str, list[Component]]) -> None:
    for name, components in cells.items():
        for component in components:
            units = torch.tensor(component.units[name])
            square = (units[:, None], units)
            free = component.kind == "interchangeable, with signs"
            turn = torch.tensor(component.orientation or [1] * len(units), dtype=torch.float32)
            centre = torch.outer(turn, turn) / len(units)
            point.unsigned[name][square] = 0.5 * (point.unsigned[name][square] + 1 / len(units))
            point.signed[name][square] = 0.5 * (point.signed[name][square] + (0.0 if free else 1.0) * centre)


class _Products:
    """The permuted tensors along all axes but one, for every place of every group, kept up to date."""

    def __init__(self, objective: Objective, names: list[str], start: Permutation, point: _Relaxed):
        self._objective, self._names, self._start = objective, names, start
        self._places = [(name, *place) for name in names for place in objective.places(name)]
        self._first: dict[str, int] = {}
        for _, tensor, dim, _, _ in self._places:
            self._first.setdefault(tensor, dim)
        self._others = [
            [self._all_but(term, tensor, dim, point) for _, tensor, dim, _, _ in self._places]
            for term in objective.terms
        ]

    def _all_but(self, term: Term, tensor: str, dim: int, point: _Relaxed) -> Tensor:
        """A tensor of a term, moved along every dimension but one."""
        value = term.other[tensor]
        for d, axis in enumerate(self._objective.spec.axes[tensor]):
            if d == dim:
                continue
            if any(segment.group in self._names for segment in axis):
                value = _relaxed_along(value, d, axis, term.signed, point)
            else:
                acting = self._start if term.signed else self._start.unsigned()
                value = acting.apply_along(tensor, value, [d])
        return value

    def gains(self, point: _Relaxed) -> tuple[dict[str, Gain], float]:
        """What every assignment would gain, to first order, and the relaxed objective of all tensors with a place."""
        found = {}
        for name in self._names:
            size = self._objective.spec.groups[name].size
            found[name] = Gain(torch.zeros(size, size), torch.zeros(size, size))
        value = 0.0
        for term, others in zip(self._objective.terms, self._others, strict=True):
            for (name, tensor, dim, segment, start), other in zip(self._places, others, strict=True):
                own = product(term.reference[tensor], other, dim, start, segment)
                flips = term.signed and segment.signed
                (found[name].signed if flips else found[name].unsigned).add_(own)
                # Seen from one axis, a tensor is counted once.
                if dim == self._first[tensor]:
                    value += float((own * (point.signed[name] if flips else point.unsigned[name])).sum())
            value += self._of_unplaced(term, others)
        return found, value

    def _of_unplaced(self, term: Term, others: list[Tensor]) -> float:
        """What the stretches of a tensor's first axis that have no place add: inputs beside hidden units."""
        total, seen = 0.0, set()
        for (_, tensor, dim, _, _), other in zip(self._places, others, strict=True):
            if dim != self._first[tensor] or tensor in seen:
                continue
            seen.add(tensor)
            acting = self._start if term.signed else self._start.unsigned()
            moved, start = acting.apply_along(tensor, other, [dim]).movedim(dim, 0), 0
            reference = term.reference[tensor].movedim(dim, 0)
            for segment in self._objective.spec.axes[tensor][dim]:
                stretch = slice(start, start + segment.length)
                start += segment.length
                if segment.group not in self._names:
                    total += float((reference[stretch] * moved[stretch]).sum())
        return total

    def at(self, vertex: Permutation) -> list[list[Tensor]]:
        """The products at a permutation: gathers, no multiplications."""
        found = []
        for term in self._objective.terms:
            acting = vertex if term.signed else vertex.unsigned()
            found.append(
                [
                    acting.apply_along(tensor, term.other[tensor], all_but(term.other[tensor], dim))
                    for _, tensor, dim, _, _ in self._places
                ]
            )
        return found

    def value_at(self, products: list[list[Tensor]], vertex: Permutation) -> float:
        """The objective at a permutation, of all tensors with a place, from its products."""
        total = 0.0
        for term, others in zip(self._objective.terms, products, strict=True):
            acting = vertex if term.signed else vertex.unsigned()
            seen: set[str] = set()
            for (_, tensor, dim, _, _), other in zip(self._places, others, strict=True):
                if tensor not in seen:
                    seen.add(tensor)
                    total += float((term.reference[tensor] * acting.apply_along(tensor, other, [dim])).sum())
        return total

    def move(self, at_vertex: list[list[Tensor]], step: float) -> None:
        """After a step towards a permutation: the products are linear in the one other axis."""
        for own, others in zip(self._others, at_vertex, strict=True):
            for i, other in enumerate(others):
                own[i] = torch.lerp(own[i], other, step)


def _relaxed_along(value: Tensor, dim: int, axis: Axis, signed: bool, point: _Relaxed) -> Tensor:
    """Multiplies the units of one axis by the matrices of their groups."""
    along = value.movedim(dim, 0)
    pieces, start = [], 0
    for segment in axis:
        piece = along[start : start + segment.length]
        start += segment.length
        matrices = point.signed if signed and segment.signed else point.unsigned
        if segment.group is not None and segment.group in matrices:
            grid = piece.reshape(segment.outer, segment.size, -1)
            piece = (matrices[segment.group] @ grid).reshape(piece.shape)
        pieces.append(piece)
    return torch.cat(pieces).movedim(0, dim)
