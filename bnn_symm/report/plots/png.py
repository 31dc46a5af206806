"""How a picture gets onto disk."""

from pathlib import Path

from matplotlib.figure import Figure

from bnn_symm.io.atomic import write_atomically

_DOTS_PER_INCH = 150


def save_png(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically."""
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH))
