"""Format short plain-text tables."""

from collections.abc import Sequence
from typing import Any

from bnn_symm.errors import one_line
from bnn_symm.formatting import number

# Maximum number of characters of a cell.
_LONGEST = 200


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table with aligned columns: text to the left, numbers to the right.

    Args:
        header: of the columns.
        rows: with one value per column.

    Returns:
        The text.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(row, widths, numeric, strict=True)
        ]
        return "  ".join(parts).rstrip()

    return "\n".join(
        [line(header), line(["-" * width for width in widths]), *(line(row) for row in cells)]
    )


def scores_table(scores: dict[str, dict[str, Any] | None]) -> str:
    """Return a table with one row per split of the data and one column per score.

    Args:
        scores: of each part; None for a part without points.

    Returns:
        The text.
    """
    parts = {name: values for name, values in scores.items() if values}
    columns = list(next(iter(parts.values()))) if parts else []
    return table(
        ["part", *columns],
        [[name, *(values[c] for c in columns)] for name, values in parts.items()],
    )


def _cell(value: Any) -> str:
    """Return a number with four significant digits, or a text in one line."""
    is_number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return number(value, 4) if is_number else one_line(value, _LONGEST)
