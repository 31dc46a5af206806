"""The nodes behind labels: units that are the same, where they are kept, and why.

A node may be split into consecutive pieces, merged into another, or owned in blocks by a parent
node; `resolve` follows these changes. See `axis_labels` for the meaning of pinned, frozen and
neutral nodes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.scale_classes import INVARIANT, ScaleClasses


@dataclass
class LabelNode:
    """Units that may be permuted, and what is known of them."""

    size: int
    pinned: bool = False
    frozen: bool = False  # kept in place without a proof
    frozen_at: str | None = None
    neutral: bool = False  # all its entries are equal
    has_unsearched_flips: bool = False
    before_norm: bool = False  # flips of all units at once are not searched
    shared: bool = False  # one unit that multiplies a tensor which other units may flip
    padded: bool = False  # some of its entries meet zeros of the code
    computed: bool = False  # an axis of a computed tensor has its units
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
class LabelNodes:
    """All nodes of one derivation: what is known of them, and which are kept in place.

    Attributes:
        signs: classes of sign flips.
        scales: classes of positive factors.
        locate: returns the line of code that is being executed.
    """

    signs: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=False))
    scales: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=True))
    locate: Callable[[], str | None] = lambda: None
    _nodes: list[LabelNode] = field(default_factory=list)

    def fresh(self, size: int) -> Label:
        """Return an axis of a parameter about which nothing is known yet."""
        self._nodes.append(LabelNode(size))
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
        self._nodes.append(LabelNode(size, pinned=True, frozen=frozen))
        return (AxisSegment(len(self._nodes) - 1),)

    def neutral(self, size: int, *, zero: bool = False) -> Label:
        """Return an axis whose entries are all equal, so that permutations have no effect.

        Args:
            size: number of entries.
            zero: whether they are zero, so that flips and factors have no effect either.
        """
        self._nodes.append(LabelNode(size, neutral=True, padded=zero))
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
        parts, is_split = [], len(node.pieces) > 1
        for piece in node.pieces:
            below = replace(
                piece,
                inner=piece.inner * part.inner,
                within=part.within or piece.within,
                copies=piece.copies * part.copies,
                # The units of each piece flip and are rescaled on their own.
                sign=self.signs.piece(part.sign, piece.node) if is_split else part.sign,
                scale=self.scales.piece(part.scale, piece.node) if is_split else part.scale,
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

    def is_zero(self, part: AxisSegment) -> bool:
        """Return whether all entries of a segment are zeros of the code."""
        return self._nodes[part.node].neutral and part.sign != INVARIANT

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

    def mark_computed(self, label: Label) -> None:
        """Mark the units of an axis of a computed tensor, unless they are equal entries."""
        for part in self.resolve(label):
            node = self._nodes[part.node]
            node.computed = node.computed or not node.neutral

    def pin_padding(self, labels: Iterable[Label]) -> None:
        """Pin entries of weights that meet nothing but zeros: no units are behind them."""
        for part in (part for label in labels for part in self.resolve(label)):
            if self._nodes[part.node].padded and not self._nodes[part.node].computed:
                self.pin((part,))
                self.fix_to_identity((part,))

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
        return part.layout == (1, 1, False, 1)

    def fix_to_identity(self, label: Label, *, sign: bool = True, scale: bool = True) -> None:
        """Exclude flips (`sign`) or positive factors (`scale`) of single units of an axis."""
        for part in label:
            if sign:
                self.signs.fix_to_identity(part.sign)
            if scale:
                self.scales.fix_to_identity(part.scale)
