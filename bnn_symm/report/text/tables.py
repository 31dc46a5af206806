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

    Scores of each of several target columns are in rows below those of all columns.

    Args:
        scores: of each part; None for a part without points.

    Returns:
        The text.
    """
    parts = with_target_columns(scores)
    columns = list(next(iter(parts.values()), {}))
    rows = [[name, *(values.get(key) for key in columns)] for name, values in parts.items()]
    return table(["part", *columns], rows)


def with_target_columns(
    scores: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, dict[str, Any]]:
    """Return the scores of each part and, below them, those of each of several target columns.

    Args:
        scores: of each part; None for a part without points.
    """
    parts: dict[str, dict[str, Any]] = {}
    for name, values in scores.items():
        if values:
            own = dict(values)
            columns = own.pop("columns", None) or {}
            parts[name] = own
            parts |= {f"{name}: {column}": of_column for column, of_column in columns.items()}
    return parts
