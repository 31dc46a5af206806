"""Events of times and exposures of counts: the units of training, checks and notes.

Both are a second column of the targets of a `Split`. Times are divided by the total time per event,
and exposures by the exposure per count: an output of 0 of the network then stands for the constant
rate that fits the training split best.
"""

from dataclasses import replace

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import RawData
from bnn_symm.errors import InvalidData
from bnn_symm.formatting import number


def joined_values(raw: RawData, role: str) -> np.ndarray | None:
    """Return the numbers (point,) of a column that describes points, those of further files last.

    Args:
        raw: data as a loader read them.
        role: of the column.
    """
    values = raw.point_values.get(role)
    if values is None or not raw.files:
        return values
    return np.concatenate([values, *(file.point_values[role] for file in raw.files)])


def check_events(raw: RawData, train: np.ndarray, weight: np.ndarray | None) -> None:
    """Check that events of the training split were seen.

    Args:
        raw: data as a loader read them.
        train: row indices of the training split.
        weight: (point,), weights of the data.

    Raises:
        InvalidData: if all times are censored.
    """
    event = joined_values(raw, "event")
    if event is None:
        return
    observations = np.ones(len(event)) if weight is None else weight
    if not (event[train] * observations[train]).any():
        column = next(column for column in raw.point_columns if column.role == "event")
        raise InvalidData(
            f"{column.what}: all {len(train)} times of the training split are censored, so nothing "
            "is known of the times of events; check that 1 or true stands for an event, or split "
            f"in another way with {advise_setting('data.split_seed=N')}"
        )


def with_condition_scales(
    scaling: Scaling, raw: RawData, target: np.ndarray, train: np.ndarray, weight: np.ndarray | None
) -> Scaling:
    """Return a scaling with the units of times or exposures.

    Args:
        scaling: of the features.
        raw: data as a loader read them.
        target: (point,), times or counts.
        train: row indices of the training split.
        weight: (point,), weights of the data.
    """

    def total(values: np.ndarray) -> float:
        own = values[train] if weight is None else values[train] * weight[train]
        return float(own.sum())

    exposure = joined_values(raw, "exposure")
    if exposure is not None:
        return replace(scaling, exposure_scale=total(exposure) / max(total(target), 0.5))
    event = joined_values(raw, "event")
    events = total(np.ones(len(target)) if event is None else event)
    return replace(scaling, y_scale=total(target) / events)


def condition_notes(config: DataConfig, raw: RawData, train: np.ndarray) -> list[str]:
    """Return a note on the events of the training split.

    Args:
        config: the configuration of the data.
        raw: data as a loader read them.
        train: row indices of the training split.
    """
    event = joined_values(raw, "event")
    if config.event is None or event is None:
        return []
    seen = int(event[train].sum())
    share = number(100 * (1 - seen / len(train)), 2)
    return [
        f"{seen} of the {len(train)} training points have an event; the other {len(train) - seen} "
        f"({share} %) are censored: their event is known to be later only"
    ]
