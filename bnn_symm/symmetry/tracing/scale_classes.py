"""Which occurrences of a unit change when it is flipped, or multiplied by a positive factor.

An occurrence of units in a tensor has a *flavor*. Occurrences of one flavor change together; some
never change.
"""

ScaleClass = tuple[int, int]
"""A name, and the power 1 or -1 at which the occurrence takes its factor."""


class ScaleClasses:
    """Union-find over flavors with powers: `value(x) = power * value(root)`, and a root that is
    always zero.

    Args:
        powers: whether 1 and -1 differ; signs are their own inverses, positive factors are not.
    """

    IDENTITY = 0

    def __init__(self, *, powers: bool) -> None:
        self._powers = powers
        self._parent = [0]
        self._power = [1]

    def fresh(self) -> ScaleClass:
        """A flavor that nothing is known of yet, at power 1."""
        self._parent.append(len(self._parent))
        self._power.append(1)
        return len(self._parent) - 1, 1

    def find(self, scale_class: ScaleClass) -> ScaleClass:
        """(root, power); root ZERO for an occurrence that does not change."""
        root, power = scale_class
        while self._parent[root] != root:
            power *= self._power[root]
            root = self._parent[root]
        return (root, power if self._powers else 1) if root != self.IDENTITY else (self.IDENTITY, 1)

    def same(self, first: ScaleClass, second: ScaleClass) -> None:
        """Both change together, at the same power."""
        (a, p), (b, q) = self.find(first), self.find(second)
        if a == b:
            if p != q:
                self.fix_to_identity(first)
            return
        if a == self.IDENTITY:
            a, b = b, a
        self._parent[a], self._power[a] = b, p * q

    def fix_to_identity(self, scale_class: ScaleClass) -> None:
        """It may not change at all."""
        root, _ = self.find(scale_class)
        if root != self.IDENTITY:
            self._parent[root] = self.IDENTITY

    def is_identity(self, scale_class: ScaleClass) -> bool:
        """Whether it is known not to change."""
        return self.find(scale_class)[0] == self.IDENTITY


INVARIANT: ScaleClass = (ScaleClasses.IDENTITY, 1)
"""Of what never changes."""
