"""Label axes by the units that must be permuted, flipped and rescaled together.

During a traced forward pass every axis of every tensor carries a label: a tuple of `AxisSegment`s,
each of which covers units of one *node*. An operation relates labels, for example "these two axes
hold the same units", and nodes are merged, split or pinned accordingly. The nodes that remain at
the end are the groups of the network. Three relations are tracked:

- nodes: which units are the same (union-find; a node may be split into consecutive pieces, or owned
  in blocks by a parent node);
- sign classes (`ScaleClasses`): which occurrences of a node change sign when a unit flips;
- scale classes: the same for a positive factor, with the power 1 or -1 at which an occurrence is
  multiplied by it.

A node is kept in place for one of two reasons. It is *pinned* if an operation ties its units to
inputs, outputs or positions, so they are not hidden units: that is a proof. It is *frozen* if a
constant or an index in the code distinguishes its units: a symmetry among them may exist but is not
searched, so these units are counted. Axes whose entries are all equal (of an expanded tensor, of
`torch.ones`) are *neutral*: every permutation of them is allowed and has no effect.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul

from bnn_symm.symmetry.tracing.scale_classes import INVARIANT, ScaleClass, ScaleClasses


def _shape(part: "AxisSegment") -> tuple[int, int, bool, int]:
    return part.outer, part.inner, part.within, part.copies


class CannotDerive(Exception):
    """An operation relates axes in a way that labels cannot express."""


@dataclass(frozen=True)
class AxisSegment:
    """A segment of an axis: `outer * units * copies * inner` entries of one node.

    See `permutation_spec.Segment` for `outer`, `inner` and `within`. The `copies` of a unit are
    equal entries, as after `repeat_interleave`.
    """

    node: int
    outer: int = 1
    inner: int = 1
    within: bool = False
    copies: int = 1
    sign: ScaleClass = INVARIANT
    scale: ScaleClass = INVARIANT


Label = tuple[AxisSegment, ...]


@dataclass
class _Node:
    size: int
    pinned: bool = False
    frozen: bool = False  # kept in place without a proof
    frozen_at: str | None = None
    neutral: bool = False  # all its entries are equal
    has_unsearched_flips: bool = False
    before_norm: bool = False  # flips of all units at once are not searched
    shared: bool = False  # one unit that multiplies a tensor which other units may flip
    ended: bool = False  # one unit whose factor has ended, so it neither flips nor is rescaled
    parent: int | None = None
    children: list[int] = field(default_factory=list)
    # Units stay in their places within a block, and the blocks move; perhaps without a proof.
    is_kept: bool = False
    is_kept_within: bool = False
    former_block: int | None = None  # number of units in a block, before these were kept or split
    # The labels of the slices of an axis of blocks, where each slice has units of its own.
    slices: tuple[AxisSegment, ...] | None = None
    # The segments that it was merged into or split into; their own classes are not used.
    pieces: tuple[AxisSegment, ...] | None = None


@dataclass
class Labels:
    """All nodes of one derivation.

    Attributes:
        signs: classes of sign flips.
        scales: classes of positive factors.
        locate: returns the line of code that is being executed.
    """

    signs: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=False))
    scales: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=True))
    locate: Callable[[], str | None] = lambda: None
    _nodes: list[_Node] = field(default_factory=list)

    # -- creating and reading labels

    def fresh(self, size: int) -> Label:
        """Return an axis of a parameter about which nothing is known yet."""
        self._nodes.append(_Node(size))
        return (
            AxisSegment(len(self._nodes) - 1, sign=self.signs.fresh(), scale=self.scales.fresh()),
        )

    def fixed(self, size: int, *, frozen: bool = False) -> Label:
        """Return an axis whose entries are kept in place.

        Args:
            size: number of entries.
            frozen: whether axes that are matched with it are kept in place without a proof, as with
                a constant of the code.
        """
        self._nodes.append(_Node(size, pinned=True, frozen=frozen))
        return (AxisSegment(len(self._nodes) - 1),)

    def neutral(self, size: int, *, zero: bool = False) -> Label:
        """Return an axis whose entries are all equal, so that permutations have no effect.

        Args:
            size: number of entries.
            zero: whether they are zero, so that flips and factors have no effect either.
        """
        self._nodes.append(_Node(size, neutral=True))
        part = AxisSegment(len(self._nodes) - 1)
        if zero:
            part = replace(part, sign=self.signs.fresh(), scale=self.scales.fresh())
        return (part,)

    def resolve(self, label: Label) -> Label:
        """Express a label by nodes that were neither merged nor split; join pinned neighbors."""
        parts: list[AxisSegment] = []
        for part in label:
            parts.extend(self._resolve(part))
        joined: list[AxisSegment] = []
        for part in parts:
            if joined and self.is_pinned(part) and self.is_pinned(joined[-1]):
                frozen = self._nodes[joined[-1].node].frozen or self._nodes[part.node].frozen
                length = self.length(joined[-1]) + self.length(part)
                joined[-1] = self.fixed(length, frozen=frozen)[0]
            else:
                joined.append(part)
        return tuple(joined)

    def _resolve(self, part: AxisSegment) -> list[AxisSegment]:
        node = self._nodes[part.node]
        if node.pieces is None:
            if node.pinned and not self._is_simple(part):
                return list(self.fixed(self.length(part), frozen=node.frozen))
            return [part]
        if node.is_kept:
            # The blocks move, and the units within them stay. Factors of single units are lost.
            part = replace(part, sign=INVARIANT, scale=INVARIANT)
            if part.within:
                size = part.outer * node.pieces[0].inner * part.copies * part.inner
                return list(self.fixed(size, frozen=node.is_kept_within))
        if len(node.pieces) > 1 and part.within:
            # Which piece an entry belongs to depends on the block, so that all stay in place.
            for piece in node.pieces:
                self.freeze((piece,))
            return list(self.fixed(self.length(part), frozen=True))
        parts = []
        for piece in node.pieces:
            below = replace(
                piece,
                inner=piece.inner * part.inner,
                within=part.within or piece.within,
                copies=piece.copies * part.copies,
                sign=part.sign,
                scale=part.scale,
            )
            parts.extend(self._resolve(below))
        if part.outer == 1:
            return parts
        if len(parts) == 1:
            return [replace(parts[0], outer=parts[0].outer * part.outer)]
        return parts * part.outer

    def units(self, part: AxisSegment) -> int:
        """Return the number of units that a segment covers: the node's, or those of one block."""
        node = self._nodes[part.node]
        if part.within and node.former_block is not None:
            return node.former_block
        if part.within:
            parent = self.parent(part.node)
            assert parent is not None
            return node.size // self._nodes[parent].size
        return node.size

    def length(self, part: AxisSegment) -> int:
        """Return the number of entries of an axis that a segment covers."""
        return part.outer * self.units(part) * part.copies * part.inner

    def size(self, label: Label) -> int:
        """Return the number of entries of an axis."""
        return sum(self.length(part) for part in label)

    def is_pinned(self, part: AxisSegment) -> bool:
        """Return whether the entries of a resolved segment are kept in place."""
        return self._nodes[part.node].pinned

    def is_frozen(self, part: AxisSegment) -> bool:
        """Return whether the entries of a resolved segment are kept in place without a proof."""
        return self._nodes[part.node].frozen

    def is_fixed(self, label: Label) -> bool:
        """Return whether all entries of an axis are kept in place."""
        return all(self.is_pinned(part) for part in self.resolve(label))

    def is_hidden(self, label: Label) -> bool:
        """Return whether an axis has units that may be permuted, flipped or rescaled."""
        return any(
            not self._nodes[part.node].pinned
            and not (self._nodes[part.node].neutral and part.sign == INVARIANT)
            for part in self.resolve(label)
        )

    def flips(self, label: Label) -> bool:
        """Return whether some units of an axis may still change sign."""
        return any(
            not self.is_pinned(part) and not self.signs.is_identity(part.sign)
            for part in self.resolve(label)
        )

    def pin_neutral(self, label: Label) -> Label:
        """Pin the neutral segments of an axis, which loses nothing yet, and return it resolved."""
        for part in self.resolve(label):
            if self._nodes[part.node].neutral:
                # Axes that are matched with it later are kept in place without a proof.
                self._pin_part(part, frozen=True)
        return self.resolve(label)

    def is_neutral(self, label: Label) -> bool:
        """Return whether all entries of an axis are equal."""
        return all(self._nodes[part.node].neutral for part in self.resolve(label))

    def with_copies(self, label: Label, number: int) -> Label:
        """Return a label of which every entry is repeated a number of times, in equal copies."""
        return tuple(
            self.fixed(self.length(part) * number, frozen=self.is_frozen(part))[0]
            if self.is_pinned(part)
            else replace(part, copies=part.copies * number)
            for part in self.resolve(label)
        )

    def parent(self, node: int) -> int | None:
        """Return the node that owns blocks of this one, if there is one."""
        parent = self._nodes[node].parent
        return None if parent is None else self._root(parent)

    def node_size(self, node: int) -> int:
        """Return the number of units of a node."""
        return self._nodes[node].size

    def node_pinned(self, node: int) -> bool:
        """Return whether the units of a node are kept in place."""
        return self._nodes[node].pinned

    def _root(self, node: int) -> int:
        pieces = self._nodes[node].pieces
        while pieces is not None:
            if len(pieces) != 1 or (pieces[0].outer, pieces[0].inner, pieces[0].copies) != (
                1,
                1,
                1,
            ):
                raise CannotDerive("blocks of units are split")
            node = pieces[0].node
            pieces = self._nodes[node].pieces
        return node

    # -- relating labels

    def pin(self, label: Label) -> None:
        """Keep the entries of an axis in place; that none can move is proved."""
        for part in self.resolve(label):
            self._pin_part(part)

    def freeze(self, label: Label) -> None:
        """Keep the units of an axis in place without a proof, so that they are counted."""
        for part in self.resolve(label):
            if not self.is_pinned(part):
                self._pin_part(part, frozen=True)

    def end(self, label: Label, *, proved: bool) -> None:
        """End an axis of one entry: from here on it neither flips nor is rescaled.

        Args:
            label: the label of the axis.
            proved: whether no product of its flip with others can be a symmetry.
        """
        shared = self.flips(label) and any(
            self._nodes[part.node].shared for part in self.resolve(label)
        )
        if not proved or shared:
            self.freeze(label)
        elif self.flips(label):
            self.pin(label)
            self.fix_to_identity(label)
        else:
            self.fix_to_identity(label)
            for part in self.resolve(label):
                self._nodes[part.node].ended = True

    def pin_ended(self, labels: Iterable[Label]) -> None:
        """Pin the single units of some axes whose factors have ended.

        Units that may flip elsewhere, such as one before `abs`, are left alone.
        """
        parts = [part for label in labels for part in self.resolve(label)]
        flipping = {part.node for part in parts if not self.signs.is_identity(part.sign)}
        for part in parts:
            if self._nodes[part.node].ended and part.node not in flipping:
                self._pin(part.node)

    def mark_shared(self, label: Label) -> None:
        """Mark an axis of one entry as the factor of a tensor that other units may flip as well."""
        for part in self.resolve(label):
            self._nodes[part.node].shared = True

    def stop_tracking(self, label: Label, *, before_norm: bool = False) -> None:
        """Stop tracking flips and factors of single units, without a proof about flips of several.

        Args:
            label: the label of the units.
            before_norm: whether only a flip of all units at once remains possible, together with
                everything that produces them.
        """
        if self.flips(label) and not before_norm:
            self.mark_flips_unsearched(label)
        elif self.flips(label):
            for part in self.resolve(label):
                self._nodes[part.node].before_norm = True
        self.fix_to_identity(label)

    def only_before_norm(self, node: int) -> bool:
        """Return whether flips of a node are not searched because of norms only."""
        return self._nodes[node].before_norm and not self._nodes[node].has_unsearched_flips

    def mark_flips_unsearched(self, label: Label) -> None:
        """Mark units whose flips are not tracked, without a proof that none is a symmetry."""
        for part in self.resolve(label):
            self._nodes[part.node].has_unsearched_flips = True

    def mark_pinned_flips_unsearched(self, labels: Iterable[Label]) -> None:
        """Mark flips of pinned units that no operation excludes, such as outputs after `abs`."""
        for label in labels:
            for part in self.resolve(label):
                if self.is_pinned(part) and not self.signs.is_identity(part.sign):
                    self.mark_flips_unsearched((part,))

    def num_frozen_units(self, labels: Iterable[Label]) -> int:
        """Return the number of units on some axes that are kept in place without a proof."""
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        return sum(self._nodes[node].size for node in nodes if self._is_kept(node))

    def first_frozen_at(self, labels: Iterable[Label]) -> str | None:
        """Return the first line of code that keeps units of some axes in place without a proof."""
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        lines = [self._nodes[node].frozen_at for node in sorted(nodes) if self._is_kept(node)]
        return next((line for line in lines if line is not None), None)

    def num_unsearched_flips(self, labels: Iterable[Label]) -> int:
        """Return the number of units that are not frozen and have flips that are not searched."""
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        return sum(
            self._nodes[node].size
            for node in nodes
            if (self._nodes[node].has_unsearched_flips or self._nodes[node].before_norm)
            and not self._is_kept(node)
        )

    def _is_kept(self, node: int) -> bool:
        """Return whether units of a node are kept in place, or in their block, without a proof."""
        return self._nodes[node].frozen or self._nodes[node].is_kept_within

    def _ends(self, node: int) -> Iterator[int]:
        """Yield the nodes that a node was finally merged into or split into."""
        pieces = self._nodes[node].pieces
        if pieces is None or self._nodes[node].is_kept_within:
            yield node
            return
        for piece in pieces:
            yield from self._ends(piece.node)

    def _pin_part(self, part: AxisSegment, *, frozen: bool = False) -> None:
        """Pin the units of a segment: those within a block stay in it, and the blocks may move."""
        slices = self._nodes[part.node].slices
        if slices is not None:
            for each in slices:
                for piece in self.resolve((each,)):
                    self._pin_part(piece, frozen=frozen)
            self._nodes[part.node].pinned = True
            self._nodes[part.node].frozen = frozen
        elif part.within and self.units(part) == 1:
            if frozen and self.flips((part,)):
                self.mark_flips_unsearched((part,))
            self.fix_to_identity((part,))
        elif part.within:
            self.keep_within(part.node, frozen=frozen)
        else:
            self._pin(part.node, frozen=frozen)

    def keep_within(self, node: int, *, frozen: bool) -> None:
        """Keep the units of a node in their places within their block; the blocks may move.

        Args:
            node: a node with a parent.
            frozen: whether this is without a proof.
        """
        node = self._root(node)
        entry, parent = self._nodes[node], self.parent(node)
        if entry.pinned:
            return
        assert parent is not None
        self._keep_children_within(node, frozen=frozen)
        entry.is_kept, entry.is_kept_within = True, frozen
        if frozen:
            entry.frozen_at = self.locate()
        block = entry.size // self._nodes[parent].size
        entry.former_block = block
        entry.pieces = (AxisSegment(parent, inner=block),)

    def keep_unselected(self, axes: Sequence[Label]) -> bool:
        """Keep units within their block where no axis of a tensor selects the block.

        Such units would have the same order in all blocks, which labels cannot express.

        Args:
            axes: labels of the axes of a tensor.

        Returns:
            Whether any units are kept that were not before.
        """
        if not any(part.within for label in axes for part in label):
            return False
        resolved = [self.resolve(label) for label in axes]
        whole = {part.node for label in resolved for part in label if not part.within}
        present = {part.node for label in resolved for part in label}
        owners = present | {self.parent(node) for node in whole}
        is_kept = False
        for label in resolved:
            for part in label:
                if part.within and self.parent(part.node) not in owners:
                    self.keep_within(part.node, frozen=self.units(part) > 1)
                    is_kept = True
        return is_kept

    def _keep_children_within(self, node: int, *, frozen: bool) -> None:
        for child in self._children(node):
            self.keep_within(child, frozen=frozen)

    def _children(self, node: int) -> list[int]:
        """Return the nodes whose blocks a node owns."""
        found = []
        for child in self._nodes[node].children:
            pieces = self._nodes[child].pieces
            while pieces is not None and len(pieces) == 1 and self._is_simple(pieces[0]):
                child = pieces[0].node
                pieces = self._nodes[child].pieces
            if pieces is None and self.parent(child) == node and child not in found:
                found.append(child)
        return found

    def _pin(self, node: int, *, frozen: bool = False) -> None:
        """Pin a node; a proof replaces a frozen state, never the reverse."""
        node = self._root(node)
        entry = self._nodes[node]
        if frozen and not entry.pinned:
            entry.frozen_at = self.locate()
        entry.frozen = frozen and (entry.frozen or not entry.pinned)
        entry.pinned = True
        parent = self.parent(node)
        if parent is not None and not self._nodes[parent].pinned:
            self._pin(parent, frozen=frozen)

    def align(self, first: Label, second: Label) -> list[tuple[AxisSegment, AxisSegment]]:
        """Identify the units of two axes of equal length, and return their matching segments.

        Sign and scale classes are not changed.
        """
        pairs: list[tuple[AxisSegment, AxisSegment]] = []
        left, right = list(self.resolve(first)), list(self.resolve(second))
        if self.size(tuple(left)) != self.size(tuple(right)):
            raise CannotDerive(
                f"an axis of {self.size(first)} entries is matched with one of {self.size(second)}"
            )
        while left:
            a, b = left.pop(0), right.pop(0)
            if self.length(a) != self.length(b):
                left, right = self._cut(a, b, left, right)
                continue
            self._merge(a, b)
            pairs.append(self._finest(a, b))
        return pairs

    def _finest(self, a: AxisSegment, b: AxisSegment) -> tuple[AxisSegment, AxisSegment]:
        """Return two merged segments resolved; copies of units are replaced by units of blocks."""
        (a,), (b,) = self.resolve((a,)), self.resolve((b,))
        if a.copies == b.copies or self.is_pinned(a) or self.is_pinned(b):
            return a, b
        copied, units = (a, b) if a.copies > 1 else (b, a)
        for part in (copied, units):  # units of different nodes, so that flips are not related
            if self.flips((part,)):
                self.mark_flips_unsearched((part,))
            self.fix_to_identity((part,))
        return units, units

    def _cut(
        self, a: AxisSegment, b: AxisSegment, left: list[AxisSegment], right: list[AxisSegment]
    ) -> tuple[list[AxisSegment], list[AxisSegment]]:
        """Split the longer segment where the shorter one ends, or freeze both."""
        longer, shorter = (a, b) if self.length(a) > self.length(b) else (b, a)
        length = self.length(shorter)
        if self.is_pinned(longer):
            rest = self.length(longer) - length
            frozen = self._nodes[longer.node].frozen
            cut = (self.fixed(length, frozen=frozen)[0], self.fixed(rest, frozen=frozen)[0])
        else:
            node = self._nodes[longer.node]
            if (
                longer.outer != 1
                or longer.within
                or longer.copies != 1
                or node.parent is not None
                or node.children
                or node.slices
                or length % longer.inner
            ):
                self.freeze((longer,))
                return [*self.resolve((a,)), *left], [*self.resolve((b,)), *right]
            self.split(longer.node, [length // longer.inner, node.size - length // longer.inner])
            cut = self.resolve((longer,))
        if longer is a:
            return [*cut, *self.resolve(tuple(left))], [b, *self.resolve(tuple(right))]
        return [a, *self.resolve(tuple(left))], [*cut, *self.resolve(tuple(right))]

    def split(self, node: int, sizes: Sequence[int]) -> None:
        """Split a node into consecutive pieces that are permuted independently."""
        if self._nodes[node].parent is not None:
            raise CannotDerive("units that move in blocks are split")
        pieces = []
        for size in sizes:
            whole = self._nodes[node]
            self._nodes.append(
                _Node(
                    size,
                    neutral=whole.neutral,
                    has_unsearched_flips=whole.has_unsearched_flips,
                    before_norm=whole.before_norm,
                )
            )
            pieces.append(AxisSegment(len(self._nodes) - 1))
        self._nodes[node].pieces = tuple(pieces)

    def separated(self, label: Label, number: int) -> Label:
        """Return equal pieces of a parameter's axis, each with classes of its own.

        Args:
            label: label of the axis, which is returned unchanged if an operation has read it.
            number: number of pieces.
        """
        if len(label) != 1:
            return label
        (part,) = label
        node = self._nodes[part.node]
        if node.pieces is not None or node.pinned or node.parent is not None or node.children:
            return label
        if not self.signs.is_unrelated(part.sign) or not self.scales.is_unrelated(part.scale):
            return label
        self.split(part.node, [node.size // number] * number)
        return tuple(
            replace(piece, sign=self.signs.fresh(), scale=self.scales.fresh())
            for piece in node.pieces or ()
        )

    def _merge(self, a: AxisSegment, b: AxisSegment) -> None:
        if a.node == b.node and _shape(a) == _shape(b):
            return
        if self.is_pinned(a) or self.is_pinned(b):
            frozen = all(self._nodes[part.node].frozen for part in (a, b) if self.is_pinned(part))
            for part in (a, b):
                self._pin_part(part, frozen=frozen)
            if self._is_plain(a) and self._is_plain(b):
                self._unite(a.node, b.node)  # so that its units are counted once
        elif self._nodes[a.node].slices or self._nodes[b.node].slices:
            self._freeze_both(a, b)
        elif _shape(a) == _shape(b):
            if self._is_mergeable(a, b):
                self._unite(a.node, b.node)
            else:
                self._freeze_both(a, b)
        elif a.copies != b.copies:
            self._merge_copies(a, b)
        elif self._is_plain(a):
            self._become(a.node, b)
        elif self._is_plain(b):
            self._become(b.node, a)
        else:
            self._freeze_both(a, b)

    def _freeze_both(self, a: AxisSegment, b: AxisSegment) -> None:
        for part in (a, b):
            for each in self.resolve((part,)):
                if not self.is_pinned(each):
                    self._pin_part(each, frozen=True)

    def _is_mergeable(self, a: AxisSegment, b: AxisSegment) -> bool:
        """Return whether two nodes have blocks of the same number and size, or none."""
        first, second = self.parent(a.node), self.parent(b.node)
        while first is not None and second is not None and first != second:
            if self._nodes[first].size != self._nodes[second].size:
                return False
            first, second = self.parent(first), self.parent(second)
        if a.within and (first is None) != (second is None):
            return False
        return self._nodes[a.node].size == self._nodes[b.node].size

    def _merge_copies(self, a: AxisSegment, b: AxisSegment) -> None:
        """Match copies of units with units of blocks: a block has the units that one unit becomes.

        Units of a block may be exchanged, since the copies are equal.
        """
        copied, units = (a, b) if a.copies > 1 else (b, a)
        owner = replace(copied, copies=1)
        if not self._is_simple(owner) or not self._is_simple(units):
            self._freeze_both(a, b)
            return
        try:
            blocks = self.own_blocks(units, self.units(owner))
        except CannotDerive:
            self._freeze_both(a, b)
            return
        self._merge(blocks, owner)

    def _become(self, node: int, part: AxisSegment) -> None:
        """Replace a node by the units of a segment."""
        self._keep_children_within(node, frozen=True)
        self._nodes[node].pieces = (AxisSegment(part.node, part.outer, part.inner, part.within),)
        self._inherit(part.node, self._nodes[node])

    def _inherit(self, node: int, merged: _Node) -> None:
        root = self._nodes[node]
        root.neutral = root.neutral and merged.neutral
        root.has_unsearched_flips = root.has_unsearched_flips or merged.has_unsearched_flips
        root.before_norm = root.before_norm or merged.before_norm
        root.shared = root.shared or merged.shared

    def absorb(self, scalar: AxisSegment, weight: AxisSegment) -> None:
        """Let a weight's axis cancel the factor of a tensor that flips and rescales as a whole.

        Args:
            scalar: a segment of one unit, whose factor the whole tensor has.
            weight: a plain segment, the axis of the weight that is summed over.
        """
        self._nodes[weight.node].pieces = (AxisSegment(scalar.node, inner=self.length(weight)),)
        self.signs.same(scalar.sign, weight.sign)
        root, power = weight.scale
        self.scales.same(scalar.scale, (root, -power))

    def can_move_in_blocks(self, part: AxisSegment) -> bool:
        """Return whether a segment covers all units of a node once."""
        return self._is_simple(part)

    def is_plain(self, part: AxisSegment) -> bool:
        """Return whether a segment covers a whole node that may move, and not in blocks."""
        node = self._nodes[part.node]
        return self._is_plain(part) and not node.pinned and not node.neutral

    def _is_plain(self, part: AxisSegment) -> bool:
        return self._is_simple(part) and self._nodes[part.node].parent is None

    @staticmethod
    def _is_simple(part: AxisSegment) -> bool:
        return _shape(part) == (1, 1, False, 1)

    def _unite(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        first, second = self._nodes[a], self._nodes[b]
        if first.size != second.size:
            raise CannotDerive(
                f"a block of {first.size} units is matched with one of {second.size}"
            )
        first_parent, second_parent = self.parent(a), self.parent(b)
        if first_parent is not None and second_parent is not None:
            if self._nodes[first_parent].size != self._nodes[second_parent].size:
                raise CannotDerive(
                    f"units are cut into {self._nodes[first_parent].size} blocks here and into "
                    f"{self._nodes[second_parent].size} there"
                )
            self._unite(first_parent, second_parent)
        first.children += second.children
        pinned = [node.frozen for node in (first, second) if node.pinned]
        first.parent = first_parent if first_parent is not None else second_parent
        second.pieces = (AxisSegment(a),)
        self._inherit(a, second)
        if pinned:
            self._pin(a, frozen=all(pinned))

    # -- blocks

    def own_blocks(self, part: AxisSegment, blocks: int) -> AxisSegment:
        """Declare that a node moves in `blocks` equal blocks.

        Returns:
            A segment of the node that owns the blocks.
        """
        if not self._is_simple(part):
            raise CannotDerive("units that are repeated are cut into blocks")
        first = node = self._root(part.node)
        while (parent := self.parent(node)) is not None and self._nodes[parent].size >= blocks:
            node = parent
        entry = self._nodes[node]
        if node != first and entry.size == blocks:
            return AxisSegment(node)
        if parent is not None or entry.size % blocks:
            raise CannotDerive(
                f"units are cut into {blocks} blocks here and into "
                f"{entry.size if parent is None else self._nodes[parent].size} elsewhere"
            )
        self._nodes.append(_Node(blocks, pinned=entry.pinned, frozen=entry.frozen, children=[node]))
        entry.parent = len(self._nodes) - 1
        return AxisSegment(entry.parent)

    def cut_blocks(self, part: AxisSegment, sizes: Sequence[int]) -> list[AxisSegment]:
        """Cut a node into blocks of blocks, such as (heads, units) or (kind, heads, units).

        Args:
            part: a segment that covers all units of a node once.
            sizes: numbers of blocks, of blocks in a block, and so on; units in the last block.

        Returns:
            One segment for each size.
        """
        counts = list(accumulate(sizes, mul))[:-1]
        for count in reversed(counts):
            self.own_blocks(part, count)
        chain = [self._root(part.node)]
        while len(chain) < len(sizes) and (parent := self.parent(chain[0])) is not None:
            chain.insert(0, parent)
        if [self._nodes[node].size for node in chain[:-1]] != counts:
            raise CannotDerive("units are cut into blocks of several sizes")
        inside = [self.parent(node) is not None for node in chain]
        parts = [AxisSegment(n, within=w) for n, w in zip(chain, inside, strict=True)]
        if inside[0]:
            raise CannotDerive("units are cut into blocks of several sizes")
        return [*parts[:-1], replace(parts[-1], sign=part.sign, scale=part.scale)]

    # -- slices of an axis of blocks

    def slice_blocks(
        self, owner: Label, others: Sequence[Label], sizes: Sequence[int]
    ) -> list[tuple[Label, list[Label]]] | None:
        """Cut an axis of blocks; each piece has units of its own from then on.

        Args:
            owner: label of the axis.
            others: labels of the other axes of the tensor, some of which may hold the units of the
                block that the first axis selects.
            sizes: numbers of blocks.

        Returns:
            The labels of the axis and of the others for each piece; None if the axis has no blocks.
        """
        if len(owner) != 1:
            return None
        first = self._latest(owner[0])
        node = first.node
        entry = self._nodes[node]
        if entry.slices is not None:
            return self._named_slices(node, others, sizes)
        before = [tuple(map(self._latest, label)) for label in others]
        if entry.pieces is None:
            owned = any(
                part.within
                and self._nodes[part.node].pieces is None
                and self.parent(part.node) == node
                for label in before
                for part in label
            )
            if not owned or entry.parent is not None or not self._is_simple(first):
                return None
            self._split_tree(node, sizes)
        pieces = self._nodes[node].pieces
        if pieces is None or [self._nodes[piece.node].size for piece in pieces] != list(sizes):
            return None
        return [
            (
                self.resolve((pieces[i],)),
                [tuple(self._piece(part, i) for part in label) for label in before],
            )
            for i in range(len(sizes))
        ]

    def _latest(self, part: AxisSegment) -> AxisSegment:
        """Return a segment of the node that a node was merged into, before any split."""
        pieces = self._nodes[part.node].pieces
        while pieces is not None and len(pieces) == 1 and _shape(pieces[0]) == (1, 1, False, 1):
            part = replace(part, node=pieces[0].node)
            pieces = self._nodes[part.node].pieces
        return part

    def _split_tree(self, node: int, sizes: Sequence[int], block: int | None = None) -> None:
        """Split a node, and all blocks that its units own, into consecutive pieces."""
        entry = self._nodes[node]
        children = self._children(node)
        factors = [self._nodes[child].size // entry.size for child in children]
        entry.former_block = block
        entry.parent = None  # its pieces get theirs below
        self.split(node, sizes)
        pieces = [piece.node for piece in self._nodes[node].pieces or ()]
        for piece in pieces:
            self._nodes[piece].pinned, self._nodes[piece].frozen = entry.pinned, entry.frozen
        for child, factor in zip(children, factors, strict=True):
            self._split_tree(child, [size * factor for size in sizes], factor)
            for piece, owner in zip(self._nodes[child].pieces or (), pieces, strict=True):
                if self._nodes[owner].size > 1:
                    self._nodes[piece.node].parent = owner
                    self._nodes[owner].children.append(piece.node)

    def _piece(self, part: AxisSegment, number: int) -> AxisSegment:
        """Return what a segment of a node that was split is in one of the slices."""
        pieces = self._nodes[part.node].pieces
        if pieces is None or len(pieces) == 1:
            return part
        node = pieces[number].node
        return replace(part, node=node, within=part.within and self.parent(node) is not None)

    def sliced(self, labels: Sequence[Label], sizes: Sequence[int]) -> list[Label]:
        """Cut an axis that consists of equal pieces into axes, the first of which selects a piece.

        Args:
            labels: label of each piece.
            sizes: number of pieces, and sizes of the axes that each piece is cut into.

        Returns:
            One label for each size. They are used by `slice_blocks` alone.
        """
        cut = []
        for label in labels:
            (part,) = self.resolve(label)
            cut.append(self.cut_blocks(part, sizes[1:]) if len(sizes) > 2 else [part])
        whole = [label[0] for label in labels]
        axes = [[pieces[number] for pieces in cut] for number in range(len(sizes) - 1)]
        return [
            self.stacked(parts, size) for parts, size in zip([whole, *axes], sizes, strict=True)
        ]

    def stacked(self, parts: Sequence[AxisSegment], size: int) -> Label:
        """Return the label of an axis in a tensor whose slices along another have other units.

        Args:
            parts: what the axis is in each slice.
            size: number of its entries.
        """
        self._nodes.append(_Node(size, slices=tuple(parts)))
        return (AxisSegment(len(self._nodes) - 1),)

    def has_slices(self, label: Label) -> bool:
        """Return whether an axis has slices with units of their own."""
        return any(
            self._nodes[part.node].slices is not None and not self.is_pinned(part) for part in label
        )

    def _named_slices(
        self, owner: int, others: Sequence[Label], sizes: Sequence[int]
    ) -> list[tuple[Label, list[Label]]] | None:
        if any(size != 1 for size in sizes) or self._nodes[owner].pinned:
            return None

        def of(label: Label, number: int) -> Label:
            slices = self._nodes[label[0].node].slices
            return label if len(label) != 1 or slices is None else (slices[number],)

        return [
            (self.fixed(1), [of(label, number) for label in others]) for number in range(len(sizes))
        ]

    # -- classes of signs and scales

    def fix_to_identity(self, label: Label, *, sign: bool = True, scale: bool = True) -> None:
        """Exclude flips (`sign`) or positive factors (`scale`) of single units of an axis."""
        for part in label:
            if sign:
                self.signs.fix_to_identity(part.sign)
            if scale:
                self.scales.fix_to_identity(part.scale)

    def same(self, first: Label, second: Label) -> Label:
        """Align two axes that flip and rescale together, as in a sum; return the result's label."""
        result = []
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            self.scales.same(a.scale, b.scale)
            result.append(a)
        return tuple(result)

    def contract(self, first: Label, second: Label) -> None:
        """Align two axes that are multiplied and summed over: a flip of one undoes the other's."""
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            root, power = b.scale
            self.scales.same(a.scale, (root, -power))

    def product(self, first: Label, second: Label, ranks: tuple[int, int]) -> Label:
        """Align two axes that are multiplied entry by entry, and return the label of the product.

        Only one of two factors may flip and rescale freely.

        Args:
            first: label of one factor.
            second: label of the other factor.
            ranks: rank of each: 0 for a computed tensor, 1 for a parameter, 2 for a constant. The
                factor of the higher rank is fixed to the identity, and both are with equal ranks.
                Flips that are lost this way are marked as not searched, unless one factor is a
                constant.
        """
        result = []
        for a, b in self.align(first, second):
            zero = self.signs.is_identity(a.sign), self.signs.is_identity(b.sign)
            # A unit that is kept in place may still flip between two parameters.
            if 2 not in ranks and (not any(zero) or (self.is_pinned(a) and not all(zero))):
                self.mark_flips_unsearched((a,))
            sign = self._product(self.signs, a.sign, b.sign, ranks)
            scale = self._product(self.scales, a.scale, b.scale, ranks)
            result.append(replace(a, sign=sign, scale=scale))
        return tuple(result)

    @staticmethod
    def _product(
        classes: ScaleClasses, a: ScaleClass, b: ScaleClass, ranks: tuple[int, int]
    ) -> ScaleClass:
        if classes.is_identity(a):
            return b
        if classes.is_identity(b):
            return a
        if ranks[1] > ranks[0]:
            classes.fix_to_identity(b)
            return a
        if ranks[0] > ranks[1]:
            classes.fix_to_identity(a)
            return b
        classes.fix_to_identity(a)
        classes.fix_to_identity(b)
        return INVARIANT

    def as_invariant(self, label: Label, *, sign: bool = True, scale: bool = True) -> Label:
        """Return the label of a result that is invariant to its argument's flips or factors."""
        return tuple(
            replace(
                part,
                sign=INVARIANT if sign else part.sign,
                scale=INVARIANT if scale else part.scale,
            )
            for part in label
        )
