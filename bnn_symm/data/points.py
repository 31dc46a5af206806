"""Points of one split of a data set, and the origin of all of them."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.summaries import Result, Summarized


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Split(Summarized):
    """Points of one split: train, validation or test.

    Args:
        x: standardized features, one point per row, or tokens (int64).
        y: class indices (int64), a standardized target (regression), several of them (point,
            column), raw counts in floating point, (count, exposure) of each point, or (time, event)
            with event 1 if the event was seen and 0 if the time is censored.
        weight: numbers of observations for which the points stand; None if each stands for one.
    """

    x: Shaped[Tensor, "point *feature"]
    y: Shaped[Tensor, "point *column"]
    weight: Float[Tensor, "point"] | None = None

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"x": tuple(self.x.shape), "y": tuple(self.y.shape)}

    def __len__(self) -> int:
        return len(self.x)

    @cached_property
    def targets(self) -> Shaped[Tensor, "point *column"]:
        """Return what the log likelihood of a model reads: y, with the weights as a last column."""
        if self.weight is None:
            return self.y
        y = self.y if self.y.dim() == 2 else self.y[:, None]
        return torch.cat([y.to(self.weight.dtype), self.weight[:, None]], dim=1)

    def column(self, number: int) -> "Split":
        """Return the points with one of the columns of `y`; themselves if there is one.

        Args:
            number: number of the column.
        """
        return self if self.y.dim() == 1 else replace(self, y=self.y[:, number])

    @property
    def observations(self) -> Float[Tensor, "point"]:
        """Return the weights in float64; ones if each point stands for one observation."""
        if self.weight is None:
            return torch.ones(len(self), dtype=torch.float64, device=self.x.device)
        return self.weight.double()

    @property
    def num_observations(self) -> float:
        """Return the number of observations: the sum of the weights, or the number of points."""
        return float(self.observations.sum())

    def total(self, values: Shaped[Tensor, "point"]) -> float:
        """Return the sum of one value for each point, times its weight.

        Args:
            values: one value for each point.
        """
        weight = self.observations.to(values.device)
        # An infinite value of a point of weight zero does not count.
        return float(torch.where(weight > 0, weight * values.double(), 0.0).sum())

    def mean(self, values: Shaped[Tensor, "point"]) -> float:
        """Return the mean of one value for each point, weighted; NaN if all weights are zero.

        Args:
            values: one value for each point.
        """
        number = self.num_observations
        return self.total(values) / number if number else math.nan

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Split":
        """Return the split on a device.

        Args:
            device: device of the result; None keeps it.
            dtype: type of floating-point tensors; class indices and tokens stay int64.
        """
        return replace(
            self,
            x=_to(self.x, device, dtype),
            y=_to(self.y, device, dtype),
            weight=None if self.weight is None else _to(self.weight, device, dtype),
        )

    def take(self, indices: Any) -> "Split":
        """Return the points at `indices`, in that order.

        Args:
            indices: row indices, a Boolean mask or a slice.
        """
        if isinstance(indices, np.ndarray | list):
            indices = torch.as_tensor(indices, device=self.x.device)
            indices = indices if indices.dtype == torch.bool else indices.long()
        weight = None if self.weight is None else self.weight[indices]
        return replace(self, x=self.x[indices], y=self.y[indices], weight=weight)


def _to(tensor: Tensor, device: str | torch.device | None, dtype: torch.dtype | None) -> Tensor:
    """Return a tensor on a device, in a type if it has floating-point numbers."""
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


def rates(part: Split) -> Float[Tensor, "point"]:
    """Return targets, and counts divided by their scaled exposures if they have them.

    Args:
        part: points with one target that is no time.
    """
    return part.y if part.y.dim() == 1 else part.y[:, 0] / part.y[:, 1]


@dataclass(frozen=True, kw_only=True)
class Provenance(Result):
    """Origin of a data set.

    Args:
        source: description of the source, or name of the file.
        licence: license of the data.
        sha256: hash of the decoded features, then target; it does not depend on the file format.
        split_seed: seed of the shuffle behind the split.
        split_sha256: hash of the row indices of the three splits; None in runs of earlier versions.
        split_rule: a phrase on how the splits were chosen; empty in runs of earlier versions.
    """

    source: str
    licence: str
    sha256: str
    split_seed: int
    split_sha256: str | None = None
    split_rule: str = ""
