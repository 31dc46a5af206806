"""Assembly of a `Dataset` from raw data: task, encoding, split and scaling.

The scaling is fitted to the training split alone.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bnn_symm.advice import advise_setting
from bnn_symm.data.conditions import (
    check_events,
    condition_notes,
    joined_values,
    with_condition_scales,
)
from bnn_symm.data.config import DataConfig
from bnn_symm.data.leakage import repeated_point_notes, suspect_notes
from bnn_symm.data.points import Provenance, Split
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import Label, label_indices, sorted_labels
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import RawData, SplitFile, default_feature_names
from bnn_symm.data.splits import OwnSplit, SplitIndices, split_points
from bnn_symm.data.splits.settings import check_split_settings
from bnn_symm.data.summary import data_notes, data_summary
from bnn_symm.data.task import task_of
from bnn_symm.data.weights import check_weight_settings, split_weights, weight_notes
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line
from bnn_symm.io.boundary import shown

_OWN_TEST = "the test split of the data set"
_OWN_VALIDATION = "the validation split of the data set"
SPLIT_NAMES = ("train", "validation", "test")


Built = TypeVar("Built")


def assemble(
    build: Callable[..., Built],
    raw: RawData,
    config: DataConfig,
    dtype: torch.dtype,
    directory: Path | None = None,
) -> Built:
    """Return the data set that a configuration describes.

    Args:
        build: the class of the data set, called with its attributes.
        raw: data as a loader read them.
        config: target, task, split and standardization.
        dtype: floating-point type of the features and of a numeric target.
        directory: where the features are stored; None for memory.

    Raises:
        InvalidData: if the target does not fit the task, rows are too few, or a class has no
            training point.
        ConfigError: if the data have no such target or gap feature.
    """
    check_split_settings(config)
    preprocessing, reason = _build_preprocessing(raw, config)
    check_weight_settings(config, preprocessing.task)
    features = _encode_features(raw, preprocessing)
    target = _encode_target(raw, preprocessing, torch.float64).numpy()
    split = split_raw_data(raw, config, preprocessing, features, target)
    preprocessing, features = preprocessing.with_medians(features, split.train)
    if preprocessing.task == "classification":
        _check_classes(preprocessing, target, split, config)
    weight = joined_values(raw, "weight")
    weights = split_weights(config, weight, target, split)
    check_events(raw, split.train, weight)
    regression = preprocessing.task == "regression"
    has_condition = preprocessing.task == "survival" or config.exposure is not None
    if config.standardize:
        names = [column.name for column in raw.target_columns]
        scaling = Scaling.fit(features, split.train, target if regression else None, weight, names)
        if has_condition:
            scaling = with_condition_scales(scaling, raw, target, split.train, weight)
        preprocessing = preprocessing.with_scaling(scaling)
    y = _encode_targets(raw, preprocessing, dtype)

    parts = build_splits(preprocessing, features, y, split, weights, dtype, directory)
    graph = raw.graph and raw.graph.build(dtype, standardize=config.standardize)
    is_inferred = config.task == "auto" and raw.task is None
    notes = [
        *raw.notes,
        *data_notes(preprocessing, raw.y, len(split.train), is_task_inferred=is_inferred),
        *weight_notes(config, weights["train"]),
        *condition_notes(config, raw, split.train),
        *repeated_point_notes(parts["train"], parts["test"]),
        *suspect_notes(
            parts["train"].column(0) if has_condition else parts["train"],
            preprocessing.feature_names,
            is_classification=preprocessing.task == "classification",
        ),
    ]
    return build(
        name=config.name,
        task=preprocessing.task,
        num_outputs=len(preprocessing.class_labels) or len(raw.target_columns) or 1,
        preprocessing=preprocessing,
        provenance=Provenance(
            source=raw.source,
            licence=raw.licence,
            sha256=_sha256(raw, features, target),
            split_seed=config.split_seed,
            split_sha256=split.sha256(),
            split_rule=split.rule,
        ),
        graph=graph,
        summary=data_summary(
            preprocessing, reason, {name: len(part) for name, part in parts.items()}, graph
        ),
        notes=tuple(one_line(note) for note in notes),
        **parts,
    )


def build_splits(
    preprocessing: Preprocessing,
    features: np.ndarray,
    y: Tensor,
    split: SplitIndices,
    weights: Mapping[str, np.ndarray | None],
    dtype: torch.dtype,
    directory: Path | None = None,
) -> dict[str, Split]:
    """Return the standardized points of train, validation and test, by name.

    Args:
        preprocessing: the standardization.
        features: (point, *feature), encoded and not standardized.
        y: (point,) or (point, column), encoded.
        split: row indices of the splits.
        weights: weights of the points of each split, or None.
        dtype: floating-point type of the features and weights.
        directory: where the features are stored; None for memory.
    """
    parts = {}
    for name in SPLIT_NAMES:
        rows, weight = getattr(split, name), weights[name]
        parts[name] = Split(
            x=preprocessing.standardize(features, dtype, rows, directory and directory / name),
            y=y[torch.from_numpy(rows)],
            weight=None if weight is None else torch.from_numpy(weight).to(dtype),
        )
    return parts


def _encode_features(raw: RawData, preprocessing: Preprocessing) -> np.ndarray:
    """Return the features of all points, those of further files last, before standardization."""
    features = [preprocessing.features(raw.x)]
    for file in raw.files:
        with _errors_of(file):
            features.append(preprocessing.features(file.x))
    return np.concatenate(features) if raw.files else features[0]


def _encode_target(raw: RawData, preprocessing: Preprocessing, dtype: torch.dtype) -> Tensor:
    """Return the target of all points without events and exposures, those of further files last."""
    targets = [preprocessing.encode_target(raw.y, dtype)]
    for file in raw.files:
        with _errors_of(file):
            targets.append(preprocessing.encode_target(file.y, dtype))
    return torch.cat(targets) if raw.files else targets[0]


def _encode_targets(raw: RawData, preprocessing: Preprocessing, dtype: torch.dtype) -> Tensor:
    """Return `y` of all points, those of further files last."""
    targets = [preprocessing.encode_targets(raw.y, raw.point_values, dtype)]
    for file in raw.files:
        with _errors_of(file):
            targets.append(preprocessing.encode_targets(file.y, file.point_values, dtype))
    return torch.cat(targets) if raw.files else targets[0]


@contextlib.contextmanager
def _errors_of(file: SplitFile) -> Iterator[None]:
    """Name the file in errors about its values, which the columns of the training data encode."""
    try:
        yield
    except InvalidData as error:
        raise InvalidData(
            f"data.{file.part}_file: {shown(file.name)} does not fit the training data: {error}"
        ) from None


def _sha256(raw: RawData, features: np.ndarray, target: np.ndarray) -> str:
    """Return the hash of the values: as decoded, and of further files as encoded."""
    if not raw.files:
        return raw.sha256()
    digest = hashlib.sha256(raw.sha256().encode())
    further = [file.point_values[role] for file in raw.files for role in file.point_values]
    for values in (features[len(raw.y) :], target[len(raw.y) :], *further):
        digest.update(np.ascontiguousarray(values, dtype="<f8").data)
    return digest.hexdigest()


def _own_split(raw: RawData) -> OwnSplit:
    """Return the splits that the data define."""
    if not raw.files:
        return OwnSplit(
            train=raw.train,
            test=raw.test,
            validation=raw.validation,
            test_name=raw.split_name or _OWN_TEST,
            validation_name="" if raw.validation is None else _OWN_VALIDATION,
        )
    parts: dict[str, Any] = {}
    start = len(raw.y)
    for file in raw.files:
        parts[file.part] = np.arange(start, start := start + len(file.y))
        parts[f"{file.part}_name"] = f"the rows of {shown(file.name)}"
    return OwnSplit(**parts)


def split_raw_data(
    raw: RawData,
    config: DataConfig,
    preprocessing: Preprocessing,
    features: np.ndarray,
    target: np.ndarray,
) -> SplitIndices:
    """Return the row indices of the splits of raw data.

    The data set's own train and test rows are used if it has them. Other splits are by the groups
    or the times of the data, or random; those of random rules are keyed by the seed, and stratified
    for classification.

    Args:
        raw: data as a loader read them.
        config: fractions, seed, limit, fold and gap feature.
        preprocessing: encoding of the data.
        features: (point, *feature), encoded.
        target: (point,) or (point, column), encoded.

    Raises:
        ConfigError: if the gap feature does not exist or the task is classification.
        InvalidData: if there are too few rows.
    """
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
        len(target),
        config,
        classes=target if preprocessing.task == "classification" else None,
        own=_own_split(raw),
        gap_values=gap_values,
        groups=raw.groups,
        times=raw.times,
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
    task, reason = task_of(raw, config)
    labels = (raw.class_labels or sorted_labels(raw.y.tolist())) if task == "classification" else ()
    if config.levels is not None:
        labels = _ordered(labels, config.levels, raw.target)
    if isinstance(raw.x, np.ndarray):
        kind = "nodes" if raw.graph else "tokens" if config.layout == "tokens" else "array"
        columns, shape = (), raw.x.shape[1:]
        names = raw.feature_names or default_feature_names(shape)
    else:
        kind = "table"
        columns = raw.columns or tuple(Column(name=str(name), kind="number") for name in raw.x)
        if config.unseen == "ignore":
            columns = tuple(replace(column, accepts_unseen=True) for column in columns)
        names = tuple(name for column in columns for name in column.feature_names)
        shape = (len(names),)
    preprocessing = Preprocessing(
        task=task,
        kind=kind,
        columns=columns,
        target=raw.target,
        class_labels=labels,
        input_shape=shape,
        feature_names=names,
        scaling=Scaling.identity(shape, [column.name for column in raw.target_columns]),
        target_notation=raw.target_notation,
        target_columns=raw.target_columns,
        delimiter=config.delimiter,
        point_columns=raw.point_columns,
    )
    return preprocessing, reason


def _ordered(labels: Sequence[Label], levels: Sequence[Label], target: str) -> tuple[Label, ...]:
    """Return the class labels of a target in the order of its declared levels."""
    places = label_indices(np.array(levels, dtype=object), labels)
    absent = [level for level, place in zip(levels, places, strict=True) if place < 0]
    if absent:
        raise InvalidData(
            f"data.levels lists {quoted(absent[0])}, which target {quoted(target)} does not have: "
            f"it has {short_list(map(quoted, labels), 10, 80)}; list these"
        )
    missing = [label for i, label in enumerate(labels) if i not in places]
    if missing:
        raise InvalidData(
            f"target {quoted(target)} has the class {quoted(missing[0])}, which data.levels does "
            f"not list; add it at its place among {short_list(map(quoted, levels), 10, 80)}"
        )
    return tuple(labels[place] for place in places)


def _check_classes(
    preprocessing: Preprocessing, target: np.ndarray, split: SplitIndices, config: DataConfig
) -> None:
    present = set(target[split.train].tolist())
    absent = [
        label for index, label in enumerate(preprocessing.class_labels) if index not in present
    ]
    if not absent:
        return
    problem = (
        f"class {quoted(absent[0])} of target {quoted(preprocessing.target)} has no training point"
    )
    if config.limit:
        raise InvalidData(
            f"{problem} (data.limit={config.limit} is too small); use a larger "
            f"{advise_setting('data.limit=N')}, or another {advise_setting('data.split_seed=N')}"
        )
    raise InvalidData(
        f"{problem} ({split.rule}); merge or leave out rare classes, or split in another way"
    )
