"""Match many draws to one reference in a batch, by coordinate matching.

Each draw has a separate permutation, and its tensors are stored permuted. One step handles one
group of units: inner products with the reference for all draws in one matrix product, one
assignment per draw, and one gather that moves all draws. A draw whose units already have their best
positions needs no assignment, so that draws near their optimum, such as those of an aligned chain,
cost one matrix product.

Where units only move together (heads, blocks of grouped convolutions), or a tensor has one group on
two axes, draws are matched one by one by the solver of pairs.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.assignment import assign, movable_groups
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.gains import Gain, Term
from bnn_symm.symmetry import Permutation, PermutationSpec, SymmetryGroup
from bnn_symm.symmetry.group.permutation_spec import Axis

_MAX_SWEEPS = 30
# Gain, relative to the largest possible one, below which a move is ignored: products are in
# float32.
_TOLERANCE = 1e-6


class DrawBatch:
    """Hold draws of whole weights, permuted.

    Args:
        tensors: name -> (draw, *shape), of the tensors in the spec, before the permutation.
        permutations: one per draw.

    Attributes:
        tensors: name -> (draw, *shape), permuted.
        indices: group -> (draw, unit), the old unit at each new position.
        signs: group -> (draw, unit), for groups whose units can flip.
    """

    def __init__(self, tensors: Mapping[str, Tensor], permutations: Sequence[Permutation]):
        self._spec = permutations[0].spec
        # Cloned, because they are permuted in place.
        self.tensors = {name: value.clone() for name, value in tensors.items()}
        self.indices = _stacked([permutation.indices for permutation in permutations])
        self.signs = _stacked([permutation.signs for permutation in permutations])
        if any(not permutation.is_identity for permutation in permutations):
            if any(
                segment.within
                for axes in self._spec.axes.values()
                for axis in axes
                for segment in axis
            ):
                moved = [
                    permutation.apply({name: value[i] for name, value in tensors.items()})
                    for i, permutation in enumerate(permutations)
                ]
                self.tensors = {
                    name: torch.stack([values[name] for values in moved]) for name in tensors
                }
            else:
                for name in self.indices:
                    self._gather(name, self.indices[name], self.signs.get(name))

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def permutations(self) -> list[Permutation]:
        """Return one permutation per draw."""
        return [
            Permutation(
                self._spec,
                {name: index[i] for name, index in self.indices.items()},
                {name: sign[i] for name, sign in self.signs.items()},
            )
            for i in range(len(self))
        ]

    def match(self, reference: Mapping[str, Tensor], group: SymmetryGroup) -> int:
        """Move every draw to where its inner product with a reference is largest.

        The search starts at the draw's present permutation; no inner product decreases.

        Args:
            reference: name -> (*shape).
            group: to stay in.

        Returns:
            The number of draws that moved.
        """
        if not _can_batch(group):
            return self._sequential(reference, group)
        cells = movable_groups(group)
        objective = Objective(group.spec, (Term(reference, reference, True),), 0.0)
        active = torch.ones(len(self), dtype=torch.bool)
        changed = torch.zeros(len(self), dtype=torch.bool)
        for _ in range(_MAX_SWEEPS):
            moved = torch.zeros(len(self), dtype=torch.bool)
            for name in cells:
                rows = active.nonzero().squeeze(1)
                gain = self._gain(objective, name, rows)
                stays = gain.unflipped().diagonal(dim1=1, dim2=2)
                most = gain.best().amax(2)
                open_rows = (stays < most).any(1).nonzero().squeeze(1)
                if not len(open_rows):
                    continue
                gain = _select_draws(gain, open_rows)
                assignments = [
                    assign(cells[name], _select_draws(gain, i)) for i in range(len(open_rows))
                ]
                index = torch.stack([index for index, _ in assignments])
                sign = torch.stack([sign for _, sign in assignments])
                chosen = _gather_units(gain.unsigned, index)
                if gain.signed is not None:
                    chosen = chosen + sign * _gather_units(gain.signed, index)
                better = chosen.sum(1) - stays[open_rows].sum(1) > _TOLERANCE * most[
                    open_rows
                ].abs().sum(1)
                self._move(name, rows[open_rows[better]], index[better], sign[better])
                moved[rows[open_rows[better]]] = True
            changed |= moved
            active = moved
            if not bool(active.any()):
                break
        return int(changed.sum())

    def inner(self, reference: Mapping[str, Tensor]) -> Float[Tensor, " draw"]:
        """Return the inner product of every draw with a reference, in float64.

        Args:
            reference: name -> (*shape).

        Returns:
            One value per draw.
        """
        parts = [
            (value.flatten(1) @ reference[name].flatten().to(value.dtype)).double()
            for name, value in self.tensors.items()
        ]
        return torch.stack(parts).sum(0)

    def take(self, other: "DrawBatch", which: Bool[Tensor, " draw"]) -> None:
        """Copy some draws and their permutations from another batch of the same draws.

        Args:
            other: the other batch.
            which: the draws to copy.
        """
        for mine, theirs in (
            (self.tensors, other.tensors),
            (self.indices, other.indices),
            (self.signs, other.signs),
        ):
            for name, value in theirs.items():
                mine[name][which] = value[which]

    def _gain(self, objective: Objective, name: str, rows: Tensor) -> Gain:
        """Return the gains (draw, new unit, old unit), with all other groups unchanged."""
        size = objective.spec.groups[name].size
        occurrences = list(objective.occurrences(name))
        unsigned = torch.zeros(len(rows), size, size)
        signed = (
            torch.zeros_like(unsigned)
            if any(segment.signed for _, _, segment, _ in occurrences)
            else None
        )
        for tensor, dim, segment, start in occurrences:
            reference = segment.by_unit(
                objective.terms[0].reference[tensor][None], dim, start, leading=1
            )
            draws = segment.by_unit(self.tensors[tensor][rows], dim, start, leading=1)
            part = signed if signed is not None and segment.signed else unsigned
            part += reference @ draws.transpose(1, 2)
        return Gain(unsigned, signed)

    def _move(self, name: str, rows: Tensor, index: Tensor, sign: Tensor) -> None:
        """Permute the units of one group of some draws further."""
        self._gather(name, index, sign, rows)
        self.indices[name][rows] = self.indices[name][rows].gather(1, index)
        if name in self.signs:
            self.signs[name][rows] = sign * self.signs[name][rows].gather(1, index)

    def _gather(
        self, name: str, index: Tensor, sign: Tensor | None, rows: Tensor | None = None
    ) -> None:
        for tensor in self._spec.tensors_of(name):
            if tensor not in self.tensors:
                continue
            value = self.tensors[tensor] if rows is None else self.tensors[tensor][rows]
            for dim, axis in enumerate(self._spec.axes[tensor]):
                value = _gather_along(value, dim, axis, name, index, sign)
            if rows is None:
                self.tensors[tensor] = value
            else:
                self.tensors[tensor][rows] = value

    def _sequential(self, reference: Mapping[str, Tensor], group: SymmetryGroup) -> int:
        changed = 0
        identity = group.spec.identity()
        for i in range(len(self)):
            draw = {name: value[i] for name, value in self.tensors.items()}
            objective = Objective(group.spec, (Term(reference, draw, True),), 0.0)
            permutation, new_value = coordinate(objective, group, identity, "one draw")
            before = objective.value(identity)
            if new_value <= before + _TOLERANCE * abs(before):
                continue
            changed += 1
            for name, value in permutation.apply(draw).items():
                self.tensors[name][i] = value
            for name, index in permutation.indices.items():
                self.indices[name][i] = self.indices[name][i][index]
            for name, sign in permutation.signs.items():
                self.signs[name][i] = sign * self.signs[name][i][permutation.indices[name]]
        return changed


def _stacked(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Int[Tensor, "draw _"]]:
    return {name: torch.stack([value[name] for value in values]) for name in values[0]}


def _can_batch(group: SymmetryGroup) -> bool:
    if any(component.kind == "entangled" for component in group.components):
        return False
    return not any(_is_quadratic(group.spec, axes) for axes in group.spec.axes.values())


def _is_quadratic(spec: PermutationSpec, axes: tuple[Axis, ...]) -> bool:
    """Return whether the gain of a group of the tensor is not linear.

    A tensor that holds blocks of a group, or has a group on two axes, is such a case.
    """
    if any(segment.within for axis in axes for segment in axis):
        return True
    return any(sum(any(s.group == name for s in axis) for axis in axes) > 1 for name in spec.groups)


def _select_draws(gain: Gain, draws: Tensor | int) -> Gain:
    """Return the gains of some of the draws."""
    return Gain(gain.unsigned[draws], None if gain.signed is None else gain.signed[draws])


def _gather_units(
    value: Float[Tensor, "draw unit unit"], index: Int[Tensor, "draw unit"]
) -> Float[Tensor, "draw unit"]:
    return value.gather(2, index[:, :, None]).squeeze(2)


def _gather_along(
    value: Tensor, dim: int, axis: Axis, name: str, index: Tensor, sign: Tensor | None
) -> Tensor:
    """Permute the units of one group along one axis of a tensor (draw, *shape), per draw."""
    if all(segment.group != name for segment in axis):
        return value
    along = value.movedim(dim + 1, 1)
    pieces, start = [], 0
    for segment in axis:
        piece = along[:, start : start + segment.length]
        start += segment.length
        if segment.group == name:
            grid = piece.unflatten(1, (segment.outer, segment.size, segment.inner)).flatten(3)
            moved = grid.gather(2, index[:, None, :, None].expand(grid.shape))
            if segment.signed and sign is not None:
                moved = moved * sign[:, None, :, None].to(moved.dtype)
            piece = moved.reshape(piece.shape)
        pieces.append(piece)
    return torch.cat(pieces, dim=1).movedim(1, dim + 1)
