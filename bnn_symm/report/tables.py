"""Represent tables of numbers and words, for the terminal and for pages.

A column is a sequence of values: numbers get four significant digits, means the digits that their
intervals support, and texts stay. Columns of texts are aligned to the left.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bnn_symm.errors import one_line
from bnn_symm.formatting import first_lines, interval, mean, number

# Maximum numbers of characters of a cell on the terminal, and of rows of an alternative text.
_LONGEST, _MOST_ROWS = 200, 12
_NUMERIC = re.compile(r"([-+<>~]? ?\d[\d.,]*(e[-+]?\d+)?|-?inf|nan|-|)( .*)?")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the first line.
        small: a second line in small type; on the terminal in parentheses.
        mark: a class of the style sheet, such as `yes`.
    """

    text: str
    small: str = ""
    mark: str = ""


def cell(value: Any) -> Cell:
    """Return a value as a cell.

    Args:
        value: a number, a mean with its interval, a text, a cell, or None.

    Returns:
        The cell; a dash for None.
    """
    if isinstance(value, Cell):
        return value
    if isinstance(value, Mapping):
        return Cell(text=mean(value), small=interval(value))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return Cell(text=number(value, 4))
    return Cell(text=str(value))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names each row.

    Attributes:
        caption: of the table.
        columns: header -> values, one for each row.
        notes: shown under the table.
        folded: whether the table is collapsed at first.
        stacked: whether each row becomes a paragraph on a narrow screen, for tables whose last
            column is a sentence.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Mapping[str, Sequence[Any]]
    notes: Sequence[str] = ()
    folded: bool = False
    stacked: bool = False

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        """Return the rows of cells."""
        return [tuple(map(cell, row)) for row in zip(*self.columns.values(), strict=True)]

    @property
    def words(self) -> set[int]:
        """Return the indices of the columns that contain texts."""
        rows = self.rows
        return {
            i
            for i in range(len(self.columns))
            if not all(_NUMERIC.fullmatch(row[i].text) for row in rows)
        }

    @property
    def sentence(self) -> str:
        """Return the first rows in one line, each with its first cell before the others."""
        names = list(self.columns)
        parts = []
        for first, *others in self.rows:
            values = [
                f"{name} {_line(own)}"
                for name, own in zip(names[1:], others, strict=True)
                if own.text != "-"
            ]
            parts.append(f"{_line(first)}: {', '.join(values)}")
        return f"{'; '.join(first_lines(parts, _MOST_ROWS, 'rows'))}."

    def text(self) -> str:
        """Return the columns as plain text: words to the left, numbers to the right."""
        header = list(self.columns)
        rows = [[_line(own) for own in row] for row in self.rows]
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        words = self.words

        def line(row: Sequence[str]) -> str:
            parts = [
                value.ljust(width) if i in words else value.rjust(width)
                for i, (value, width) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(parts).rstrip()

        return "\n".join(map(line, [header, ["-" * width for width in widths], *rows]))


def _line(own: Cell) -> str:
    return one_line(own.text + (own.small and f" ({own.small})"), _LONGEST)


def by_rows(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """Return columns from rows.

    Args:
        header: of the columns.
        rows: with one value per column.

    Returns:
        The columns of a table.
    """
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}
