"""Summary of a data set in one line, and notes about unexpected properties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnn_symm.advice import advise, advise_setting
from bnn_symm.data.graph import Graph
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData, one_line
from bnn_symm.formatting import number
from bnn_symm.summaries import Result

# One-hot features are reported above this number and above this fraction of the training points;
# one column with more than the second fraction is an error.
_MANY_FEATURES, _REPORTED_FRACTION, _MAX_FRACTION = 20, 0.25, 0.5
# Integers written with a decimal point may be classes if they have at most this many values.
_FEW_VALUES = 10
_KINDS = {"boolean": "true/false", "date": "dates", "text": "hashed words"}


def data_summary(
    preprocessing: Preprocessing,
    reason: str,
    sizes: dict[str, int],
    graph: Graph | None = None,
) -> str:
    """Return one line with the task and its reason, rows, features, and encoded columns.

    Args:
        preprocessing: encoding of the data.
        reason: reason for the task.
        sizes: number of points of each split.
        graph: the graph whose nodes are the points.

    Returns:
        A line of at most 300 characters.
    """
    encoded = [
        f"{one_line(column.name, 30)} ({len(column.categories)}: "
        f"{short_list(column.categories, 4, 40)})"
        if column.kind == "category"
        else f"{one_line(column.name, 30)} ({_KINDS[column.kind]})"
        for column in preprocessing.columns
        if column.kind != "number"
    ]
    if preprocessing.kind == "table":
        count = (
            f"{len(preprocessing.feature_names)} features of {len(preprocessing.columns)} columns"
        )
    elif graph is not None:
        count = (
            f"a graph of {graph.num_nodes} nodes, {graph.num_edges} edges and "
            f"{graph.features.shape[1]} features"
        )
    else:
        count = f"features of shape {'x'.join(map(str, preprocessing.input_shape))}"
    parts = ", ".join(f"{size} {name}" for name, size in sizes.items())
    task = f"{preprocessing.task} of {quoted(preprocessing.target, 30)} ({reason})"
    line = f"{task}; {sum(sizes.values())} rows: {parts}; {count}"
    return one_line(f"{line}; encoded: {', '.join(encoded)}" if encoded else line)


@dataclass(frozen=True, kw_only=True)
class ColumnSummary(Result):
    """What was decided for one column of a table.

    Attributes:
        column: its name.
        type: `number`, `boolean`, `category`, `date` or `text`, and how values are written.
        features: number of features that encode it.
        missing: what replaces a missing value; empty if none may be missing.
    """

    column: str
    type: str
    features: int
    missing: str


def column_summaries(preprocessing: Preprocessing) -> tuple[ColumnSummary, ...]:
    """Return what was decided for each column of a table; nothing for an array.

    Args:
        preprocessing: encoding of the data.
    """
    return tuple(
        ColumnSummary(
            column=column.name,
            type=_type_of(column),
            features=len(column.feature_names),
            missing=_replacement(column),
        )
        for column in preprocessing.columns
    )


def _type_of(column: Column) -> str:
    if column.kind == "category":
        pooled = ", others are one more" if column.pools else ""
        return (
            f"category ({len(column.categories)}: {short_list(column.categories, 4, 40)}{pooled})"
        )
    if column.kind == "date":
        return f"date ({'ISO' if column.date_format == 'iso' else column.date_format})"
    if column.notation is not None:
        return f"{column.kind} ({column.notation.describe()})"
    return "text (counts of words)" if column.kind == "text" else column.kind


def _replacement(column: Column) -> str:
    if not column.has_missing:
        return ""
    if not column.can_be_filled:
        return "a category"
    values = "medians" if len(column.fill) != 1 else f"median {number(column.fill[0])}"
    return f"{values} and a feature"


def data_notes(
    preprocessing: Preprocessing, y: np.ndarray, num_train: int, *, is_task_inferred: bool
) -> list[str]:
    """Return sentences about unexpected properties of the target and the features.

    Args:
        preprocessing: encoding of the data.
        y: target as read.
        num_train: number of training points.
        is_task_inferred: whether the task was inferred from the target.

    Raises:
        InvalidData: if a column has more categories than half of the training points, too many to
            learn from.
    """
    target_notes = _target_notes(preprocessing, y) if is_task_inferred else []
    return [*target_notes, *_category_notes(preprocessing.columns, num_train)]


def _target_notes(preprocessing: Preprocessing, y: np.ndarray) -> list[str]:
    if y.ndim == 2 or y.dtype.kind not in "iuf" or (y != np.floor(y)).any():
        return []
    distinct = np.unique(y)
    if y.dtype.kind != "f":
        if preprocessing.task != "classification" or len(distinct) < 3:
            return []
        counts, values = advise_setting("data.task=count"), short_list(distinct.tolist(), 5)
        return [
            f"target {quoted(preprocessing.target)} has the integers {values}: read as classes; "
            f"for counts use {counts}, for other numbers {advise_setting('data.task=regression')}"
        ]
    if len(distinct) > _FEW_VALUES or len(distinct) * 2 > len(y):
        return []
    values, target = short_list(distinct.tolist(), 5), quoted(preprocessing.target)
    if preprocessing.task == "classification":
        return [
            f"target {target} has only the values {values}: read as classes; for numbers use "
            f"{advise_setting('data.task=regression')}"
        ]
    return [
        f"target {target} has only the values {values}, with a decimal point: read as numbers "
        f"({preprocessing.task}); for classes use {advise_setting('data.task=classification')}"
    ]


def _category_notes(columns: Sequence[Column], num_train: int) -> list[str]:
    notes = []
    categories = [column for column in columns if column.kind == "category"]
    for column in categories:
        count = len(column.categories)
        if count > _MANY_FEATURES and count > _MAX_FRACTION * num_train:
            raise InvalidData(
                f"column {quoted(column.name)} has {count} categories for {num_train} training "
                f"points, too many to learn from; {advise('use --set data.drop=COLUMN', 'drop it')}"
                ", merge categories, or use more points"
            )
    total = sum(len(column.categories) for column in categories)
    if total > _MANY_FEATURES and total > _REPORTED_FRACTION * num_train:
        largest = max(categories, key=lambda column: len(column.categories))
        notes.append(
            f"{total} of the features are categories, for {num_train} training points; "
            f"{len(largest.categories)} of them are from column {quoted(largest.name)}; drop "
            "columns that are no features, or merge categories"
        )
    return notes
