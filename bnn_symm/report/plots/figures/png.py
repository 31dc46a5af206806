"""How a picture gets onto disk."""

from pathlib import Path

from matplotlib.figure import Figure

from bnn_symm.io.atomic import write_atomically
from bnn_symm.report.plots.figures.literal_text import literal_texts

_DOTS_PER_INCH = 150


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, its texts as they are written."""
    with literal_texts(figure):
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
        )
