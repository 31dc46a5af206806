"""Describe which signed permutations of hidden units act on which axes of which parameters.

A `PermutationSpec` is plain data. It has *groups* of interchangeable hidden units (the units of a
layer, the channels of a residual stream, the heads of an attention layer) and, for every parameter,
the composition of each axis: a tuple of `Segment`s, each of which covers the units of one group or
entries that are not permuted (inputs, outputs, positions of a kernel). A `Permutation` is an
element of the group: an order of the units of every group, with signs where units may flip.
`symmetry.derive` builds the spec of a network; `symmetry.group` finds the subgroup that fixed
entries leave.

References:
    Ainsworth, Hayase and Srinivasa (2023), Git Re-Basin, arXiv:2209.04836: permutations of axes by
    name.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.randomness import torch_generator
from bnn_symm.summaries import Summarized


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of interchangeable hidden units.

    Attributes:
        name: name of the layer whose outputs they are.
        size: number of units.
        parent: a group whose units own blocks of this one's, as heads own the units within a head:
            this group's units then move with their block, and within it.
        blocks: number of such blocks, each of size / blocks consecutive units; 1 for units that can
            take any position. With `blocks` above 1 and no parent, units stay in their block.
        signed: whether a unit may change its sign (odd activations).
    """

    name: str
    size: int
    parent: str | None = None
    blocks: int = 1
    signed: bool = False

    @property
    def order(self) -> int:
        """Return the number of elements, given the parent's permutation."""
        return math.factorial(self.size // self.blocks) ** self.blocks * (
            2**self.size if self.signed else 1
        )

    @property
    def log10_order(self) -> float:
        """Return the base-10 logarithm of `order`, without computing the order."""
        units = self.size // self.blocks
        signs = self.size * math.log10(2) if self.signed else 0.0
        return self.blocks * math.lgamma(units + 1) / math.log(10) + signs


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A segment of an axis: `outer * size * inner` entries in the order (outer, unit, inner).

    The last index varies fastest.

    Attributes:
        group: name of the group of its units; None for entries that are not permuted.
        size: number of units of the group, or of entries that are not permuted.
        outer: number of times that the units are repeated as a whole.
        inner: number of consecutive entries of one unit, such as the positions of a flattened map.
        within: whether the segment holds a single block of the group, which another axis of the
            tensor selects (grouped convolution: the input channels of the block of the output
            channel). `size` is then that of a block.
        signed: whether entries change sign with their unit.
        scale: power of its unit's positive factor that an entry is multiplied by when units are
            rescaled (relu): 1 for weights into the unit, -1 for weights out of it, 0 for neither.
    """

    group: str | None
    size: int
    outer: int = 1
    inner: int = 1
    within: bool = False
    signed: bool = False
    scale: int = 0

    @property
    def length(self) -> int:
        """Return the number of entries of the axis that the segment covers."""
        return self.outer * self.size * self.inner

    def by_unit(self, tensor: Tensor, dim: int, start: int, *, leading: int = 0) -> Tensor:
        """Return a tensor's entries for each unit of the segment: (*leading, unit, entry).

        Args:
            tensor: (*leading, *shape).
            dim: dimension within the shape.
            start: position in it where the segment begins.
            leading: number of axes before the shape, such as draws.
        """
        entries = tensor.movedim(leading + dim, leading).narrow(leading, start, self.length)
        entries = entries.reshape(*tensor.shape[:leading], self.outer, self.size, -1)
        return entries.movedim(leading + 1, leading).flatten(leading + 1)


Axis = tuple[Segment, ...]


@dataclass(frozen=True, repr=False)
class PermutationSpec(Summarized):
    """The signed permutations of hidden units that preserve a function if nothing is fixed.

    Attributes:
        groups: groups by name, in the order of the network's layers; parents come before children.
        axes: tensor name -> one `Axis` per dimension, for every parameter and every buffer that the
            function reads.
        output_axes: tensor name -> the dimension of the network's outputs, where there is one.
        input_shape: shape of one point in the derivation.
        num_frozen_units: number of units that the derivation keeps in place without a proof: a
            constant or an index in the code distinguishes them, or their relation cannot be
            expressed by labels. Symmetries among them are not searched.
        frozen_at: the first line of code that keeps some of these in place, such as `net.py:12`.
        unknown_operations: names of operations without a rule whose units are kept in place, as the
            argument `hold` of `permutation_spec` asks for.
        num_unsearched_flips: number of other units of which some flips are not searched, since two
            consecutive parameters could cancel them, or a norm is invariant to a flip of all units.
        flips_before_norms: groups that are counted there because of norms only.
    """

    groups: Mapping[str, Group]
    axes: Mapping[str, tuple[Axis, ...]]
    output_axes: Mapping[str, int] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    num_frozen_units: int = 0
    frozen_at: str | None = None
    unknown_operations: tuple[str, ...] = ()
    num_unsearched_flips: int = 0
    flips_before_norms: tuple[str, ...] = ()

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "groups": {name: group.size for name, group in self.groups.items()},
            "log10_order": self.log10_order,
        }

    @property
    def log10_order(self) -> float:
        """Return the base-10 logarithm of the number of elements."""
        return math.fsum(group.log10_order for group in self.groups.values())

    def tensors_of(self, group: str) -> list[str]:
        """Return the names of the tensors that a group acts on."""
        return [
            name
            for name, axes in self.axes.items()
            if any(s.group == group for axis in axes for s in axis)
        ]

    @property
    def scaled_groups(self) -> set[str]:
        """Return the groups whose units can be rescaled."""
        segments = (s for axes in self.axes.values() for axis in axes for s in axis)
        return {s.group for s in segments if s.group is not None and s.scale}

    def occurrences(self, group: str) -> Iterator[tuple[str, int, Segment, int]]:
        """Yield each occurrence of a group's units: tensor, dimension, segment and its start."""
        for name, axes in self.axes.items():
            for dim, axis in enumerate(axes):
                start = 0
                for segment in axis:
                    if segment.group == group:
                        yield name, dim, segment, start
                    start += segment.length

    def groups_of(self, name: str) -> set[str]:
        """Return the groups of units along the axes of a tensor; none if the spec lacks it.

        Args:
            name: name of the tensor.
        """
        axes = self.axes.get(name, ())
        return {s.group for axis in axes for s in axis if s.group is not None}

    def identity(self) -> "Permutation":
        """Return the permutation that moves nothing."""
        indices = {name: torch.arange(group.size) for name, group in self.groups.items()}
        return Permutation(self, indices, self._positive())

    def random(self, *key: int | str) -> "Permutation":
        """Return a uniformly random element for a key such as (seed, "control")."""
        indices: dict[str, Tensor] = {}
        signs = self._positive()
        for name, group in self.groups.items():
            generator = torch_generator(*key, "permutation", name)
            block = group.size // group.blocks
            within = torch.stack(
                [torch.randperm(block, generator=generator) for _ in range(group.blocks)]
            )
            blocks = torch.arange(group.blocks) if group.parent is None else indices[group.parent]
            indices[name] = (blocks[:, None] * block + within).flatten()
            if group.signed:
                signs[name] = torch.randint(2, (group.size,), generator=generator) * 2 - 1
        return Permutation(self, indices, signs)

    def permutation(
        self,
        indices: Mapping[str, Int[Tensor, " _"]],
        signs: Mapping[str, Int[Tensor, " unit"]] | None = None,
    ) -> "Permutation":
        """Build an element from the order of some groups' units; the other groups are not permuted.

        Args:
            indices: group -> index of the old unit at each new position.
            signs: group -> +1 or -1 for each new position.

        Raises:
            IncompatiblePosteriors: if a group is unknown, an order is not a permutation of its
                units, units leave their block, or signs are given for a group whose units may not
                flip.
        """
        identity = self.identity()
        for name in [*indices, *(signs or {})]:
            if name not in self.groups:
                raise IncompatiblePosteriors(
                    f"no group {name!r}; the groups are {', '.join(self.groups)}"
                )
        permutation = Permutation(
            self, {**identity.indices, **indices}, {**identity.signs, **(signs or {})}
        )
        permutation.check()
        return permutation

    def transposition(self, name: str, units: tuple[int, int]) -> "Permutation":
        """Return the swap of two units of a group, together with the blocks that they own.

        Args:
            name: name of the group.
            units: the two units.
        """
        i, j = units
        order = torch.arange(self.groups[name].size)
        order[i], order[j] = j, i
        return self.permutation(self.with_owned(name, order))

    def with_owned(self, name: str, order: Int[Tensor, " _"]) -> dict[str, Tensor]:
        """Return an order of a group's units, and of all units in the blocks that they own.

        Args:
            name: name of the group.
            order: index of the old unit at each new position.

        Returns:
            Group -> order, for the group and the groups whose blocks move with it.
        """
        indices = {name: order}
        for child in self.groups.values():  # parents come before children
            if child.parent in indices:
                of_parent = indices[child.parent]
                blocks = torch.arange(child.size).reshape(len(of_parent), -1)
                indices[child.name] = blocks[of_parent].flatten()
        return indices

    def same_block(self, name: str, i: int, j: int) -> bool:
        """Return whether two units of a group can be exchanged without exchanging blocks."""
        block = self.groups[name].size // self.groups[name].blocks
        return i // block == j // block

    def _positive(self) -> dict[str, Tensor]:
        return {
            name: torch.ones(group.size, dtype=torch.long)
            for name, group in self.groups.items()
            if group.signed
        }


@dataclass(frozen=True, eq=False, repr=False)
class Permutation(Summarized):
    """An element of the group of a spec: `(P x)[i] = signs[i] * x[indices[i]]` for each group.

    Attributes:
        spec: the spec whose group it belongs to.
        indices: group -> (unit,), the old unit at each new position.
        signs: group -> (unit,) of +1 and -1, for the groups whose units may flip.

    Example:
        >>> from torch import nn
        >>> from bnn_symm.symmetry import permutation_spec
        >>> spec = permutation_spec(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        >>> spec.transposition("0", (0, 1)).indices["0"]
        tensor([1, 0, 2])
    """

    spec: PermutationSpec
    indices: Mapping[str, Int[Tensor, " _"]]
    signs: Mapping[str, Int[Tensor, " _"]] = field(default_factory=dict)

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"num_moved": self.num_moved, "fixed_points": self.fixed_points()}

    def check(self) -> None:
        """Check that this is an element of the spec's group.

        Raises:
            IncompatiblePosteriors: if it is not; the message names the group.
        """
        for name, group in self.spec.groups.items():
            index = self.indices[name]
            if not torch.equal(index.sort().values, torch.arange(group.size)):
                raise IncompatiblePosteriors(
                    f"group {name!r}: the order is not a permutation of its {group.size} units"
                )
            block = group.size // group.blocks
            sources = index.reshape(group.blocks, block) // block
            wanted = (
                torch.arange(group.blocks) if group.parent is None else self.indices[group.parent]
            )
            if not torch.equal(sources, wanted[:, None].expand_as(sources)):
                raise IncompatiblePosteriors(
                    f"group {name!r}: units leave their block of {block}"
                    + (f", which moves with {group.parent!r}" if group.parent else "")
                )
        for name, sign in self.signs.items():
            group = self.spec.groups[name]
            if not group.signed and bool((sign != 1).any()):
                raise IncompatiblePosteriors(f"group {name!r}: its units may not change sign")
            if sign.shape != (group.size,) or bool((sign.abs() != 1).any()):
                raise IncompatiblePosteriors(
                    f"group {name!r}: expected {group.size} signs, each +1 or -1"
                )

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Permute named tensors, each (*draw, *shape).

        Tensors that the spec lacks are returned unchanged.

        For a network whose weights have fixed entries these are the *effective* weights, at their
        full shape.

        Args:
            tensors: tensor name -> (*draw, *shape).

        Returns:
            The permuted tensors, by name.
        """
        groups = {name: self.spec.groups_of(name) for name in tensors}
        stays = self._stays(set().union(*groups.values()))
        moved = {name for name, unmoved in stays.items() if not bool(unmoved.all())}
        return {
            name: self._apply(value, self.spec.axes[name]) if moved & groups[name] else value
            for name, value in tensors.items()
        }

    def apply_along(self, name: str, value: Tensor, dims: Collection[int]) -> Tensor:
        """Permute one tensor, (*draw, *shape), along some of its own dimensions only.

        Args:
            name: name of the tensor.
            value: the tensor.
            dims: dimensions of its shape to permute.
        """
        return self._apply(value, self.spec.axes[name], dims)

    def unsigned(self) -> "Permutation":
        """Return the same order without signs, which is how standard deviations are permuted."""
        return Permutation(
            self.spec,
            self.indices,
            {name: torch.ones_like(sign) for name, sign in self.signs.items()},
        )

    def compose(self, first: "Permutation") -> "Permutation":
        """Return the permutation that applies `first` and then this one."""
        indices = {name: first.indices[name][index] for name, index in self.indices.items()}
        signs = {
            name: sign * first.signs[name][self.indices[name]] for name, sign in self.signs.items()
        }
        return Permutation(self.spec, indices, signs)

    def inverse(self) -> "Permutation":
        """Return the permutation that undoes this one."""
        indices = {name: index.argsort() for name, index in self.indices.items()}
        signs = {name: sign[indices[name]] for name, sign in self.signs.items()}
        return Permutation(self.spec, indices, signs)

    def to_dict(self) -> dict[str, Any]:
        """Return the old index (`permutation`) and the sign (`signs`) of every new unit, by group.

        Example:
            >>> from torch import nn
            >>> from bnn_symm.symmetry import permutation_spec
            >>> spec = permutation_spec(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
            >>> spec.transposition("0", (0, 1)).to_dict()["permutation"]
            {'0': [1, 0, 2]}
        """
        return {
            "permutation": {name: own.tolist() for name, own in self.indices.items()},
            "signs": {name: own.tolist() for name, own in self.signs.items()},
        }

    def fixed_points(self) -> dict[str, int]:
        """Return group -> number of units that keep their position and sign."""
        return {name: int(stays.sum()) for name, stays in self._stays().items()}

    @property
    def num_moved(self) -> int:
        """Return the number of units, over all groups, that change position or sign."""
        return sum(int((~stays).sum()) for stays in self._stays().values())

    @property
    def is_identity(self) -> bool:
        """Return whether the permutation moves nothing."""
        return self.num_moved == 0

    def differs_from(self, other: "Permutation") -> set[str]:
        """Return the groups of units on which two permutations act differently."""
        parts = ((self.indices, other.indices), (self.signs, other.signs))
        return {name for own, its in parts for name in own if not torch.equal(own[name], its[name])}

    def same_as(self, other: "Permutation") -> bool:
        """Return whether both permutations act alike on every unit."""
        return not self.differs_from(other)

    def _stays(self, groups: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return whether each unit keeps its position and sign, of some groups or of all."""
        stays = {}
        for name in self.indices if groups is None else groups:
            index = self.indices[name]
            stays[name] = index == torch.arange(len(index))
            if name in self.signs:
                stays[name] = stays[name] & (self.signs[name] == 1)
        return stays

    def _apply(
        self, value: Tensor, axes: tuple[Axis, ...], dims: Collection[int] | None = None
    ) -> Tensor:
        for axis, segments in enumerate(axes):
            if all(segment.group is None for segment in segments) or (
                dims is not None and axis not in dims
            ):
                continue
            dim = value.dim() - len(axes) + axis
            if any(segment.within for segment in segments):
                value = self._apply_within(value, dim, axes, segments)
                continue
            index, sign = self._gather(segments)
            value = value.index_select(dim, index.to(value.device))
            if bool((sign != 1).any()):
                shape = [-1] + [1] * (value.dim() - dim - 1)
                value = value * sign.to(value.device, value.dtype).reshape(shape)
        return value

    def _gather(self, segments: Axis) -> tuple[Tensor, Tensor]:
        """Return the old entry and the sign for every entry of an axis."""
        if len(segments) == 1 and (s := segments[0]).length == s.size and s.group is not None:
            # Units are entries, as in most axes: solvers permute these thousands of times.
            units = self.indices[s.group]
            sign = self.signs.get(s.group) if s.signed else None
            return units, torch.ones_like(units) if sign is None else sign
        indices, signs, start = [], [], 0
        for s in segments:
            units = torch.arange(s.size) if s.group is None else self.indices[s.group]
            sign = torch.ones(s.size, dtype=torch.long)
            if s.group is not None and s.signed and s.group in self.signs:
                sign = self.signs[s.group]
            grid = torch.arange(s.length).reshape(s.outer, s.size, s.inner)
            indices.append(start + grid[:, units].flatten())
            signs.append(sign[None, :, None].expand(grid.shape).flatten())
            start += s.length
        return torch.cat(indices), torch.cat(signs)

    def _apply_within(
        self, value: Tensor, dim: int, axes: tuple[Axis, ...], segments: Axis
    ) -> Tensor:
        """Permute an axis that holds a single block, whose order follows the owner's new unit.

        The owner's axis has been permuted already, so row `r` belongs to its new block.
        """
        (segment,) = segments
        assert segment.group is not None
        owner = block_owner(self.spec, axes, segment)
        rows = value.dim() - len(axes) + owner
        blocks = self.spec.groups[segment.group].blocks
        order = self.indices[segment.group].reshape(blocks, segment.size) % segment.size
        per_row = value.shape[rows] // blocks
        index = order.repeat_interleave(per_row, dim=0).to(value.device)  # (row, entry)
        moved = value.movedim((rows, dim), (-2, -1))
        moved = moved.gather(-1, index.expand(moved.shape))
        if segment.signed and segment.group in self.signs:
            sign = (
                self.signs[segment.group]
                .reshape(blocks, segment.size)
                .repeat_interleave(per_row, dim=0)
            )
            moved = moved * sign.to(value.device, value.dtype)
        return moved.movedim((-2, -1), (rows, dim))


def block_owner(spec: PermutationSpec, axes: tuple[Axis, ...], segment: Segment) -> int:
    """Return the dimension whose units select the block of a `within` segment.

    It is an axis of the parent group, or of a group with the same blocks.

    Args:
        spec: the spec of the network.
        axes: the axes of the tensor.
        segment: a segment of these with `within`.
    """
    assert segment.group is not None
    group = spec.groups[segment.group]
    for dim, other in enumerate(axes):
        if len(other) != 1 or other[0].within:
            continue
        name = other[0].group
        if name is not None and (name == group.parent or spec.groups[name].blocks == group.blocks):
            return dim
        if name is None and group.parent is None and other[0].length % group.blocks == 0:
            return dim
    raise AssertionError(f"no axis selects the block of {segment.group}")
