"""Short plain tables for a terminal or a pipe."""

from collections.abc import Sequence
from typing import Any

from bnn_symm.errors import one_line

# Characters of a cell: more are no longer a table.
_LONGEST = 200


def format_number(value: Any) -> str:
    """Four significant digits for a float, a dash for nothing, anything else as it is."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.1f}"
    return one_line(value, _LONGEST)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest entry: text to the left, numbers to the right."""
    cells = [[format_number(value) for value in row] for row in rows]
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
    """One row a part of the data, one column a score."""
    parts = {name: values for name, values in scores.items() if values}
    columns = list(next(iter(parts.values()))) if parts else []
    return table(
        ["part", *columns],
        [[name, *(values[c] for c in columns)] for name, values in parts.items()],
    )
