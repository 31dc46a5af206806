"""Segments of axes, of which labels are made; see `axis_labels`."""

from dataclasses import dataclass

from bnn_symm.symmetry.tracing.scale_classes import INVARIANT, ScaleClass


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

    @property
    def layout(self) -> tuple[int, int, bool, int]:
        """Return where its units are on the axis: outer, inner, within and copies."""
        return self.outer, self.inner, self.within, self.copies


Label = tuple[AxisSegment, ...]
