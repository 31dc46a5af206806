r"""Texts of figures as they are written: a name of the user's such as `$\bad{$` is no formula.

Titles, labels and legends quote names of folders, data sets, columns and settings. Matplotlib reads
what stands between two dollars as a formula, and fails where it is none. Numbers at the ticks of an
axis, which matplotlib itself writes as formulas (powers of ten), are left to it.
"""

import contextlib
import warnings
from collections.abc import Iterator

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter


@contextlib.contextmanager
def literal_texts(figure: Figure) -> Iterator[None]:
    """Draw a figure with its texts as they are written; letters that the font lacks become boxes
    without a warning.

    Args:
        figure: complete, to be saved within the `with` block.
    """
    numbers = set(map(id, _texts_of_numbers(figure)))
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _texts_of_numbers(figure: Figure) -> Iterator[Artist]:
    """Return the texts at ticks that a formatter of numbers writes, and their common factors."""
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        for axis in (axes.xaxis, axes.yaxis):
            yield axis.offsetText
            for formatter, ticks in (
                (axis.get_major_formatter(), axis.get_major_ticks()),
                (axis.get_minor_formatter(), axis.get_minor_ticks()),
            ):
                if not isinstance(formatter, FixedFormatter | FuncFormatter):
                    for tick in ticks:
                        yield from (tick.label1, tick.label2)
