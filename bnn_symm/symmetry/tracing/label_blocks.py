"""Split nodes into pieces and blocks: fused projections, heads, slices and stacks of axes."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul

from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.label_nodes import LabelNode, LabelNodes


class LabelBlocks(LabelNodes):
    """Nodes with operations that divide an axis and put axes together."""

    def split(self, node: int, sizes: Sequence[int]) -> None:
        """Split a node into consecutive pieces that are permuted independently."""
        if self._nodes[node].parent is not None:
            raise CannotDerive("units that move in blocks are split")
        pieces = []
        for size in sizes:
            whole = self._nodes[node]
            self._nodes.append(
                LabelNode(
                    size,
                    neutral=whole.neutral,
                    has_unsearched_flips=whole.has_unsearched_flips,
                    before_norm=whole.before_norm,
                    padded=whole.padded,
                    computed=whole.computed,
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
        self._nodes.append(
            LabelNode(blocks, pinned=entry.pinned, frozen=entry.frozen, children=[node])
        )
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
                self.resolve((self._piece(first, i),)),
                [tuple(self._piece(part, i) for part in label) for label in before],
            )
            for i in range(len(sizes))
        ]

    def _latest(self, part: AxisSegment) -> AxisSegment:
        """Return a segment of the node that a node was merged into, before any split."""
        pieces = self._nodes[part.node].pieces
        while pieces is not None and len(pieces) == 1 and pieces[0].layout == (1, 1, False, 1):
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
        return replace(
            part,
            node=node,
            within=part.within and self.parent(node) is not None,
            sign=self.signs.piece(part.sign, node),
            scale=self.scales.piece(part.scale, node),
        )

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
        self._nodes.append(LabelNode(size, slices=tuple(parts)))
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
