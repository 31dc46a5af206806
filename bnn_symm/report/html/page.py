"""What a page is made of: sections of texts, tables, pictures and code, as plain values that a
template lays out.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.svg import svg_text


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Of a table.

    Attributes:
        text: first line.
        small: what is said beneath it, smaller.
        mark: a class of the style sheet, such as `yes`.
    """

    text: str
    small: str = ""
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column says what each row is about.

    Attributes:
        caption: what it shows.
        header: of the columns.
        rows: as many cells as columns each; a text stands for a cell without more.
        words: numbers of columns that hold sentences; all others are aligned as numbers are.
        notes: said beneath it.
        folded: shown only when it is asked for.
        stacked: on a narrow screen each row is laid out as a paragraph: for tables whose last
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
        """The rows, with a cell in every place."""
        return [
            [value if isinstance(value, Cell) else Cell(text=value) for value in row]
            for row in self.rows
        ]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure, what it shows in words, and its numbers.

    Attributes:
        figure: what is drawn when the page is.
        alt: what it shows, with its main numbers, for those who do not see it.
        caption: how to read it.
        numbers: a table of what is drawn.
    """

    kind: ClassVar[str] = "picture"
    figure: Figure
    alt: str
    caption: str
    numbers: Table

    @property
    def source(self) -> str:
        """For `src`: the picture itself."""
        return "data:image/svg+xml;base64," + base64.b64encode(
            svg_text(self.figure).encode()
        ).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; `mark` is a class of the style sheet, such as `warning`."""

    kind: ClassVar[str] = "text"
    text: str
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Something to copy, or to read as it is in a file; `what` says which."""

    kind: ClassVar[str] = "code"
    what: str
    text: str


Block = Table | Picture | Text | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: of its heading.
        blocks: in order.
        parts: sections within it.
        name: of its anchor; default from the title.
    """

    title: str
    blocks: Sequence[Block] = ()
    parts: Sequence["Section"] = ()
    name: str = ""

    @property
    def anchor(self) -> str:
        """To link to."""
        return self.name or self.title.lower().replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything.

    Attributes:
        title: of the page.
        about: a line beneath it.
        headline: the conclusion, in one or two sentences.
        warnings: to know before reading on.
        sections: in order.
    """

    title: str
    about: str
    headline: str
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def facts(caption: str, content: Mapping[str, Any]) -> Table:
    """A table of names and values; of nested mappings with dotted names."""
    rows = [[name, said(value)] for name, value in _flat(content)]
    return Table(caption=caption, header=["", ""], rows=rows, words=(0, 1))


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in content.items():
        key = f"{prefix}{name}"
        found += _flat(value, f"{key}.") if isinstance(value, Mapping) else [(key, value)]
    return found


def said(value: Any) -> str:
    """A value of a configuration or a record, as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(said(item) for item in value) if value else "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
