"""Labels of axes: which entries of which tensors must be permuted, flipped and rescaled together.

While a forward pass is watched, every axis of every tensor carries a label: a tuple of `Part`s, each a stretch of
units of one *node*. An operation relates labels, such as "these two axes are the same units", and nodes are merged,
split or pinned accordingly. What is left at the end are the groups of the network. Three relations are kept:

- nodes: which units are the same (union-find; a node may be split into consecutive pieces, or owned in blocks by a
  parent node);
- sign flavours (`flavours`): which occurrences of a node change sign when a unit flips;
- scale flavours: the same for a positive factor, with the power 1 or -1 at which an occurrence takes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bnn_symm.symmetry.flavours import NONE, Flavour, Flavours


class CannotDerive(Exception):
    """An operation relates axes in a way that labels cannot say; the message says which way."""


@dataclass(frozen=True)
class Part:
    """A stretch of an axis: `outer * units * inner` entries of one node (see `spec.Segment`)."""

    node: int
    outer: int = 1
    inner: int = 1
    within: bool = False
    sign: Flavour = NONE
    scale: Flavour = NONE


Label = tuple[Part, ...]


@dataclass
class _Node:
    size: int
    pinned: bool = False
    parent: int | None = None
    pieces: tuple[Part, ...] | None = None  # what it was merged into or split into; its own flavours do not count


@dataclass
class Labels:
    """All nodes of one derivation.

    Attributes:
        signs: flavours of flips.
        scales: flavours of positive factors.
        held: units that were pinned because nothing better could be said of them.
    """

    signs: Flavours = field(default_factory=lambda: Flavours(powers=False))
    scales: Flavours = field(default_factory=lambda: Flavours(powers=True))
    held: int = 0
    _nodes: list[_Node] = field(default_factory=list)

    # -- making and reading labels ------------------------------------------------------------------------

    def fresh(self, size: int) -> Label:
        """An axis of a parameter of which nothing is known yet."""
        self._nodes.append(_Node(size))
        return (Part(len(self._nodes) - 1, sign=self.signs.fresh(), scale=self.scales.fresh()),)

    def fixed(self, size: int) -> Label:
        """An axis whose entries stay where they are."""
        self._nodes.append(_Node(size, pinned=True))
        return (Part(len(self._nodes) - 1),)

    def resolve(self, label: Label) -> Label:
        """The label in terms of nodes that were neither merged nor split, pinned neighbours joined."""
        parts: list[Part] = []
        for part in label:
            parts.extend(self._resolve(part))
        joined: list[Part] = []
        for part in parts:
            if joined and self.is_pinned(part) and self.is_pinned(joined[-1]):
                joined[-1] = self.fixed(self.length(joined[-1]) + self.length(part))[0]
            else:
                joined.append(part)
        return tuple(joined)

    def _resolve(self, part: Part) -> list[Part]:
        node = self._nodes[part.node]
        if node.pieces is None:
            if node.pinned and (part.outer, part.inner, part.within) != (1, 1, False):
                return list(self.fixed(self.length(part)))
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

    def units(self, part: Part) -> int:
        """Units of the node that a part shows: all, or those of one block."""
        node = self._nodes[part.node]
        if part.within:
            parent = self.parent(part.node)
            assert parent is not None
            return node.size // self._nodes[parent].size
        return node.size

    def length(self, part: Part) -> int:
        """Entries of an axis that a part covers."""
        return part.outer * self.units(part) * part.inner

    def size(self, label: Label) -> int:
        """Entries of an axis."""
        return sum(self.length(part) for part in label)

    def is_pinned(self, part: Part) -> bool:
        """Whether its entries stay where they are; of a part that is resolved."""
        return self._nodes[part.node].pinned

    def is_fixed(self, label: Label) -> bool:
        """Whether all entries of an axis stay where they are."""
        return all(self.is_pinned(part) for part in self.resolve(label))

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

    # -- relating labels ----------------------------------------------------------------------------------

    def pin(self, label: Label) -> None:
        """The entries of this axis stay where they are."""
        for part in self.resolve(label):
            self._pin(part.node)

    def hold(self, label: Label) -> None:
        """Pins what the operation tells apart by its place; that is no proof, so the units are counted."""
        for part in self.resolve(label):
            if not self.is_pinned(part):
                self.held += self._nodes[part.node].size
                self._pin(part.node)

    def _pin(self, node: int) -> None:
        node = self._root(node)
        self._nodes[node].pinned = True
        parent = self.parent(node)
        if parent is not None and not self._nodes[parent].pinned:
            self._pin(parent)

    def align(self, first: Label, second: Label) -> list[tuple[Part, Part]]:
        """Makes two axes of equal length the same units; returns their matching parts, flavours left as they were."""
        pairs: list[tuple[Part, Part]] = []
        left, right = list(self.resolve(first)), list(self.resolve(second))
        if self.size(tuple(left)) != self.size(tuple(right)):
            raise CannotDerive(f"axes of {self.size(first)} and {self.size(second)} entries are matched")
        while left:
            a, b = left.pop(0), right.pop(0)
            if self.length(a) != self.length(b):
                left, right = self._cut(a, b, left, right)
                continue
            self._merge(a, b)
            (a,), (b,) = self.resolve((a,)), self.resolve((b,))
            pairs.append((a, b))
        return pairs

    def _cut(self, a: Part, b: Part, left: list[Part], right: list[Part]) -> tuple[list[Part], list[Part]]:
        """Splits the longer part where the shorter one ends; where that is not possible, both stay where they are."""
        longer, shorter = (a, b) if self.length(a) > self.length(b) else (b, a)
        length = self.length(shorter)
        if self.is_pinned(longer):
            rest = self.length(longer) - length
            cut = (self.fixed(length)[0], self.fixed(rest)[0])
        else:
            node = self._nodes[longer.node]
            if longer.outer != 1 or longer.within or node.parent is not None or length % longer.inner:
                self.hold((longer,))
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
            self._nodes.append(_Node(size))
            pieces.append(Part(len(self._nodes) - 1))
        self._nodes[node].pieces = tuple(pieces)

    def _merge(self, a: Part, b: Part) -> None:
        if a.node == b.node and (a.outer, a.inner, a.within) == (b.outer, b.inner, b.within):
            return
        if self.is_pinned(a) or self.is_pinned(b):
            self._pin(a.node)
            self._pin(b.node)
            return
        if (a.outer, a.inner, a.within) == (b.outer, b.inner, b.within):
            self._unite(a.node, b.node)
        elif self._is_plain(a):
            self._nodes[a.node].pieces = (Part(b.node, b.outer, b.inner, b.within),)
        elif self._is_plain(b):
            self._nodes[b.node].pieces = (Part(a.node, a.outer, a.inner, a.within),)
        else:
            self.hold((a,))
            self.hold((b,))

    def _is_plain(self, part: Part) -> bool:
        return (part.outer, part.inner, part.within) == (1, 1, False) and self._nodes[part.node].parent is None

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
                    f"units are cut into {self._nodes[mine].size} blocks here and into {self._nodes[other].size} there"
                )
            self._unite(mine, other)
        pinned = first.pinned or second.pinned
        first.parent = mine if mine is not None else other
        second.pieces = (Part(a),)
        if pinned:
            self._pin(a)

    # -- blocks -------------------------------------------------------------------------------------------

    def own_blocks(self, part: Part, blocks: int) -> Part:
        """Says that a node moves in `blocks` equal blocks; returns a part of the node that owns them."""
        if (part.outer, part.inner, part.within) != (1, 1, False):
            raise CannotDerive("units that are repeated are cut into blocks")
        parent = self.parent(part.node)
        if parent is None:
            self._nodes.append(_Node(blocks, pinned=self.is_pinned(part)))
            parent = len(self._nodes) - 1
            self._nodes[part.node].parent = parent
        elif self._nodes[parent].size != blocks:
            raise CannotDerive(f"units are cut into {blocks} blocks here and into {self._nodes[parent].size} elsewhere")
        return Part(parent)

    # -- flavours -----------------------------------------------------------------------------------------

    def kill(self, label: Label, *, sign: bool = True, scale: bool = True) -> None:
        """The operation does not commute with flips (`sign`) or positive factors (`scale`) of single units."""
        for part in label:
            if sign:
                self.signs.kill(part.sign)
            if scale:
                self.scales.kill(part.scale)

    def same(self, first: Label, second: Label) -> Label:
        """Aligns two axes that flip and rescale together, as in a sum; returns the label of the result."""
        result = []
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            self.scales.same(a.scale, b.scale)
            result.append(a)
        return tuple(result)

    def contract(self, first: Label, second: Label) -> None:
        """Aligns two axes that are multiplied and summed over: a flip of one undoes that of the other."""
        for a, b in self.align(first, second):
            self.signs.same(a.sign, b.sign)
            root, power = b.scale
            self.scales.same(a.scale, (root, -power))

    def product(self, first: Label, second: Label, leaves: tuple[bool, bool]) -> Label:
        """Aligns two axes that are multiplied entry by entry; of two factors that may change, a parameter stays.

        Args:
            first: of one factor.
            second: of the other.
            leaves: whether each is a parameter or a buffer itself.
        """
        result = []
        for a, b in self.align(first, second):
            sign = self._product(self.signs, a.sign, b.sign, leaves)
            scale = self._product(self.scales, a.scale, b.scale, leaves)
            result.append(replace(a, sign=sign, scale=scale))
        return tuple(result)

    @staticmethod
    def _product(flavours: Flavours, a: Flavour, b: Flavour, leaves: tuple[bool, bool]) -> Flavour:
        if flavours.is_zero(a):
            return b
        if flavours.is_zero(b):
            return a
        if leaves[1] and not leaves[0]:
            flavours.kill(b)
            return a
        if leaves[0] and not leaves[1]:
            flavours.kill(a)
            return b
        flavours.kill(a)
        flavours.kill(b)
        return NONE

    def without_flavours(self, label: Label, *, sign: bool = True, scale: bool = True) -> Label:
        """The label of a result that does not change with its argument's flips or factors."""
        return tuple(
            replace(part, sign=NONE if sign else part.sign, scale=NONE if scale else part.scale) for part in label
        )
