"""How the settings of a study are told apart, the same in every figure of it.

Colors differ in lightness from their neighbors, and each has a dash and a marker of its own, so
that they are told apart in gray and by the color-blind too. The standard network is always black
and solid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Style:
    """Of one setting.

    Attributes:
        color: of lines, bands and markers.
        dash: of lines.
        marker: of points.
    """

    color: str
    dash: Any
    marker: str


_STANDARD = Style(color="#1b1b1b", dash="-", marker="o")
_OTHERS = tuple(
    Style(color=color, dash=dash, marker=marker)
    for color, dash, marker in (
        ("#c05a00", "--", "s"),
        ("#1f5f99", "-.", "^"),
        ("#8a8a8a", ":", "D"),
        ("#6a2c91", (0, (6, 2, 1, 2, 1, 2)), "v"),
        ("#b59a00", (0, (1, 1)), "P"),
        ("#00674f", (0, (8, 3)), "X"),
        ("#e58fb0", (0, (3, 1, 1, 1)), "<"),
        ("#7a1f1f", (0, (5, 1)), ">"),
        ("#63b7af", (0, (2, 3)), "p"),
    )
)


def styles_of(kinds: Sequence[tuple[str, str]]) -> list[Style]:
    """A style for each setting: equal for what is done about the symmetry, whatever else differs.

    Args:
        kinds: of each setting its kind, and what else tells it from others of that kind.
    """
    others = [kind for kind in dict.fromkeys(kinds) if kind[0] != "standard"]
    found = {kind: _OTHERS[number % len(_OTHERS)] for number, kind in enumerate(others)}
    return [found.get(kind, _STANDARD) for kind in kinds]


def bare(axes: Axes) -> None:
    """Takes away what says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def columns_of(labels: Sequence[str], room: int) -> int:
    """How many labels of a legend fit side by side into so many characters: three at most."""
    return max(1, min(3, len(labels), room // (8 + max(map(len, labels), default=1))))
