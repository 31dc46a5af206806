r"""Draw texts of figures literally: a name such as `$\bad{$` is not a formula.

Titles, labels and legends contain names of folders, data sets, columns and settings. Matplotlib
parses text between two dollars as a formula, and fails if it is not one. Tick labels that a number
formatter of matplotlib writes as formulas (powers of ten) are still parsed.
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
    """Draw a figure with literal texts, and with boxes for letters that the font lacks.

    Args:
        figure: complete, to be saved within the `with` block.

    Yields:
        Nothing.
    """
    numbers = set(map(id, _number_texts(figure)))
    for text in figure.findobj(Text):
        if isinstance(text, Text) and id(text) not in numbers:
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _number_texts(figure: Figure) -> Iterator[Artist]:
    """Return the tick labels that a number formatter writes, and their common factors."""
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
