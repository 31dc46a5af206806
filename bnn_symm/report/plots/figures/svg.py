"""Convert figures to SVG for a page, with equal bytes for equal numbers.

Text is drawn as outlines, so that a page does not depend on the installed fonts. Where the reader
prefers a dark ground, the colors are those of `dark_colors`.
"""

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.dark_colors import dark_color
from bnn_symm.report.plots.figures.literal_text import literal_texts

# Names of clipping paths are hashes, with a random salt unless one is set.
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "bnn_symm", "svg.fonttype": "path"}
_COLOR = re.compile(r"\b(fill|stroke): #([0-9a-f]{6})")
_STYLES = '<style type="text/css">'


def svg_text(figure: Figure) -> str:
    """Return a figure as SVG, without a date and with literal texts.

    Args:
        figure: the figure.

    Returns:
        The SVG document.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), literal_texts(figure):
        figure.savefig(
            stream, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
        )
    return _with_dark_colors(stream.getvalue())


def _with_dark_colors(text: str) -> str:
    """Return the document with a variable for every color, which has another value on dark."""
    colors = sorted({found[2] for found in _COLOR.finditer(text)})
    variables = "".join(f"--c{color}: {dark_color(f'#{color}')}; " for color in colors)
    # Matplotlib writes no fill for black, the default, which is inherited from the root.
    dark = f"svg {{ {variables}fill: {dark_color('#000000')}; }}"
    style = f"{_STYLES}@media screen and (prefers-color-scheme: dark) {{ {dark} }}</style>\n"
    text = _COLOR.sub(r"\1: var(--c\2, #\2)", text)
    return text.replace(_STYLES, f"{style}  {_STYLES}", 1)
