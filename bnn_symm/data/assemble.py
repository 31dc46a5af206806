"""From what a loader read to a `Dataset`: task, encoding, split, scaling fitted on the training
part.
"""

from dataclasses import replace

import numpy as np
import torch

from bnn_symm.data.config import DataConfig
from bnn_symm.data.dataset import Dataset, Provenance, Split
from bnn_symm.data.preprocessing.column_values import is_missing, numbers
from bnn_symm.data.preprocessing.columns import infer_columns
from bnn_symm.data.preprocessing.labels import sorted_labels
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import RawData, Task, default_feature_names
from bnn_symm.data.splits import SplitIndices, split_points
from bnn_symm.data.summary import data_notes, data_summary
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line

PARTS = ("train", "validation", "test")

# An integer target is read as classes only with few distinct values: so many, each in so many rows
# ...
_MANY_CLASSES, _ROWS_A_CLASS = 20, 20
# ... or this many, in however few rows.
_FEW_CLASSES = 10


def assemble(raw: RawData, config: DataConfig, dtype: torch.dtype) -> Dataset:
    """The data set that `config` describes, from the data of its loader.

    Raises:
        InvalidData: for a target that does not fit the task, too few rows, or a class without
            points.
        ConfigError: for a target or a gap feature that the data do not have.
    """
    preprocessing, reason = _unscaled(raw, config)
    features = preprocessing.features(raw.x)
    target = preprocessing.encode_target(raw.y, torch.float64).numpy()
    split = split_raw(raw, config, preprocessing, features, target)
    if preprocessing.task == "classification":
        _check_classes(preprocessing, target, split, config)
    regression = preprocessing.task == "regression"
    if config.standardize:
        scaling = Scaling.fit(features, split.train, target if regression else None)
        preprocessing = replace(preprocessing, scaling=scaling)
    parts = {
        name: make_part(preprocessing, features, raw.y, getattr(split, name), dtype)
        for name in PARTS
    }
    is_inferred = config.task == "auto" and raw.task is None
    notes = [
        *raw.notes,
        *data_notes(preprocessing, raw.y, len(split.train), is_task_inferred=is_inferred),
    ]
    return Dataset(
        name=config.name,
        task=preprocessing.task,
        num_outputs=len(preprocessing.class_labels) or 1,
        preprocessing=preprocessing,
        provenance=Provenance(
            source=raw.source,
            licence=raw.licence,
            sha256=raw.sha256(),
            split_seed=config.split_seed,
            split_sha256=split.sha256(),
        ),
        summary=data_summary(
            preprocessing, reason, {name: len(part) for name, part in parts.items()}
        ),
        notes=tuple(one_line(note) for note in notes),
        **parts,
    )


def make_part(
    preprocessing: Preprocessing,
    features: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    dtype: torch.dtype,
) -> Split:
    """The points at `rows` of features that `preprocessing` made and of a raw target."""
    x = preprocessing.scaling.standardize(features[rows], dtype)
    return Split(x=x, y=preprocessing.encode_target(y, dtype)[torch.from_numpy(rows)])


def split_raw(
    raw: RawData,
    config: DataConfig,
    preprocessing: Preprocessing,
    features: np.ndarray,
    target: np.ndarray,
) -> SplitIndices:
    """The split of raw data: its own if it has one, else by key; stratified for classification."""
    fixed = (raw.train, raw.test) if raw.train is not None and raw.test is not None else None
    gap_values = None
    if config.gap_feature is not None:
        if preprocessing.task == "classification":
            raise ConfigError(
                f"data.gap_feature is for regression, and the target {quoted(raw.target)} is read "
                "as classification; remove it or use --set data.task=regression"
            )
        if config.gap_feature not in preprocessing.feature_names:
            hint = nearest(config.gap_feature, preprocessing.feature_names[:50])
            raise ConfigError(
                f"data.gap_feature: there is no feature {quoted(config.gap_feature)}; "
                f"{one_line(hint, 150)}"
            )
        gap_values = features.reshape(len(features), -1)[
            :, preprocessing.feature_names.index(config.gap_feature)
        ]
    return split_points(
        len(raw.y),
        config,
        classes=target if preprocessing.task == "classification" else None,
        fixed=fixed,
        gap_values=gap_values,
    )


def unscaled(raw: RawData, config: DataConfig) -> Preprocessing:
    """How raw data become features and targets, before any scaling is fitted; raises as `assemble`
    does.
    """
    return _unscaled(raw, config)[0]


def _unscaled(raw: RawData, config: DataConfig) -> tuple[Preprocessing, str]:
    """As `unscaled`, and why the task is what it is."""
    task, reason = _task(raw, config)
    labels = (raw.class_labels or sorted_labels(raw.y.tolist())) if task == "classification" else ()
    if isinstance(raw.x, np.ndarray):
        columns, shape = (), raw.x.shape[1:]
        names = raw.feature_names or default_feature_names(shape)
    else:
        columns = infer_columns(raw.x) if raw.columns is None else raw.columns
        names = tuple(name for column in columns for name in column.feature_names)
        shape = (len(names),)
    preprocessing = Preprocessing(
        task=task,
        kind="array" if isinstance(raw.x, np.ndarray) else "table",
        columns=columns,
        target=raw.target,
        class_labels=labels,
        input_shape=shape,
        feature_names=names,
        scaling=Scaling.identity(shape),
    )
    return preprocessing, reason


def _task(raw: RawData, config: DataConfig) -> tuple[Task, str]:
    """The task of a target, and why."""
    y = raw.y
    missing = is_missing(y)
    if missing.any():
        raise InvalidData(
            f"target {quoted(raw.target)}: empty or NaN in row {int(np.argmax(missing)) + 1} "
            f"({int(missing.sum())} such values in all), wanted a value in every row; fill them in "
            "or drop the rows"
        )
    distinct = len(set(y.tolist()))
    if config.task != "auto":
        task, reason = config.task, f"data.task={config.task}"
    elif raw.task is not None:
        task, reason = raw.task, "known of this data set"
    else:
        task, reason = infer_task(y)
    if distinct < 2:
        raise InvalidData(
            f"target {quoted(raw.target)} has the one value {quoted(y[0])} in all {len(y)} rows, "
            "wanted at least two; give data with more, or another target with --set "
            "data.target=COLUMN"
        )
    if task == "classification" and distinct > len(y) / 2 and raw.task != "classification":
        raise InvalidData(
            f"target {quoted(raw.target)} has {distinct} distinct values in {len(y)} rows, which "
            "is too many for classes; use --set data.task=regression, or another target with "
            "--set data.target=COLUMN"
        )
    if task != "classification":
        numbers(y, f"target {quoted(raw.target)} of task {task}", booleans=True)
    return task, reason


def infer_task(y: np.ndarray) -> tuple[Task, str]:
    """Return the task of a target without missing values, and why.

    Texts, booleans and integers with few distinct values are classes, and so is a target of 0.0 and
    1.0 alone; other numbers are regression.

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
        distinct <= _MANY_CLASSES and distinct * _ROWS_A_CLASS < len(y)
    )
    reason = f"integers with {distinct} distinct values"
    return ("classification" if few and distinct * 2 <= len(y) else "regression"), reason


def _check_classes(
    preprocessing: Preprocessing, target: np.ndarray, split: SplitIndices, config: DataConfig
) -> None:
    present = set(target[split.train].tolist())
    absent = [
        label for index, label in enumerate(preprocessing.class_labels) if index not in present
    ]
    if absent:
        why = (
            f"data.limit={config.limit} is too small" if config.limit else "the split leaves it out"
        )
        raise InvalidData(
            f"class {quoted(absent[0])} of target {quoted(preprocessing.target)} has no training "
            f"point ({why}); use a larger --set data.limit=N, or another --set data.split_seed=N"
        )
