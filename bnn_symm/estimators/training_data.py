"""Build the data set of a fit from arrays that scikit-learn has checked."""

import numpy as np
import torch

from bnn_symm.data import DataConfig, Dataset, Preprocessing, Provenance, Scaling, Split, Task
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.data.raw import RawData, default_feature_names
from bnn_symm.data.splits import split_points

_NAME = "the data given to fit"


def training_data(
    x: np.ndarray,
    y: np.ndarray,
    config: DataConfig,
    *,
    task: Task,
    class_labels: tuple[Label, ...],
    feature_names: tuple[str, ...] | None,
    dtype: torch.dtype,
    seed: int,
) -> Dataset:
    """Return a data set without a test split, standardized on its training split.

    No target is refused: a fold of a cross-validation may have one class only, or a constant
    target.

    Args:
        x: (point, feature), finite.
        y: (point,); class indices, or numbers.
        config: its validation_fraction and standardize are used.
        task: the type of the target.
        class_labels: labels in the order of the indices; empty unless the task is classification.
        feature_names: names of the features; None for x0, x1, ...
        dtype: floating type of the tensors.
        seed: the key of the shuffle that splits the data.

    Returns:
        The data set.

    Raises:
        InvalidData: if there are too few rows for the parts, negative counts, or numbers too large
            for `dtype`.
    """
    shape = (x.shape[1],)
    classes = y if task == "classification" else None
    split_config = DataConfig(
        test_fraction=0.0, validation_fraction=config.validation_fraction, split_seed=seed
    )
    split = split_points(len(x), split_config, classes=classes)
    scaling = Scaling.identity(shape)
    if config.standardize:
        scaling = Scaling.fit(x, split.train, y if task == "regression" else None)
    preprocessing = Preprocessing(
        task=task,
        kind="array",
        columns=(),
        target="y",
        class_labels=class_labels,
        input_shape=shape,
        feature_names=feature_names or default_feature_names(shape),
        scaling=scaling,
    )
    # A copy: torch does not accept read-only arrays, such as those of memory maps and of pandas.
    target = (
        torch.from_numpy(y.astype(np.int64))
        if classes is not None
        else preprocessing.encode_target(y.copy(), dtype)
    )

    def part(rows: np.ndarray) -> Split:
        return Split(x=scaling.standardize(x[rows], dtype), y=target[torch.from_numpy(rows)])

    raw = RawData(x=x, y=y, target="y", source=_NAME, licence="", task=task)
    return Dataset(
        name=_NAME,
        task=task,
        num_outputs=len(class_labels) or 1,
        preprocessing=preprocessing,
        provenance=Provenance(
            source=raw.source,
            licence=raw.licence,
            sha256=raw.sha256(),
            split_seed=seed,
            split_sha256=split.sha256(),
        ),
        train=part(split.train),
        validation=part(split.validation),
        test=part(split.test),
    )
