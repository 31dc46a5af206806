"""Define the styles of the settings of a study, which are the same in all of its figures.

Neighboring colors differ in lightness, and each has a different dash and marker. The settings are
therefore distinguishable in grayscale and with color blindness. The standard network is always
black and solid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bnn_symm.report.plots.axes import with_gaps


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


def draw_estimates(
    axes: Axes,
    places: Sequence[float] | np.ndarray,
    estimates: Sequence[Mapping[str, Any] | None],
    style: Style,
    *,
    along: str,
    label: str | None = None,
) -> np.ndarray:
    """Draw means as markers and their intervals as lines.

    Args:
        axes: the panel.
        places: of the estimates on the axis without values.
        estimates: `mean`, `low` and `high`, each a number or None.
        style: of the setting.
        along: the axis of the places, `x` or `y`.
        label: of the markers in the legend.

    Returns:
        The means, with NaN for those that are undefined.
    """
    mean, low, high = with_gaps(
        axes, *([(own or {}).get(key) for own in estimates] for key in ("mean", "low", "high"))
    )
    (axes.vlines if along == "x" else axes.hlines)(places, low, high, color=style.color, lw=1.9)
    position = (places, mean) if along == "x" else (mean, places)
    marks = {"color": style.color, "ms": 7, "mec": "white", "mew": 0.7, "label": label}
    axes.plot(*position, style.marker, **marks)
    return mean
