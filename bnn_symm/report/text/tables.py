"""Format short plain-text tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_symm.report.tables import Table, by_rows


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table with aligned columns: text to the left, numbers to the right.

    Args:
        header: of the columns, all different.
        rows: with one value per column.

    Returns:
        The text.
    """
    return Table(caption="", columns=by_rows(header, rows)).text()


def scores_table(scores: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return a table with one row per split of the data and one column per score.

    Args:
        scores: of each part; None for a part without points.

    Returns:
        The text.
    """
    parts = {name: values for name, values in scores.items() if values}
    columns = list(next(iter(parts.values()))) if parts else []
    rows = [[name, *(values[key] for key in columns)] for name, values in parts.items()]
    return table(["part", *columns], rows)
