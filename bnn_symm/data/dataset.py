"""The data as every later layer sees them: three parts, and how they were made."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.data.preprocessing.preprocessing import Preprocessing
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import Task

__all__ = ["Dataset", "Preprocessing", "Provenance", "Scaling", "Split", "Task"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Points of one part.

    Args:
        x: standardized features, one point a row.
        y: class indices (int64), a standardized target (regression), or raw counts in floating
            point.
    """

    x: Float[Tensor, "point *feature"]
    y: Shaped[Tensor, "point"]

    def __len__(self) -> int:
        return len(self.x)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Split":
        """The part on a device; `dtype` is for floating tensors, class indices stay int64."""
        y_dtype = dtype if self.y.is_floating_point() else None
        return replace(
            self, x=self.x.to(device=device, dtype=dtype), y=self.y.to(device=device, dtype=y_dtype)
        )

    def take(self, indices: Any) -> "Split":
        """The points at `indices` (or a mask, or a slice), in that order."""
        if isinstance(indices, np.ndarray | list):
            indices = torch.as_tensor(indices, device=self.x.device)
            indices = indices if indices.dtype == torch.bool else indices.long()
        return replace(self, x=self.x[indices], y=self.y[indices])


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where data come from.

    Args:
        source: in words, or the name of the file.
        licence: of the data.
        sha256: of the decoded features, then target; the same for every container of the same
            values.
        split_seed: key of the shuffle behind the split.
        split_sha256: of the rows of the three parts; None in runs of versions that did not record
            it.
    """

    source: str
    licence: str
    sha256: str
    split_seed: int
    split_sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The provenance as JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Training, validation and test points of one task.

    Args:
        name: as it was asked for.
        task: what the target is.
        train: what a method fits.
        validation: early stopping, tuning and progress; empty at `validation_fraction: 0`.
        test: for the final metrics only; empty at `test_fraction: 0`.
        num_outputs: the number of classes, or 1.
        preprocessing: turns other raw data into the same features.
        provenance: where the data come from.
        summary: one line about what was read: the task and why, rows, features, encoded columns.
        notes: sentences about what a person may not expect of it.
    """

    name: str
    task: Task
    train: Split
    validation: Split
    test: Split
    num_outputs: int
    preprocessing: Preprocessing
    provenance: Provenance
    summary: str = ""
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one point's features."""
        return self.preprocessing.input_shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the encoded features, flat."""
        return self.preprocessing.feature_names

    @property
    def class_labels(self) -> tuple[Label, ...]:
        """The labels in the order of the class indices; empty unless the task is classification."""
        return self.preprocessing.class_labels

    @property
    def scaling(self) -> Scaling:
        """How features and target were standardized."""
        return self.preprocessing.scaling

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Dataset":
        """The data set with its three parts on a device and in a floating type."""
        parts = {
            name: getattr(self, name).to(device, dtype) for name in ("train", "validation", "test")
        }
        return replace(self, **parts)
