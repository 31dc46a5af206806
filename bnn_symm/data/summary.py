"""What was read, in one line, and what of it a person may not expect."""

from collections.abc import Sequence

import numpy as np

from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData, one_line

# From this many features of one column on, and from this share of the training points, one-hot
# features are named.
_MANY_FEATURES, _LARGE_SHARE = 20, 0.25
_REFUSED_SHARE = 0.5
# Whole numbers with a decimal point and so few distinct values may be classes.
_FEW_VALUES = 10


def data_summary(preprocessing: Preprocessing, reason: str, sizes: dict[str, int]) -> str:
    """Return one line with the task and why, rows, features, and the columns that are encoded.

    Args:
        preprocessing: how the data become features and targets.
        reason: why the task is what it is.
        sizes: points in each part.

    Returns:
        A line of at most 300 characters.
    """
    encoded = [
        f"{one_line(column.name, 30)} ({len(column.categories)}: "
        f"{short_list(column.categories, 4, 40)})"
        if column.kind == "category"
        else f"{one_line(column.name, 30)} (true/false)"
        for column in preprocessing.columns
        if column.kind != "number"
    ]
    if preprocessing.kind == "table":
        count = (
            f"{len(preprocessing.feature_names)} features of {len(preprocessing.columns)} columns"
        )
    else:
        count = f"features of shape {'x'.join(map(str, preprocessing.input_shape))}"
    parts = ", ".join(f"{size} {name}" for name, size in sizes.items())
    task = f"{preprocessing.task} of {quoted(preprocessing.target, 30)} ({reason})"
    line = f"{task}; {sum(sizes.values())} rows: {parts}; {count}"
    return one_line(f"{line}; encoded: {', '.join(encoded)}" if encoded else line)


def data_notes(
    preprocessing: Preprocessing, y: np.ndarray, num_train: int, *, is_task_inferred: bool
) -> list[str]:
    """Return sentences about what a person may not expect of a task and its features.

    Args:
        preprocessing: how the data become features and targets.
        y: the target as read.
        num_train: points in the training part.
        is_task_inferred: whether the task follows from the target alone.

    Raises:
        InvalidData: if a column has more categories than half of the training points, which cannot
            be learned.
    """
    target_notes = _target_notes(preprocessing, y) if is_task_inferred else []
    return [*target_notes, *_category_notes(preprocessing.columns, num_train)]


def _target_notes(preprocessing: Preprocessing, y: np.ndarray) -> list[str]:
    if y.dtype.kind != "f" or (y != np.floor(y)).any():
        return []
    distinct = np.unique(y)
    if len(distinct) > _FEW_VALUES or len(distinct) * 2 > len(y):
        return []
    values, target = short_list(distinct.tolist(), 5), quoted(preprocessing.target)
    if preprocessing.task == "classification":
        return [
            f"target {target} has only {values}: read as classes; for numbers use --set "
            "data.task=regression"
        ]
    return [
        f"target {target} has only {values}, with a decimal point: read as numbers "
        f"({preprocessing.task}); for classes use --set data.task=classification"
    ]


def _category_notes(columns: Sequence[Column], num_train: int) -> list[str]:
    notes = []
    categories = [column for column in columns if column.kind == "category"]
    for column in categories:
        count = len(column.categories)
        if count > _MANY_FEATURES and count > _REFUSED_SHARE * num_train:
            raise InvalidData(
                f"column {quoted(column.name)} has {count} categories, which would be {count} "
                f"features for {num_train} training points; drop it, merge categories, or use more "
                "points"
            )
    total = sum(len(column.categories) for column in categories)
    if total > _MANY_FEATURES and total > _LARGE_SHARE * num_train:
        largest = max(categories, key=lambda column: len(column.categories))
        notes.append(
            f"{total} of the features are categories for {num_train} training points, "
            f"{len(largest.categories)} of them of column {quoted(largest.name)}: drop or merge "
            "what is no feature to learn from"
        )
    return notes
