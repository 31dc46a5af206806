"""Define the blocks of a page: sections of texts, tables, figures and code, as plain values.

A template renders them.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.svg import svg_text


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the first line.
        small: a second line in small type.
        mark: a class of the style sheet, such as `yes`.
    """

    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names each row.

    Attributes:
        caption: of the table.
        header: of the columns.
        rows: one cell per column each; a text is a cell with one line.
        words: indices of columns with text; all others are aligned as numbers.
        notes: shown under the table.
        folded: whether the table is collapsed at first.
        stacked: whether each row becomes a paragraph on a narrow screen, for tables whose last
            column is a sentence.
    """

    kind: ClassVar[str] = "table"
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: Sequence[int] = (0,)
    notes: Sequence[str] = ()
    folded: bool = False
    stacked: bool = False

    @property
    def cells(self) -> list[list[Cell]]:
        """Return the rows with every value as a cell."""
        return [
            [value if isinstance(value, Cell) else Cell(text=value) for value in row]
            for row in self.rows
        ]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with a textual description and its numbers.

    Attributes:
        figure: drawn when the page is rendered.
        alt: alternative text with the main numbers.
        caption: of the figure.
        numbers: a table of the plotted numbers.
    """

    kind: ClassVar[str] = "picture"
    figure: Figure
    alt: str
    caption: str
    numbers: Table

    @property
    def source(self) -> str:
        """Return the image as a data URL."""
        return "data:image/svg+xml;base64," + base64.b64encode(
            svg_text(self.figure).encode()
        ).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph.

    Attributes:
        text: of the paragraph.
        mark: a class of the style sheet, such as `warning`.
    """

    kind: ClassVar[str] = "text"
    text: str
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Code:
    """A command to copy, or the literal content of a file.

    Attributes:
        what: a description of it.
        text: the command or the content.
    """

    kind: ClassVar[str] = "code"
    what: str
    text: str


Block = Table | Picture | Text | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: of its heading.
        blocks: of the section, in order.
        parts: subsections.
        name: of its anchor, by default from the title.
    """

    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence["Section"] = ()
    name: str = ""

    @property
    def anchor(self) -> str:
        """Return the anchor to link to."""
        return self.name or self.title.lower().replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        title: of the page.
        about: a line under the title.
        headline: the conclusion, in one or two sentences.
        warnings: shown under the headline.
        sections: of the page, in order.
    """

    title: str
    about: str
    headline: str
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def facts(caption: str, content: Mapping[str, Any]) -> Table:
    """Return a table of names and values, with dotted names for nested mappings.

    Args:
        caption: of the table.
        content: names and values.

    Returns:
        The table.
    """
    rows = [[name, value_as_text(value)] for name, value in _flat(content)]
    return Table(caption=caption, header=["", ""], rows=rows, words=(0, 1))


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    entries = []
    for name, value in content.items():
        key = f"{prefix}{name}"
        entries += _flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return entries


def value_as_text(value: Any) -> str:
    """Return a value of a configuration or a record as text.

    Args:
        value: a number, a text, None, or a list or mapping of these.

    Returns:
        The text.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {value_as_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(value_as_text(item) for item in value) if value else "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
