"""Build the data set of a fit from inputs that scikit-learn has checked.

A data frame is read as `Dataset.from_frame` reads it: its columns get types, and texts, categories,
booleans, dates and missing values become features. An array has numbers, of which some may be NaN.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch

from bnn_symm.data import DataConfig, Dataset, Preprocessing, Provenance, Scaling, Task
from bnn_symm.data.assemble import build_splits
from bnn_symm.data.loaders.tables import chosen_columns, infer_features
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.data.preprocessing.point_columns import PointColumn
from bnn_symm.data.raw import RawData, default_feature_names
from bnn_symm.data.splits import split_points
from bnn_symm.data.weights import check_weight_settings, split_weights
from bnn_symm.errors import ConfigError

if TYPE_CHECKING:
    import pandas

_NAME = "the data given to fit"


def is_table(x: Any) -> bool:
    """Return whether inputs are a data frame of pandas, or of a library that converts to it.

    Args:
        x: inputs of any type.
    """
    return hasattr(x, "columns") and (hasattr(x, "iloc") or hasattr(x, "to_pandas"))


def training_data(
    x: Union["pandas.DataFrame", np.ndarray],
    y: np.ndarray,
    config: DataConfig,
    *,
    task: Task,
    class_labels: tuple[Label, ...],
    target_names: tuple[str, ...],
    feature_names: tuple[str, ...] | None,
    dtype: torch.dtype,
    seed: int,
    weight: np.ndarray | None = None,
) -> Dataset:
    """Return a data set without a test split, standardized on its training split.

    No target is refused: a fold of a cross-validation may have one class only, or a constant
    target.

    Args:
        x: table, or array (point, feature) of numbers that are finite or NaN.
        y: (point,), class indices or numbers; (point, column), numbers of several targets.
        config: policies for columns and missing values, validation_fraction and standardize.
        task: the type of the target.
        class_labels: labels in the order of the indices; empty unless the task is classification.
        target_names: names of the targets.
        feature_names: names of the features of an array; None for x0, x1, ...
        dtype: floating type of the tensors.
        seed: the key of the shuffle that splits the data.
        weight: (point,), numbers of observations for which the points stand; None for one each.

    Returns:
        The data set.

    Raises:
        ConfigError: if a setting of columns is given for an array.
        InvalidData: if there are too few rows for the parts, weights that are all 0, negative
            counts, numbers too large for `dtype`, or a column of a table has no clear type.
    """
    raw = _raw_data(x, y, config, task, target_names, feature_names)
    classes = y if task == "classification" else None
    split_config = DataConfig(
        test_fraction=0.0, validation_fraction=config.validation_fraction, split_seed=seed
    )
    split = split_points(len(y), split_config, classes=classes)
    preprocessing = _unscaled(raw, class_labels, feature_names)
    features = preprocessing.features(raw.x)
    preprocessing, features = preprocessing.with_medians(features, split.train)
    check_weight_settings(config, task)
    weights = split_weights(config, weight, y, split)
    if config.standardize:
        target = y if task == "regression" else None
        names = [column.name for column in raw.target_columns]
        scaling = Scaling.fit(features, split.train, target, weight, names)
        preprocessing = replace(preprocessing, scaling=scaling)
    # A copy: torch does not accept read-only arrays, such as those of memory maps and of pandas.
    target = (
        torch.from_numpy(y.astype(np.int64))
        if classes is not None
        else preprocessing.encode_target(y.copy(), dtype)
    )
    parts = build_splits(preprocessing, features, target, split, weights, dtype)
    return Dataset(
        name=_NAME,
        task=task,
        num_outputs=len(class_labels) or len(target_names),
        preprocessing=preprocessing,
        provenance=Provenance(
            source=raw.source,
            licence=raw.licence,
            sha256=raw.sha256(),
            split_seed=seed,
            split_sha256=split.sha256(),
        ),
        notes=tuple(raw.notes),
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def _raw_data(
    x: Union["pandas.DataFrame", np.ndarray],
    y: np.ndarray,
    config: DataConfig,
    task: Task,
    target_names: tuple[str, ...],
    feature_names: tuple[str, ...] | None,
) -> RawData:
    """Return the data with the types of the columns; an array without gaps has none."""
    notes: Sequence[str] = ()
    if isinstance(x, np.ndarray):
        for setting in ("drop", "types"):
            if getattr(config, setting):
                raise ConfigError(f"config: data.{setting} is for data frames, but X is an array")
        gaps: np.ndarray = np.asarray(np.isnan(x).any(axis=0))
        columns = None
        if gaps.any() or config.unseen == "ignore":
            names = feature_names or default_feature_names((x.shape[1],))
            columns = tuple(
                Column(name=name, kind="number", has_missing=bool(gap))
                for name, gap in zip(names, gaps, strict=True)
            )
    else:
        x = chosen_columns(x, config, _NAME)
        x, columns, notes = infer_features(x, config, source=_NAME)
    if columns is not None and config.unseen == "ignore":
        columns = tuple(replace(column, accepts_unseen=True) for column in columns)
    targets = tuple(PointColumn(role="target", name=name) for name in target_names)
    return RawData(
        x=x,
        y=y,
        target=", ".join(target_names),
        target_columns=targets if y.ndim == 2 else (),
        source=_NAME,
        licence="",
        task=task,
        columns=columns,
        notes=notes,
    )


def _unscaled(
    raw: RawData, class_labels: tuple[Label, ...], feature_names: tuple[str, ...] | None
) -> Preprocessing:
    """Return the encoding with an identity scaling."""
    assert raw.task is not None
    if raw.columns is None:
        names = feature_names or default_feature_names(raw.x.shape[1:])
    else:
        names = tuple(name for column in raw.columns for name in column.feature_names)
    return Preprocessing(
        task=raw.task,
        kind="array" if raw.columns is None else "table",
        columns=raw.columns or (),
        target=raw.target,
        class_labels=class_labels,
        input_shape=(len(names),),
        feature_names=names,
        scaling=Scaling.identity((len(names),), [column.name for column in raw.target_columns]),
        target_columns=raw.target_columns,
    )
