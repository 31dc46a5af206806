"""Labels of axes: which entries of which tensors must be permuted, flipped and rescaled together.

While a forward pass is watched, every axis of every tensor carries a label: a tuple of `AxisSegment`s,
    each a stretch of
units of one *node*. An operation relates labels, such as "these two axes are the same units", and
nodes are merged, split or pinned accordingly. What is left at the end are the groups of the
network. Three relations are kept:

- nodes: which units are the same (union-find; a node may be split into consecutive pieces, or owned
  in blocks by a parent node);
- sign flavors (`classes`): which occurrences of a node change sign when a unit flips;
- scale flavors: the same for a positive factor, with the power 1 or -1 at which an occurrence takes
  it.

A node stays in place for one of two reasons. Units that an operation ties to inputs, outputs or
positions are no hidden units: that is a proof. Units that a constant or a place in the code tells
apart are *held*: a symmetry among them may exist, and nobody has looked for it, so they are
counted. Axes whose entries are equal (of an expanded tensor, of `torch.ones`) are *neutral*: every
permutation of them is allowed, and none matters.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from bnn_symm.symmetry.tracing.scale_classes import INVARIANT, ScaleClass, ScaleClasses


class CannotDerive(Exception):
    """An operation relates axes in a way that labels cannot say; the message says which way."""


@dataclass(frozen=True)
class AxisSegment:
    """A stretch of an axis: `outer * units * inner` entries of one node (see `spec.Segment`)."""

    node: int
    outer: int = 1
    inner: int = 1
    within: bool = False
    sign: ScaleClass = INVARIANT
    scale: ScaleClass = INVARIANT


Label = tuple[AxisSegment, ...]


@dataclass
class _Node:
    size: int
    pinned: bool = False
    frozen: bool = False  # pinned without a proof
    frozen_at: str | None = None
    neutral: bool = False  # all its entries are equal
    has_unsearched_flips: bool = False
    before_norm: bool = False  # flips of all units at once are not looked for
    shared: bool = (
        False  # of one unit, and multiplied with what the flips of several other units may flip
    )
    ended: bool = False  # of one unit, and ended as a factor that neither flips nor is rescaled
    parent: int | None = None
    pieces: tuple[AxisSegment, ...] | None = (
        None  # what it was merged into or split into; its own flavors do not count
    )


@dataclass
class Labels:
    """All nodes of one derivation.

    Attributes:
        signs: flavors of flips.
        scales: flavors of positive factors.
        locate: names the line of code that is being executed.
    """

    signs: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=False))
    scales: ScaleClasses = field(default_factory=lambda: ScaleClasses(powers=True))
    locate: Callable[[], str | None] = lambda: None
    _nodes: list[_Node] = field(default_factory=list)

    # -- making and reading labels

    def fresh(self, size: int) -> Label:
        """An axis of a parameter of which nothing is known yet."""
        self._nodes.append(_Node(size))
        return (
            AxisSegment(len(self._nodes) - 1, sign=self.signs.fresh(), scale=self.scales.fresh()),
        )

    def fixed(self, size: int, *, frozen: bool = False) -> Label:
        """An axis whose entries stay where they are.

        Args:
            size: number of entries.
            frozen: whether what is matched with it stays without a proof, as with a constant of the
                code.
        """
        self._nodes.append(_Node(size, pinned=True, frozen=frozen))
        return (AxisSegment(len(self._nodes) - 1),)

    def neutral(self, size: int, *, zero: bool = False) -> Label:
        """Return an axis whose entries are all equal, so that every permutation leaves it as it is.

        Args:
            size: number of entries.
            zero: whether they are zero, so that flips and factors change nothing either.
        """
        self._nodes.append(_Node(size, neutral=True))
        part = AxisSegment(len(self._nodes) - 1)
        if zero:
            part = replace(part, sign=self.signs.fresh(), scale=self.scales.fresh())
        return (part,)

    def resolve(self, label: Label) -> Label:
        """The label in terms of nodes that were neither merged nor split, pinned neighbors
        joined.
        """
        parts: list[AxisSegment] = []
        for part in label:
            parts.extend(self._resolve(part))
        joined: list[AxisSegment] = []
        for part in parts:
            if joined and self.is_pinned(part) and self.is_pinned(joined[-1]):
                frozen = self._nodes[joined[-1].node].frozen or self._nodes[part.node].frozen
                joined[-1] = self.fixed(self.length(joined[-1]) + self.length(part), frozen=frozen)[
                    0
                ]
            else:
                joined.append(part)
        return tuple(joined)

    def _resolve(self, part: AxisSegment) -> list[AxisSegment]:
        node = self._nodes[part.node]
        if node.pieces is None:
            if node.pinned and (part.outer, part.inner, part.within) != (1, 1, False):
                return list(self.fixed(self.length(part), frozen=node.frozen))
            return [part]
        if len(node.pieces) > 1 and part.within:
            raise CannotDerive("blocks of units are split")
        parts = []
        for piece in node.pieces:
            below = replace(
                piece,
                inner=piece.inner * part.inner,
                within=part.within or piece.within,
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
        """Units of the node that a part shows: all, or those of one block."""
        node = self._nodes[part.node]
        if part.within:
            parent = self.parent(part.node)
            assert parent is not None
            return node.size // self._nodes[parent].size
        return node.size

    def length(self, part: AxisSegment) -> int:
        """Entries of an axis that a part covers."""
        return part.outer * self.units(part) * part.inner

    def size(self, label: Label) -> int:
        """Entries of an axis."""
        return sum(self.length(part) for part in label)

    def is_pinned(self, part: AxisSegment) -> bool:
        """Whether its entries stay where they are; of a part that is resolved."""
        return self._nodes[part.node].pinned

    def is_frozen(self, part: AxisSegment) -> bool:
        """Return whether its entries stay where they are without a proof; of a part that is
        resolved.
        """
        return self._nodes[part.node].frozen

    def is_fixed(self, label: Label) -> bool:
        """Whether all entries of an axis stay where they are."""
        return all(self.is_pinned(part) for part in self.resolve(label))

    def is_hidden(self, label: Label) -> bool:
        """Return whether an axis has units that may move, flip or be rescaled."""
        return any(
            not self._nodes[part.node].pinned
            and not (self._nodes[part.node].neutral and part.sign == INVARIANT)
            for part in self.resolve(label)
        )

    def flips(self, label: Label) -> bool:
        """Return whether some of its units may still change sign."""
        return any(
            not self.is_pinned(part) and not self.signs.is_identity(part.sign)
            for part in self.resolve(label)
        )

    def pin_neutral(self, label: Label) -> Label:
        """Pin the neutral stretches of an axis, which loses nothing yet, and return it resolved."""
        for part in self.resolve(label):
            if self._nodes[part.node].neutral:
                self._pin(
                    part.node, frozen=True
                )  # what is matched with it later stays without a proof
        return self.resolve(label)

    def parent(self, node: int) -> int | None:
        """The node that owns blocks of this one."""
        parent = self._nodes[node].parent
        return None if parent is None else self._root(parent)

    def node_size(self, node: int) -> int:
        """Units of a node."""
        return self._nodes[node].size

    def node_pinned(self, node: int) -> bool:
        """Whether the units of a node stay where they are."""
        return self._nodes[node].pinned

    def _root(self, node: int) -> int:
        pieces = self._nodes[node].pieces
        while pieces is not None:
            if len(pieces) != 1 or (pieces[0].outer, pieces[0].inner) != (1, 1):
                raise CannotDerive("blocks of units are split")
            node = pieces[0].node
            pieces = self._nodes[node].pieces
        return node

    # -- relating labels

    def pin(self, label: Label) -> None:
        """The entries of this axis stay where they are, and that is proved."""
        for part in self.resolve(label):
            self._pin(part.node)

    def freeze(self, label: Label) -> None:
        """Pins what the operation tells apart by its place; that is no proof, so the units are
        counted.
        """
        for part in self.resolve(label):
            if not self.is_pinned(part):
                self._pin(part.node, frozen=True)

    def end(self, label: Label, *, proved: bool) -> None:
        """An axis of one entry has nowhere to go: from here on it neither flips nor is rescaled.

        Args:
            label: of the axis.
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
        """Pin the single units of some axes that ended, unless they may flip elsewhere, as one
        behind `abs` does.
        """
        parts = [part for label in labels for part in self.resolve(label)]
        flipping = {part.node for part in parts if not self.signs.is_identity(part.sign)}
        for part in parts:
            if self._nodes[part.node].ended and part.node not in flipping:
                self._pin(part.node)

    def mark_shared(self, label: Label) -> None:
        """An axis of one entry is a factor of something that may flip as well, should all of its units flip."""
        for part in self.resolve(label):
            self._nodes[part.node].shared = True

    def stop_tracking(self, label: Label, *, before_norm: bool = False) -> None:
        """Flips and factors of single units are not followed any further, which proves nothing of flips of several.

        Args:
            label: of the units.
            before_norm: whether what may flip is all units at once, with everything that makes them.
        """
        if self.flips(label) and not before_norm:
            self.mark_flips_unsearched(label)
        elif self.flips(label):
            for part in self.resolve(label):
                self._nodes[part.node].before_norm = True
        self.fix_to_identity(label)

    def only_before_norm(self, node: int) -> bool:
        """Return whether flips of a node are given up before norms alone."""
        return self._nodes[node].before_norm and not self._nodes[node].has_unsearched_flips

    def mark_flips_unsearched(self, label: Label) -> None:
        """Flips of these units are given up without a proof that none is a symmetry."""
        for part in self.resolve(label):
            self._nodes[part.node].has_unsearched_flips = True

    def mark_pinned_flips_unsearched(self, labels: Iterable[Label]) -> None:
        """Doubt the flips of units that stay where they are, such as outputs behind `abs`, if nothing excludes them."""
        for label in labels:
            for part in self.resolve(label):
                if self.is_pinned(part) and not self.signs.is_identity(part.sign):
                    self.mark_flips_unsearched((part,))

    def num_frozen_units(self, labels: Iterable[Label]) -> int:
        """Return the number of units on some axes that stay where they are without a proof."""
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        return sum(self._nodes[node].size for node in nodes if self._nodes[node].frozen)

    def first_frozen_at(self, labels: Iterable[Label]) -> str | None:
        """Return the first line of code that keeps units of some axes in place without a proof."""
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        lines = [self._nodes[node].frozen_at for node in sorted(nodes) if self._nodes[node].frozen]
        return next((line for line in lines if line is not None), None)

    def num_unsearched_flips(self, labels: Iterable[Label]) -> int:
        """Return the number of units on some axes, apart from those held, of which some flips are
        not looked for.
        """
        nodes = {node for label in labels for part in label for node in self._ends(part.node)}
        return sum(
            self._nodes[node].size
            for node in nodes
            if (self._nodes[node].has_unsearched_flips or self._nodes[node].before_norm)
            and not self._nodes[node].frozen
        )

    def _ends(self, node: int) -> Iterator[int]:
        """The nodes that a node was merged into or split into in the end."""
        pieces = self._nodes[node].pieces
        if pieces is None:
            yield node
        for piece in pieces or ():
            yield from self._ends(piece.node)

    def _pin(self, node: int, *, frozen: bool = False) -> None:
        """A proof takes the place of holding, never the reverse."""
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
        """Makes two axes of equal length the same units; returns their matching parts, flavors left
        as they were.
        """
        pairs: list[tuple[AxisSegment, AxisSegment]] = []
        left, right = list(self.resolve(first)), list(self.resolve(second))
        if self.size(tuple(left)) != self.size(tuple(right)):
            raise CannotDerive(
                f"axes of {self.size(first)} and {self.size(second)} entries are matched"
            )
        while left:
            a, b = left.pop(0), right.pop(0)
            if self.length(a) != self.length(b):
                left, right = self._cut(a, b, left, right)
                continue
            self._merge(a, b)
            (a,), (b,) = self.resolve((a,)), self.resolve((b,))
            pairs.append((a, b))
        return pairs

    def _cut(
        self, a: AxisSegment, b: AxisSegment, left: list[AxisSegment], right: list[AxisSegment]
    ) -> tuple[list[AxisSegment], list[AxisSegment]]:
        """Splits the longer part where the shorter one ends; where that is not possible, both stay
        where they are.
        """
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
                or node.parent is not None
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
        """Cuts a node into consecutive pieces that permute each by itself."""
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

    def _merge(self, a: AxisSegment, b: AxisSegment) -> None:
        if a.node == b.node and (a.outer, a.inner, a.within) == (b.outer, b.inner, b.within):
            return
        if self.is_pinned(a) or self.is_pinned(b):
            frozen = all(self._nodes[part.node].frozen for part in (a, b) if self.is_pinned(part))
            for part in (a, b):
                self._pin(part.node, frozen=frozen)
            if self._is_plain(a) and self._is_plain(b):
                self._unite(a.node, b.node)  # to be counted once
            return
        if (a.outer, a.inner, a.within) == (b.outer, b.inner, b.within):
            self._unite(a.node, b.node)
        elif self._is_plain(a):
            self._become(a.node, b)
        elif self._is_plain(b):
            self._become(b.node, a)
        else:
            self.freeze((a,))
            self.freeze((b,))

    def _become(self, node: int, part: AxisSegment) -> None:
        """A node is made of the units of a part from now on."""
        self._nodes[node].pieces = (AxisSegment(part.node, part.outer, part.inner, part.within),)
        self._inherit(part.node, self._nodes[node])

    def _inherit(self, node: int, merged: _Node) -> None:
        root = self._nodes[node]
        root.neutral = root.neutral and merged.neutral
        root.has_unsearched_flips = root.has_unsearched_flips or merged.has_unsearched_flips
        root.before_norm = root.before_norm or merged.before_norm
        root.shared = root.shared or merged.shared

    def absorb(self, scalar: AxisSegment, weight: AxisSegment) -> None:
        """A weight reads a tensor that flips and rescales as a whole: its axis takes the factor
        back.

        Args:
            scalar: of one unit, whose factor the whole tensor has.
            weight: a plain part, the axis of the weight that is summed over.
        """
        self._nodes[weight.node].pieces = (AxisSegment(scalar.node, inner=self.length(weight)),)
        self.signs.same(scalar.sign, weight.sign)
        root, power = weight.scale
        self.scales.same(scalar.scale, (root, -power))

    def is_plain(self, part: AxisSegment) -> bool:
        """Return whether a part shows a whole node that may move and moves in no blocks."""
        node = self._nodes[part.node]
        return self._is_plain(part) and not node.pinned and not node.neutral

    def _is_plain(self, part: AxisSegment) -> bool:
        return (part.outer, part.inner, part.within) == (1, 1, False) and self._nodes[
            part.node
        ].parent is None

    def _unite(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        first, second = self._nodes[a], self._nodes[b]
        if first.size != second.size:
            raise CannotDerive(f"blocks of {first.size} and of {second.size} units are matched")
        mine, other = self.parent(a), self.parent(b)
        if mine is not None and other is not None:
            if self._nodes[mine].size != self._nodes[other].size:
                raise CannotDerive(
                    f"units are cut into {self._nodes[mine].size} blocks here and into "
                    f"{self._nodes[other].size} there"
                )
            self._unite(mine, other)
        pinned = [node.frozen for node in (first, second) if node.pinned]
        first.parent = mine if mine is not None else other
        second.pieces = (AxisSegment(a),)
        self._inherit(a, second)
        if pinned:
            self._pin(a, frozen=all(pinned))

    # -- blocks

    def own_blocks(self, part: AxisSegment, blocks: int) -> AxisSegment:
        """Says that a node moves in `blocks` equal blocks; returns a part of the node that owns
        them.
        """
        if (part.outer, part.inner, part.within) != (1, 1, False):
            raise CannotDerive("units that are repeated are cut into blocks")
        parent = self.parent(part.node)
        if parent is None:
            node = self._nodes[part.node]
            self._nodes.append(_Node(blocks, pinned=node.pinned, frozen=node.frozen))
            parent = len(self._nodes) - 1
            self._nodes[part.node].parent = parent
        elif self._nodes[parent].size != blocks:
            raise CannotDerive(
                f"units are cut into {blocks} blocks here and into {self._nodes[parent].size} "
                "elsewhere"
            )
        return AxisSegment(parent)

    # -- flavors

    def fix_to_identity(self, label: Label, *, sign: bool = True, scale: bool = True) -> None:
        """The operation does not commute with flips (`sign`) or positive factors (`scale`) of
        single units.
        """
        for part in label:
            if sign:
                self.signs.fix_to_identity(part.sign)
            if scale:
                self.scales.fix_to_identity(part.scale)

    def same(self, first: Label, second: Label) -> Label:
        """Aligns two axes that flip and rescale together, as in a sum; returns the label of the
        result.
        """
        result = []
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            self.scales.same(a.scale, b.scale)
            result.append(a)
        return tuple(result)

    def contract(self, first: Label, second: Label) -> None:
        """Aligns two axes that are multiplied and summed over: a flip of one undoes that of the
        other.
        """
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            root, power = b.scale
            self.scales.same(a.scale, (root, -power))

    def product(self, first: Label, second: Label, ranks: tuple[int, int]) -> Label:
        """Aligns two axes that are multiplied entry by entry; of two factors that may change, one
        gives way.

        Args:
            first: of one factor.
            second: of the other.
            ranks: of each: 0 for what the pass computes, 1 for a parameter, 2 for a constant. The
                higher gives way, and with equal ranks both. That gives up flips, unless it is a
                constant.
        """
        result = []
        for a, b in self.align(first, second):
            zero = self.signs.is_identity(a.sign), self.signs.is_identity(b.sign)
            # A unit that stays where it is may flip between two parameters all the same.
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
        """The label of a result that does not change with its argument's flips or factors."""
        return tuple(
            replace(
                part,
                sign=INVARIANT if sign else part.sign,
                scale=INVARIANT if scale else part.scale,
            )
            for part in label
        )
