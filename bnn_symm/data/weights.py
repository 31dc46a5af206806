"""Weights of points: the numbers of observations for which they stand, and weights of classes.

A point of weight w counts as w points with the same features and target: its log likelihood is
multiplied by w. The weights of a column apply to all splits, and so to scores as well. Those of
classes apply to the training split alone, because they change what is fitted and not what the data
are.
"""

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.splits import SplitIndices
from bnn_symm.errors import ConfigError, InvalidData
from bnn_symm.formatting import number


def check_weight_settings(config: DataConfig, task: str) -> None:
    """Check the settings of weights.

    Args:
        config: the configuration of the data.
        task: type of the target.

    Raises:
        ConfigError: if a setting has no effect.
    """
    if config.normalize_weights and config.weight is None:
        raise ConfigError(
            "data.normalize_weights normalizes the weights of data.weight, which is not set; name "
            "their column, or remove data.normalize_weights"
        )
    if config.class_weights is not None and task != "classification":
        raise ConfigError(
            f"data.class_weights is for classification, but the data are {task}; remove it, or use "
            f"{advise_setting('data.task=classification')}"
        )


def split_weights(
    config: DataConfig, weight: np.ndarray | None, target: np.ndarray, split: SplitIndices
) -> dict[str, np.ndarray | None]:
    """Return the weights of the points of each split, or None where each point counts once.

    Args:
        config: whether to normalize, and the weights of classes.
        weight: (point,), weights of the data.
        target: (point,), encoded; class indices if classes have weights.
        split: row indices.

    Raises:
        InvalidData: if all training points, or those of a class, have weight zero.
    """
    if weight is not None:
        mean = weight[split.train].mean()
        if not mean > 0:
            raise InvalidData(
                f"all weights of the {len(split.train)} training points are zero; correct the "
                f"column, or choose another {advise_setting('data.weight=COLUMN')}"
            )
        if config.normalize_weights:
            weight = weight / mean
    parts = {
        name: None if weight is None else weight[getattr(split, name)]
        for name in ("train", "validation", "test")
    }
    if config.class_weights is not None:
        own = np.ones(len(split.train)) if weight is None else weight[split.train]
        parts["train"] = own * _balance(own, target[split.train].astype(np.int64))
    return parts


def _balance(weight: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return factors that give all classes one total weight, without changing the sum of all."""
    totals = np.bincount(classes, weights=weight)
    if not totals.all():
        raise InvalidData(
            "data.class_weights=balanced: all training points of a class have weight zero; use "
            "other weights, or remove data.class_weights"
        )
    return (totals.sum() / (len(totals) * totals))[classes]


def weight_notes(config: DataConfig, train: np.ndarray | None) -> list[str]:
    """Return a note on the number of observations that the posterior sees.

    Args:
        config: the configuration of the data.
        train: weights of the training points, or None.
    """
    if train is None or config.weight is None:
        return []
    zero = int((train == 0).sum())
    without = f", {zero} of them with weight zero" if zero else ""
    return [
        f"the {len(train)} training points have weights of {number(float(train.sum()), 6)} in "
        f"total{without}: the posterior counts this many observations"
    ]
