"""Compute the gain of every assignment of a group's units, updated from permutation to permutation.

A gain is linear in the tensors that the other groups permute. Between two visits of a group most of
these units have not moved, so the gain is corrected by inner products with those that have, at a
cost in proportion to their number. Tensors that no group permutes, such as the inputs of the first
layer, are multiplied once.
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
    """Represent one sum of inner products, over the tensors of a spec.

    Attributes:
        reference: tensor name -> (*shape).
        other: the same for the posterior that is permuted.
        signed: whether signs of units act on it.
    """

    reference: Mapping[str, Tensor]
    other: Mapping[str, Tensor]
    signed: bool


@dataclass(frozen=True)
class Gain:
    """Hold the gain of each assignment of units, (new unit, old unit), by its response to a flip.

    Attributes:
        unsigned: the part that a flip of the unit leaves; the whole gain if no unit can flip.
        signed: the part that a flip negates; None if no unit can flip.
    """

    unsigned: Tensor
    signed: Tensor | None = None

    def value(self, permutation: Permutation, group: str) -> float:
        """Return the gain of the assignment of a permutation, in float64.

        Args:
            permutation: the permutation.
            group: the group of units.
        """
        index = permutation.indices[group][:, None]
        total = float(self.unsigned.gather(1, index).double().sum())
        if self.signed is not None:
            signed, sign = self.signed.gather(1, index)[:, 0].double(), permutation.signs.get(group)
            total += float((signed if sign is None else signed * sign).sum())
        return total

    def move(self, other: "Gain", step: float) -> None:
        """Move a fraction of the distance to another gain, in place.

        Args:
            other: the other gain.
            step: the fraction.
        """
        self.unsigned.lerp_(other.unsigned, step)
        if self.signed is not None and other.signed is not None:
            self.signed.lerp_(other.signed, step)

    def best(self) -> Tensor:
        """Return the gain with the better sign."""
        return self.unsigned if self.signed is None else self.signed.abs() + self.unsigned

    def unflipped(self) -> Tensor:
        """Return the gain without a flip."""
        return self.unsigned if self.signed is None else self.signed + self.unsigned


class Gains:
    """Compute the gains of all groups as a function of the permutation, with a cache per group.

    Args:
        spec: of the network.
        terms: their sum is the objective.
    """

    def __init__(self, spec: PermutationSpec, terms: Sequence[Term]):
        self._spec, self._terms = spec, terms
        self._cache: dict[str, tuple[Permutation, Gain]] = {}
        self._occurrences: dict[str, list[Occurrence]] = {}

    def gain(self, group: str, permutation: Permutation) -> Gain:
        """Return the gain of every assignment of a group's units, with all other units fixed.

        The next call for the group updates the result in place.

        Args:
            group: the group of units.
            permutation: determines the positions of the other units.
        """
        if group not in self._cache:
            self._occurrences[group] = list(occurrences(self._spec, self._terms, group))
            self._cache[group] = permutation, self._first(group, permutation)
            return self._cache[group][1]
        before, gain = self._cache[group]
        moved = {name for name in self._spec.groups if not _same(before, permutation, name)}
        for occurrence in self._occurrences[group] if moved else ():
            name, dim, _, _ = occurrence
            axes = self._spec.axes[name]
            acting = [
                d for d, axis in enumerate(axes) if d != dim and any(s.group in moved for s in axis)
            ]
            if not acting:
                continue
            for term in self._terms:
                if len(acting) == 1 and not any(s.within for axis in axes for s in axis):
                    self._correct(gain, term, occurrence, acting[0], before, permutation)
                else:
                    changed = _apply_to_others(term, name, dim, permutation) - _apply_to_others(
                        term, name, dim, before
                    )
                    self._add(gain, term, occurrence, term.reference[name], changed)
        self._cache[group] = permutation, gain
        return gain

    def _first(self, group: str, permutation: Permutation) -> Gain:
        size = self._spec.groups[group].size
        flips = any(
            term.signed and segment.signed
            for term in self._terms
            for _, _, segment, _ in self._occurrences[group]
        )
        gain = Gain(torch.zeros(size, size), torch.zeros(size, size) if flips else None)
        for occurrence in self._occurrences[group]:
            name, dim, _, _ = occurrence
            for term in self._terms:
                self._add(
                    gain,
                    term,
                    occurrence,
                    term.reference[name],
                    _apply_to_others(term, name, dim, permutation),
                )
        return gain

    def _correct(
        self,
        gain: Gain,
        term: Term,
        occurrence: Occurrence,
        acting: int,
        before: Permutation,
        now: Permutation,
    ) -> None:
        """Add the change of the entries of one other dimension that have moved."""
        name, dim, _, _ = occurrence
        axis, other = self._spec.axes[name][acting], term.other[name]
        (index, sign), (old_index, old_sign) = (
            _entries(permutation, axis, term.signed) for permutation in (now, before)
        )
        entries = ((index != old_index) | (sign != old_sign)).nonzero().squeeze(1)
        rest = [d for d in other_dims(other, dim) if d != acting]
        shape = [-1 if d == acting else 1 for d in range(other.dim())]
        changed = other.index_select(acting, index[entries])
        old = other.index_select(acting, old_index[entries])
        if term.signed:
            changed *= sign[entries].reshape(shape)
            old *= old_sign[entries].reshape(shape)
        changed = (now if term.signed else now.unsigned()).apply_along(
            name, changed.sub_(old), rest
        )
        reference = term.reference[name].index_select(acting, entries)
        self._add(gain, term, occurrence, reference, changed)

    def _add(
        self, gain: Gain, term: Term, occurrence: Occurrence, reference: Tensor, other: Tensor
    ) -> None:
        name, dim, segment, start = occurrence
        # An axis that does not flip with its unit belongs to the part that a flip leaves.
        part = gain.signed if term.signed and segment.signed else gain.unsigned
        assert part is not None
        if segment.within:
            part += _within(self._spec, name, reference, other, dim, segment)
        else:
            part.addmm_(
                segment.by_unit(reference, dim, start), segment.by_unit(other, dim, start).T
            )


def occurrences(spec: PermutationSpec, terms: Sequence[Term], group: str) -> Iterator[Occurrence]:
    """Yield the occurrences of a group's units (`PermutationSpec.occurrences`) that are compared.

    Args:
        spec: of the network.
        terms: their tensors are compared.
        group: the group of units.
    """
    return (occurrence for occurrence in spec.occurrences(group) if occurrence[0] in terms[0].other)


def other_dims(tensor: Tensor, dim: int) -> list[int]:
    """Return all dimensions of a tensor but one.

    Args:
        tensor: the tensor.
        dim: the dimension to leave out.
    """
    return [d for d in range(tensor.dim()) if d != dim]


def _apply_to_others(term: Term, name: str, dim: int, permutation: Permutation) -> Tensor:
    """Return a tensor of a term, permuted along all dimensions but one."""
    other = term.other[name]
    return (permutation if term.signed else permutation.unsigned()).apply_along(
        name, other, other_dims(other, dim)
    )


def _same(first: Permutation, second: Permutation, group: str) -> bool:
    """Return whether two permutations act equally on a group's units."""
    for values, others in ((first.indices, second.indices), (first.signs, second.signs)):
        if (
            group in values
            and values[group] is not others[group]
            and not torch.equal(values[group], others[group])
        ):
            return False
    return True


def _entries(permutation: Permutation, axis: Axis, signed: bool) -> tuple[Tensor, Tensor]:
    """Return the old entry and the sign of every entry of an axis."""
    index, sign = permutation._gather(axis)
    return index, sign if signed else torch.ones_like(sign)


def _within(
    spec: PermutationSpec, name: str, reference: Tensor, other: Tensor, dim: int, segment: Segment
) -> Tensor:
    """Return the gain (unit, unit) on an axis that holds one block, which another axis determines.

    It is 0 between units of two blocks.
    """
    assert segment.group is not None
    group = spec.groups[segment.group]
    owner = block_owner(spec, spec.axes[name], segment)
    gain = torch.zeros(group.size, group.size)
    by_block = [a.movedim((owner, dim), (0, 1)).chunk(group.blocks) for a in (reference, other)]
    for block, (a, b) in enumerate(zip(*by_block, strict=True)):
        units = slice(block * segment.size, (block + 1) * segment.size)
        gain[units, units] = a.transpose(0, 1).flatten(1) @ b.transpose(0, 1).flatten(1).T
    return gain
