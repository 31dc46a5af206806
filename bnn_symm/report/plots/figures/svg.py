"""A figure as SVG inside a page: no file beside it, and the same bytes for the same numbers.

Text is drawn as outlines, so that a page looks alike where other fonts are installed.
"""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.literal_text import literal_texts

# Names of clipping paths are hashes, salted at random unless the salt is said.
_SETTINGS: dict[Any, Any] = {"svg.hashsalt": "bnn_symm", "svg.fonttype": "path"}


def svg_text(figure: Figure) -> str:
    """Return the figure as SVG, without a date, its texts as they are written."""
    stream = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), literal_texts(figure):
        figure.savefig(
            stream, format="svg", facecolor="white", metadata={"Date": None, "Creator": None}
        )
    return stream.getvalue()
