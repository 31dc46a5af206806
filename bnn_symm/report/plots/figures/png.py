"""Save figures as PNG files."""

from pathlib import Path

from matplotlib.figure import Figure

from bnn_symm.io.atomic import write_atomically
from bnn_symm.report.plots.figures.literal_text import literal_texts

_DOTS_PER_INCH = 150


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG atomically, with literal texts.

    Args:
        figure: the figure.
        path: of the PNG.
    """
    with literal_texts(figure):
        write_atomically(
            path, lambda temporary: figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
        )
