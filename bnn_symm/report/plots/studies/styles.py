"""Define the styles of the settings of a study, which are the same in all of its figures.

Neighboring colors differ in lightness, and each has a different dash and marker. The settings are
therefore distinguishable in grayscale and with color blindness. The standard network is always
black and solid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Style:
    """The style of a setting.

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
    """Return a style for each setting, which depends on its symmetry only.

    Args:
        kinds: for each setting, its kind of symmetry and the other symmetry settings.

    Returns:
        The styles.
    """
    others = [kind for kind in dict.fromkeys(kinds) if kind[0] != "standard"]
    styles = {kind: _OTHERS[number % len(_OTHERS)] for number, kind in enumerate(others)}
    return [styles.get(kind, _STANDARD) for kind in kinds]


def simplify(axes: Axes) -> None:
    """Hide the upper and right spines, and reduce the size of tick labels.

    Args:
        axes: to change.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def legend_columns(labels: Sequence[str], width: int) -> int:
    """Return the number of columns of a legend, at most three.

    Args:
        labels: of the legend.
        width: in characters.

    Returns:
        The number of columns.
    """
    return max(1, min(3, len(labels), width // (8 + max(map(len, labels), default=1))))
