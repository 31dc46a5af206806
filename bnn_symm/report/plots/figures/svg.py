"""Convert figures to SVG for a page, with equal bytes for equal numbers.

Text is drawn as outlines, so that a page does not depend on the installed fonts.
"""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.literal_text import literal_texts

# Names of clipping paths are hashes, with a random salt unless one is set.
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "bnn_symm", "svg.fonttype": "path"}


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
    return stream.getvalue()
