"""What every assignment of a group's units would add to a sum of bilinear terms, kept from one
permutation to the next.

A gain is linear in the tensors that the other groups move. Between two visits of a group most of
these units have stayed where they were, so that the gain is corrected by the inner products with
those that have not, which costs in proportion to their number; what no group moves, such as the
inputs of the first layer, is multiplied once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bnn_symm.symmetry import Permutation, PermutationSpec
from bnn_symm.symmetry.group.permutation_spec import Axis, Segment, block_owner

Occurrence = tuple[str, int, Segment, int]


@dataclass(frozen=True)
class Term:
    """One sum of inner products, over the tensors of a spec.

    Attributes:
        reference: tensor name -> (*shape).
        other: the same of what is permuted.
        signed: whether signs of units act on it.
    """

    reference: Mapping[str, Tensor]
    other: Mapping[str, Tensor]
    signed: bool


@dataclass(frozen=True)
class Gain:
    """What each assignment of units would add, (new unit, old unit): the part that a flip leaves,
    and what it negates.

    Attributes:
        unsigned: what stays when the unit flips, everything where no unit may.
        signed: what changes its sign then; None where no unit may flip.
    """

    unsigned: Tensor
    signed: Tensor | None = None

    def value(self, permutation: Permutation, group: str) -> float:
        """What the assignment of a permutation gives, in float64."""
        index = permutation.indices[group][:, None]
        total = float(self.unsigned.gather(1, index).double().sum())
        if self.signed is not None:
            signed, sign = self.signed.gather(1, index)[:, 0].double(), permutation.signs.get(group)
            total += float((signed if sign is None else signed * sign).sum())
        return total

    def move(self, other: "Gain", step: float) -> None:
        """Goes a part of the way to another."""
        self.unsigned.lerp_(other.unsigned, step)
        if self.signed is not None and other.signed is not None:
            self.signed.lerp_(other.signed, step)

    def best(self) -> Tensor:
        """Of either sign, the larger."""
        return self.unsigned if self.signed is None else self.signed.abs() + self.unsigned

    def unflipped(self) -> Tensor:
        """Of the positive sign."""
        return self.unsigned if self.signed is None else self.signed + self.unsigned


class Gains:
    """The gains of all groups as a function of the permutation; each remembers where it was asked
    for last.

    Args:
        spec: of the network.
        terms: whose sum is assigned.
    """

    def __init__(self, spec: PermutationSpec, terms: Sequence[Term]):
        self._spec, self._terms = spec, terms
        self._kept: dict[str, tuple[Permutation, Gain]] = {}
        self._places: dict[str, list[Occurrence]] = {}

    def gain(self, group: str, permutation: Permutation) -> Gain:
        """What every assignment of a group's units would give, with all other units where the
        permutation puts them.

        It is corrected in place by the next call for the group.
        """
        if group not in self._kept:
            self._places[group] = list(places(self._spec, self._terms, group))
            self._kept[group] = permutation, self._first(group, permutation)
            return self._kept[group][1]
        before, gain = self._kept[group]
        moved = {name for name in self._spec.groups if not _same(before, permutation, name)}
        for place in self._places[group] if moved else ():
            name, dim, _, _ = place
            axes = self._spec.axes[name]
            acting = [
                d for d, axis in enumerate(axes) if d != dim and any(s.group in moved for s in axis)
            ]
            if not acting:
                continue
            for term in self._terms:
                if len(acting) == 1 and not any(s.within for axis in axes for s in axis):
                    self._correct(gain, term, place, acting[0], before, permutation)
                else:
                    changed = _apply_to_others(term, name, dim, permutation) - _apply_to_others(
                        term, name, dim, before
                    )
                    self._add(gain, term, place, term.reference[name], changed)
        self._kept[group] = permutation, gain
        return gain

    def _first(self, group: str, permutation: Permutation) -> Gain:
        size = self._spec.groups[group].size
        flips = any(
            term.signed and segment.signed
            for term in self._terms
            for _, _, segment, _ in self._places[group]
        )
        gain = Gain(torch.zeros(size, size), torch.zeros(size, size) if flips else None)
        for place in self._places[group]:
            name, dim, _, _ = place
            for term in self._terms:
                self._add(
                    gain,
                    term,
                    place,
                    term.reference[name],
                    _apply_to_others(term, name, dim, permutation),
                )
        return gain

    def _correct(
        self,
        gain: Gain,
        term: Term,
        place: Occurrence,
        acting: int,
        before: Permutation,
        now: Permutation,
    ) -> None:
        """Adds what the entries of one other dimension that have moved change."""
        name, dim, _, _ = place
        axis, other = self._spec.axes[name][acting], term.other[name]
        (index, sign), (old_index, old_sign) = (
            _entries(own, axis, term.signed) for own in (now, before)
        )
        entries = ((index != old_index) | (sign != old_sign)).nonzero().squeeze(1)
        rest = [d for d in other_dims(other, dim) if d != acting]
        shape = [-1 if d == acting else 1 for d in range(other.dim())]
        changed = other.index_select(acting, index[entries])
        was = other.index_select(acting, old_index[entries])
        if term.signed:
            changed *= sign[entries].reshape(shape)
            was *= old_sign[entries].reshape(shape)
        changed = (now if term.signed else now.unsigned()).apply_along(
            name, changed.sub_(was), rest
        )
        self._add(gain, term, place, term.reference[name].index_select(acting, entries), changed)

    def _add(
        self, gain: Gain, term: Term, place: Occurrence, reference: Tensor, other: Tensor
    ) -> None:
        name, dim, segment, start = place
        # An axis that does not flip with its unit belongs to the part that a flip leaves.
        own = gain.signed if term.signed and segment.signed else gain.unsigned
        assert own is not None
        if segment.within:
            own += _within(self._spec, name, reference, other, dim, segment)
        else:
            own.addmm_(segment.by_unit(reference, dim, start), segment.by_unit(other, dim, start).T)


def places(spec: PermutationSpec, terms: Sequence[Term], group: str) -> Iterator[Occurrence]:
    """Those places of a group's units (`PermutationSpec.places`) that are compared."""
    return (place for place in spec.occurrences(group) if place[0] in terms[0].other)


def other_dims(tensor: Tensor, dim: int) -> list[int]:
    """All dimensions of a tensor but one."""
    return [d for d in range(tensor.dim()) if d != dim]


def _apply_to_others(term: Term, name: str, dim: int, permutation: Permutation) -> Tensor:
    """A tensor of a term, permuted along all dimensions but one."""
    other = term.other[name]
    return (permutation if term.signed else permutation.unsigned()).apply_along(
        name, other, other_dims(other, dim)
    )


def _same(first: Permutation, second: Permutation, group: str) -> bool:
    """Whether two permutations do the same to a group's units."""
    for own, others in ((first.indices, second.indices), (first.signs, second.signs)):
        if (
            group in own
            and own[group] is not others[group]
            and not torch.equal(own[group], others[group])
        ):
            return False
    return True


def _entries(permutation: Permutation, axis: Axis, signed: bool) -> tuple[Tensor, Tensor]:
    """The old entry and the sign of every entry of an axis."""
    index, sign = permutation._gather(axis)
    return index, sign if signed else torch.ones_like(sign)


def _within(
    spec: PermutationSpec, name: str, reference: Tensor, other: Tensor, dim: int, segment: Segment
) -> Tensor:
    """(unit, unit), of an axis that holds one block, which another axis names: 0 between units of
    two blocks.
    """
    assert segment.group is not None
    group = spec.groups[segment.group]
    owner = block_owner(spec, spec.axes[name], segment)
    own = torch.zeros(group.size, group.size)
    by_block = [a.movedim((owner, dim), (0, 1)).chunk(group.blocks) for a in (reference, other)]
    for block, (a, b) in enumerate(zip(*by_block, strict=True)):
        units = slice(block * segment.size, (block + 1) * segment.size)
        own[units, units] = a.transpose(0, 1).flatten(1) @ b.transpose(0, 1).flatten(1).T
    return own
