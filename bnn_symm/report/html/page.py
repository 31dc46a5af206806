"""Define the blocks of a page: sections of texts, tables, figures and code, as plain values.

A template renders them, and tables are those of `report.tables`.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from matplotlib.figure import Figure

from bnn_symm.report.plots.figures.svg import svg_text
from bnn_symm.report.tables import Table, by_rows

# Width of a figure in inches up to which a narrow screen shows it whole.
_NARROW = 5.6


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with a textual description and its numbers.

    Attributes:
        figure: drawn when the page is rendered.
        caption: of the figure.
        numbers: a table of the plotted numbers, which the alternative text contains.
        narrow: the same figure for a narrow screen, if the figure is wide.
    """

    kind: ClassVar[str] = "picture"
    figure: Figure
    caption: str
    numbers: Table
    narrow: Figure | None = None

    @property
    def alt(self) -> str:
        """Return the alternative text."""
        return f"{self.caption} {self.numbers.sentence}"

    @property
    def source(self) -> str:
        """Return the image as a data URL."""
        return _data_url(self.figure)

    @property
    def narrow_source(self) -> str:
        """Return the image for a narrow screen as a data URL; empty if there is none."""
        return "" if self.narrow is None else _data_url(self.narrow)

    @property
    def is_wide(self) -> bool:
        """Return whether a narrow screen would make its text too small to read."""
        return self.narrow is None and self.figure.get_figwidth() > _NARROW


def _data_url(figure: Figure) -> str:
    encoded = base64.b64encode(svg_text(figure).encode())
    return f"data:image/svg+xml;base64,{encoded.decode('ascii')}"


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
        return self.name or anchor_of(self.title)


def anchor_of(title: str) -> str:
    """Return the anchor of a section.

    Args:
        title: of the section.

    Returns:
        The title in lower case, with hyphens in place of spaces and without a question mark.
    """
    return title.lower().rstrip("?").replace(" ", "-")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The short answer to a question, which links to its section.

    Attributes:
        question: the title of the section.
        text: the answer, in a few words.
        mark: a class of the style sheet, such as `yes`.
    """

    question: str
    text: str
    mark: str = ""

    @property
    def anchor(self) -> str:
        """Return the anchor of the section."""
        return anchor_of(self.question)


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole page.

    Attributes:
        title: of the page.
        about: a line under the title.
        headline: the conclusion, in one to three sentences.
        picture: of the conclusion, shown under the headline.
        answers: to the first questions of a reader, shown under the headline.
        warnings: shown under the answers.
        sections: of the page, in order.
    """

    title: str
    about: str
    headline: str
    picture: Picture | None = None
    answers: Sequence[Answer] = ()
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
    rows = [(name, value_as_text(value)) for name, value in _flat(content)]
    return Table(caption=caption, columns=by_rows(("name", "value"), rows))


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
