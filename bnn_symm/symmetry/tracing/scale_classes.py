"""Group the occurrences of a unit that change together when it is flipped or rescaled.

Each occurrence of units in a tensor has a *class*. Occurrences of one class change together; those
of the identity class never change.
"""

ScaleClass = tuple[int, int]
"""The id of a class, and the power 1 or -1 of the factor by which the occurrence is multiplied."""


class ScaleClasses:
    """Union-find over classes with powers: `value(x) = power * value(root)`.

    One root, IDENTITY, stands for occurrences that never change.

    Args:
        powers: whether 1 and -1 differ; signs are their own inverses, positive factors are not.
    """

    IDENTITY = 0

    def __init__(self, *, powers: bool) -> None:
        self._powers = powers
        self._parent = [0]
        self._power = [1]
        # (root, piece) -> the class of one piece of an axis that was split.
        self._pieces: dict[tuple[int, int], ScaleClass] = {}

    def fresh(self) -> ScaleClass:
        """Return a new class about which nothing is known yet, at power 1."""
        self._parent.append(len(self._parent))
        self._power.append(1)
        return len(self._parent) - 1, 1

    def find(self, scale_class: ScaleClass) -> ScaleClass:
        """Return (root, power), with root IDENTITY for an occurrence that does not change."""
        root, power = scale_class
        while self._parent[root] != root:
            power *= self._power[root]
            root = self._parent[root]
        return (root, power if self._powers else 1) if root != self.IDENTITY else (self.IDENTITY, 1)

    def same(self, first: ScaleClass, second: ScaleClass) -> None:
        """Declare that two classes change together, at the same power."""
        (a, p), (b, q) = self.find(first), self.find(second)
        if a == b:
            if p != q:
                self.fix_to_identity(first)
            return
        if a == self.IDENTITY:
            a, b = b, a
        self._parent[a], self._power[a] = b, p * q
        for (root, piece), (own, power) in list(self._pieces.items()):
            if root == a:
                del self._pieces[root, piece]
                below = own, power * p * q
                if b == self.IDENTITY:
                    self.fix_to_identity(below)
                else:
                    self.same(self._pieces.setdefault((b, piece), below), below)

    def piece(self, scale_class: ScaleClass, piece: int) -> ScaleClass:
        """Return the class of one piece of an axis that was split, which may change alone.

        The pieces of occurrences that change together change together as well, and none changes
        once the class of the whole axis may not.

        Args:
            scale_class: the class of the axis.
            piece: the node of the piece.
        """
        root, power = self.find(scale_class)
        if root == self.IDENTITY:
            return INVARIANT
        own, own_power = self._pieces.setdefault((root, piece), self.fresh())
        return own, own_power * power

    def fix_to_identity(self, scale_class: ScaleClass) -> None:
        """Declare that the occurrences of a class may not change at all."""
        root, _ = self.find(scale_class)
        if root != self.IDENTITY:
            self.same(scale_class, INVARIANT)

    def is_unrelated(self, scale_class: ScaleClass) -> bool:
        """Return whether nothing is known yet about a class."""
        root = scale_class[0]
        return self._parent[root] == root and self._parent.count(root) == 1

    def is_identity(self, scale_class: ScaleClass) -> bool:
        """Return whether the occurrences of a class are known not to change."""
        return self.find(scale_class)[0] == self.IDENTITY


INVARIANT: ScaleClass = (ScaleClasses.IDENTITY, 1)
"""The class of occurrences that never change."""
