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

from dataclasses import replace

from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.label_blocks import LabelBlocks
from bnn_symm.symmetry.tracing.label_nodes import LabelNode
from bnn_symm.symmetry.tracing.scale_classes import INVARIANT, ScaleClass, ScaleClasses


class Labels(LabelBlocks):
    """The labels of one derivation, with the relations between axes that operations state."""

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

    def _merge(self, a: AxisSegment, b: AxisSegment) -> None:
        if a.node == b.node and a.layout == b.layout:
            return
        if self.is_pinned(a) or self.is_pinned(b):
            frozen = all(self._nodes[part.node].frozen for part in (a, b) if self.is_pinned(part))
            for part in (a, b):
                self._pin_part(part, frozen=frozen)
            if self._is_plain(a) and self._is_plain(b):
                self._unite(a.node, b.node)  # so that its units are counted once
        elif self._nodes[a.node].slices or self._nodes[b.node].slices:
            self._freeze_both(a, b)
        elif a.layout == b.layout:
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

    def _inherit(self, node: int, merged: LabelNode) -> None:
        root = self._nodes[node]
        root.neutral = root.neutral and merged.neutral
        root.has_unsearched_flips = root.has_unsearched_flips or merged.has_unsearched_flips
        root.before_norm = root.before_norm or merged.before_norm
        root.shared = root.shared or merged.shared
        root.padded = root.padded or merged.padded
        root.computed = root.computed or merged.computed

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
