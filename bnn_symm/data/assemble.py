"""Assembly of a `Dataset` from raw data: task, encoding, split and scaling.

The scaling is fitted to the training split alone.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.points import Provenance, Split
from bnn_symm.data.preprocessing.column_values import is_missing, numbers
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import sorted_labels
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import RawData, Task, default_feature_names
from bnn_symm.data.splits import SplitIndices, split_points
from bnn_symm.data.summary import data_notes, data_summary
from bnn_symm.data.weights import check_weight_settings, split_weights, weight_notes
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line

SPLIT_NAMES = ("train", "validation", "test")

# An integer target is inferred as classes if it has at most _FEW_CLASSES distinct values, or at
# most _MAX_CLASSES with more than _ROWS_PER_CLASS rows for each.
_MAX_CLASSES, _ROWS_PER_CLASS = 20, 20
_FEW_CLASSES = 10


Built = TypeVar("Built")


def assemble(
    build: Callable[..., Built], raw: RawData, config: DataConfig, dtype: torch.dtype
) -> Built:
    """Return the data set that a configuration describes.

    Args:
        build: the class of the data set, called with its attributes.
        raw: data as a loader read them.
        config: target, task, split and standardization.
        dtype: floating-point type of the features and of a numeric target.

    Raises:
        InvalidData: if the target does not fit the task, rows are too few, or a class has no
            training point.
        ConfigError: if the data have no such target or gap feature.
    """
    preprocessing, reason = _build_preprocessing(raw, config)
    check_weight_settings(config, preprocessing.task)
    features = preprocessing.features(raw.x)
    target = preprocessing.encode_target(raw.y, torch.float64).numpy()
    split = split_raw_data(raw, config, preprocessing, features, target)
    preprocessing, features = preprocessing.with_medians(features, split.train)
    if preprocessing.task == "classification":
        _check_classes(preprocessing, target, split, config)
    weights = split_weights(config, raw.point_values.get("weight"), target, split)
    regression = preprocessing.task == "regression"
    if config.standardize:
        scaling = Scaling.fit(
            features, split.train, target if regression else None, raw.point_values.get("weight")
        )
        preprocessing = replace(preprocessing, scaling=scaling)
    parts = {
        name: build_split(
            preprocessing, features, raw.y, getattr(split, name), dtype, weights[name]
        )
        for name in SPLIT_NAMES
    }
    is_inferred = config.task == "auto" and raw.task is None
    notes = [
        *raw.notes,
        *data_notes(preprocessing, raw.y, len(split.train), is_task_inferred=is_inferred),
        *weight_notes(config, weights["train"]),
    ]
    return build(
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


def build_split(
    preprocessing: Preprocessing,
    features: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    dtype: torch.dtype,
    weight: np.ndarray | None = None,
) -> Split:
    """Return the standardized points at `rows` of encoded features and a raw target.

    Args:
        preprocessing: encoding of the target and scaling.
        features: (point, *feature), encoded and not standardized.
        y: (point,), raw target.
        rows: row indices of the split.
        dtype: floating-point type of the result.
        weight: weights of these rows; None if each counts once.
    """
    return Split(
        x=preprocessing.scaling.standardize(features[rows], dtype),
        y=preprocessing.encode_target(y, dtype)[torch.from_numpy(rows)],
        weight=None if weight is None else torch.from_numpy(weight).to(dtype),
    )


def split_raw_data(
    raw: RawData,
    config: DataConfig,
    preprocessing: Preprocessing,
    features: np.ndarray,
    target: np.ndarray,
) -> SplitIndices:
    """Return the row indices of the splits of raw data.

    The data set's own train and test rows are used if it has them. Other splits are random, keyed
    by the seed, and stratified for classification.

    Args:
        raw: data as a loader read them.
        config: fractions, seed, limit and gap feature.
        preprocessing: encoding of the data.
        features: (point, *feature), encoded.
        target: (point,), encoded.

    Raises:
        ConfigError: if the gap feature does not exist or the task is classification.
        InvalidData: if there are too few rows.
    """
    fixed = (raw.train, raw.test) if raw.train is not None and raw.test is not None else None
    gap_values = None
    if config.gap_feature is not None:
        if preprocessing.task == "classification":
            raise ConfigError(
                f"data.gap_feature is for regression, but target {quoted(raw.target)} is read as "
                f"classification; remove it, or use {advise_setting('data.task=regression')}"
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
        if np.isnan(gap_values).any():
            raise InvalidData(
                f"data.gap_feature: {quoted(config.gap_feature)} has missing values; choose "
                "another feature, or drop the rows"
            )
    return split_points(
        len(raw.y),
        config,
        classes=target if preprocessing.task == "classification" else None,
        fixed=fixed,
        gap_values=gap_values,
    )


def build_preprocessing(raw: RawData, config: DataConfig) -> Preprocessing:
    """Return the encoding of raw data, with an identity scaling.

    Args:
        raw: data as a loader read them.
        config: target and task.

    Raises:
        InvalidData: as `assemble` does.
    """
    return _build_preprocessing(raw, config)[0]


def _build_preprocessing(raw: RawData, config: DataConfig) -> tuple[Preprocessing, str]:
    """Return the encoding of raw data, and the reason for its task."""
    task, reason = _task(raw, config)
    labels = (raw.class_labels or sorted_labels(raw.y.tolist())) if task == "classification" else ()
    if isinstance(raw.x, np.ndarray):
        columns, shape = (), raw.x.shape[1:]
        names = raw.feature_names or default_feature_names(shape)
    else:
        columns = raw.columns or tuple(Column(name=str(name), kind="number") for name in raw.x)
        if config.unseen == "ignore":
            columns = tuple(replace(column, accepts_unseen=True) for column in columns)
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
        target_notation=raw.target_notation,
        delimiter=config.delimiter,
        point_columns=raw.point_columns,
    )
    return preprocessing, reason


def _task(raw: RawData, config: DataConfig) -> tuple[Task, str]:
    """Return the task of a target and the reason for it."""
    y = raw.y
    missing = is_missing(y)
    if missing.any():
        raise InvalidData(
            f"target {quoted(raw.target)}: missing value in row {int(np.argmax(missing)) + 1} "
            f"({int(missing.sum())} missing in total); fill in the values or drop the rows"
        )
    distinct = len(set(y.tolist()))
    if config.task != "auto":
        task, reason = config.task, f"data.task={config.task}"
    elif raw.task is not None:
        task, reason = raw.task, "defined by this data set"
    else:
        task, reason = infer_task(y)
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


def _check_classes(
    preprocessing: Preprocessing, target: np.ndarray, split: SplitIndices, config: DataConfig
) -> None:
    present = set(target[split.train].tolist())
    absent = [
        label for index, label in enumerate(preprocessing.class_labels) if index not in present
    ]
    if absent:
        cause = f"data.limit={config.limit} is too small" if config.limit else "the split omits it"
        raise InvalidData(
            f"class {quoted(absent[0])} of target {quoted(preprocessing.target)} has no training "
            f"point ({cause}); use a larger {advise_setting('data.limit=N')}, or another "
            f"{advise_setting('data.split_seed=N')}"
        )
