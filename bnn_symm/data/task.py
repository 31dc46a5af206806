"""The task that a target defines: classification, regression, count or survival."""

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_values import is_missing, numbers
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.raw import RawData, Task
from bnn_symm.errors import ConfigError, InvalidData

# An integer target is inferred as classes if it has at most _FEW_CLASSES distinct values, or at
# most _MAX_CLASSES with more than _ROWS_PER_CLASS rows for each.
_MAX_CLASSES, _ROWS_PER_CLASS = 20, 20
_FEW_CLASSES = 10


def task_of(raw: RawData, config: DataConfig) -> tuple[Task, str]:
    """Return the task of a target and the reason for it.

    Args:
        raw: data as a loader read them.
        config: the declared task.

    Raises:
        InvalidData: if the target has missing values, a single value, or does not fit the task.
        ConfigError: if classes are listed, and the task is another.
    """
    y = raw.y
    defined = _task_of_columns(config)
    if raw.target_columns:
        return _check_columns(raw, config)
    missing = is_missing(y)
    if missing.any():
        raise InvalidData(
            f"target {quoted(raw.target)}: missing value in row {int(np.argmax(missing)) + 1} "
            f"({int(missing.sum())} missing in total); fill in the values or drop the rows"
        )
    distinct = len(set(y.tolist()))
    if defined is not None:
        task, reason = defined
    elif config.task != "auto":
        task, reason = config.task, f"data.task={config.task}"
    elif raw.task is not None:
        task, reason = raw.task, "defined by this data set"
    elif config.levels is not None:
        task, reason = "classification", "data.levels"
    else:
        task, reason = infer_task(y)
    if config.levels is not None and task != "classification":
        raise ConfigError(
            f"data.levels lists classes, but the task of target {quoted(raw.target)} is {task} "
            f"({reason}); remove it, or use {advise_setting('data.task=classification')}"
        )
    if distinct < 2:
        raise InvalidData(
            f"target {quoted(raw.target)} has the single value {quoted(y[0])} in all {len(y)} "
            f"rows, expected at least two values; choose another target with "
            f"{advise_setting('data.target=COLUMN')}"
        )
    if task == "classification" and distinct > len(y) / 2 and raw.task != "classification":
        raise InvalidData(
            f"target {quoted(raw.target)} has {distinct} distinct values in {len(y)} rows, too "
            f"many for classes; use {advise_setting('data.task=regression')}, or another target "
            f"with {advise_setting('data.target=COLUMN')}"
        )
    if task != "classification":
        numbers(y, f"target {quoted(raw.target)} of task {task}", booleans=True)
    return task, reason


def _task_of_columns(config: DataConfig) -> tuple[Task, str] | None:
    """Return the task that a column of events or exposures defines, and the reason for it.

    Raises:
        ConfigError: if another task or another such column is named.
    """
    if config.event is not None and config.exposure is not None:
        raise ConfigError(
            "data.event is for times and data.exposure for counts, got both; remove one of them"
        )
    tasks: dict[str, Task] = {"event": "survival", "exposure": "count"}
    for setting, task in tasks.items():
        if getattr(config, setting) is None:
            continue
        if config.task not in ("auto", task):
            raise ConfigError(
                f"data.{setting} is for data.task={task}, got data.task={config.task}; remove one "
                "of them"
            )
        return task, f"data.{setting}"
    return None


def _check_columns(raw: RawData, config: DataConfig) -> tuple[Task, str]:
    """Return the task of several targets, which is regression, and the reason for it."""
    for setting in ("event", "exposure"):
        if getattr(config, setting) is not None:
            raise ConfigError(
                f"data.{setting} is for one target, but data.target names "
                f"{len(raw.target_columns)} columns; name one column, or remove data.{setting}"
            )
    kind = config.task if config.task not in ("auto", "regression") else None
    if config.levels is not None:
        kind = "classification"
    if kind is not None:
        first = raw.target_columns[0].name
        raise ConfigError(
            f"data.target names {len(raw.target_columns)} columns, which are for regression, but "
            f"the task is {kind}; fit counts and classes in one run for each column, such as "
            f"{advise_setting(f'data.target={first}')}"
        )
    for column, values in zip(raw.target_columns, raw.y.T, strict=True):
        if values.min() == values.max():
            raise InvalidData(
                f"{column.what} has the single value {values[0]:g} in all {len(values)} rows, "
                "expected at least two values; leave it out of data.target"
            )
    return "regression", f"{len(raw.target_columns)} columns"


def infer_task(y: np.ndarray) -> tuple[Task, str]:
    """Return the task of a target without missing values, and the reason for it.

    Texts, booleans and integers with few distinct values are classes, as is a target whose values
    are 0.0 and 1.0 only. Other numbers are a regression target.

    Args:
        y: (point,).
    """
    values = set(y.tolist())
    distinct = len(values)
    if y.dtype.kind == "f":
        is_binary = values == {0.0, 1.0} and len(y) >= 4
        return (
            ("classification", "only 0.0 and 1.0")
            if is_binary
            else ("regression", "decimal numbers")
        )
    if y.dtype.kind == "b":
        return "classification", "true and false"
    if y.dtype.kind not in "ui" and not all(type(value) is int for value in values):
        return "classification", f"{distinct} distinct labels"
    few = distinct <= _FEW_CLASSES or (
        distinct <= _MAX_CLASSES and distinct * _ROWS_PER_CLASS < len(y)
    )
    reason = f"integers with {distinct} distinct values"
    return ("classification" if few and distinct * 2 <= len(y) else "regression"), reason
