"""Points of one split of a data set, and the origin of all of them."""

from dataclasses import dataclass, replace
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
        x: standardized features, one point per row.
        y: class indices (int64), a standardized target (regression), or raw counts in floating
            point.
    """

    x: Float[Tensor, "point *feature"]
    y: Shaped[Tensor, "point"]

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"x": tuple(self.x.shape), "y": tuple(self.y.shape)}

    def __len__(self) -> int:
        return len(self.x)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Split":
        """Return the split on a device.

        Args:
            device: device of the result; None keeps it.
            dtype: type of floating-point tensors; class indices stay int64.
        """
        y_dtype = dtype if self.y.is_floating_point() else None
        return replace(
            self, x=self.x.to(device=device, dtype=dtype), y=self.y.to(device=device, dtype=y_dtype)
        )

    def take(self, indices: Any) -> "Split":
        """Return the points at `indices`, in that order.

        Args:
            indices: row indices, a Boolean mask or a slice.
        """
        if isinstance(indices, np.ndarray | list):
            indices = torch.as_tensor(indices, device=self.x.device)
            indices = indices if indices.dtype == torch.bool else indices.long()
        return replace(self, x=self.x[indices], y=self.y[indices])


@dataclass(frozen=True, kw_only=True)
class Provenance(Result):
    """Origin of a data set.

    Args:
        source: description of the source, or name of the file.
        licence: license of the data.
        sha256: hash of the decoded features, then target; it does not depend on the file format.
        split_seed: seed of the shuffle behind the split.
        split_sha256: hash of the row indices of the three splits; None in runs of earlier versions.
    """

    source: str
    licence: str
    sha256: str
    split_seed: int
    split_sha256: str | None = None
