"""Which occurrences of a unit change when it is flipped, or multiplied by a positive factor.

An occurrence of units in a tensor has a *flavour*. Occurrences of one flavour change together; some never change.
"""

Flavour = tuple[int, int]
"""A name, and the power 1 or -1 at which the occurrence takes its factor."""


class Flavours:
    """Union-find over flavours with powers: `value(x) = power * value(root)`, and a root that is always zero.

    Args:
        powers: whether 1 and -1 differ; signs are their own inverses, positive factors are not.
    """

    ZERO = 0

    def __init__(self, *, powers: bool) -> None:
        self._powers = powers
        self._parent = [0]
        self._power = [1]

    def fresh(self) -> Flavour:
        """A flavour that nothing is known of yet, at power 1."""
        self._parent.append(len(self._parent))
        self._power.append(1)
        return len(self._parent) - 1, 1

    def find(self, flavour: Flavour) -> Flavour:
        """(root, power); root ZERO for an occurrence that does not change."""
        root, power = flavour
        while self._parent[root] != root:
            power *= self._power[root]
            root = self._parent[root]
        return (root, power if self._powers else 1) if root != self.ZERO else (self.ZERO, 1)

    def same(self, first: Flavour, second: Flavour) -> None:
        """Both change together, at the same power."""
        (a, p), (b, q) = self.find(first), self.find(second)
        if a == b:
            if p != q:
                self.kill(first)
            return
        if a == self.ZERO:
            a, b = b, a
        self._parent[a], self._power[a] = b, p * q

    def kill(self, flavour: Flavour) -> None:
        """It may not change at all."""
        root, _ = self.find(flavour)
        if root != self.ZERO:
            self._parent[root] = self.ZERO

    def is_zero(self, flavour: Flavour) -> bool:
        """Whether it is known not to change."""
        return self.find(flavour)[0] == self.ZERO


NONE: Flavour = (Flavours.ZERO, 1)
"""Of what never changes."""
