"""Normalize channels by constants: batch norm whose running statistics are frozen."""

from typing import no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class FrozenBatchNorm(nn.Module):
    """Batch normalization by constant statistics, in training mode as well.

    ``y = weight (x - running_mean) / sqrt(running_var + eps) + bias``, channel by channel

    The output of a point depends on this point only, so the likelihood factorizes. `weight` and
    `bias` are parameters. The statistics are buffers: constants of the function, which belong to
    the units of their layer and move with them. Names are those of `torch.nn.BatchNorm2d`, so
    state dicts fit.

    Args:
        num_channels: Length of axis 1 of the inputs.
        eps: Added to the variance.
        affine: Whether there are `weight` and `bias`.

    Attributes:
        unit_statistics: Names of the buffers that hold one entry per unit; `symmetry_group` reads
            it with `move_statistics`.

    References:
        Ioffe and Szegedy (2015), Batch Normalization, arXiv:1502.03167, algorithm 2: the network
        for inference.

    Example:
        >>> norm = FrozenBatchNorm(2)
        >>> norm.running_mean += 1
        >>> norm(torch.ones(1, 2)).tolist()
        [[0.0, 0.0]]
    """

    unit_statistics = ("running_mean", "running_var")

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, eps: float = 1e-5, *, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    @property
    def is_untrained(self) -> bool:
        """Return whether the statistics are still those of a new layer: mean 0, variance 1."""
        return not bool(self.running_mean.any()) and bool((self.running_var == 1).all())

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, x: Float[Tensor, "point channel *position"]) -> Float[Tensor, "..."]:
        """Return the normalized values, of the same shape."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def extra_repr(self) -> str:
        """Return the sizes that its representation shows."""
        return f"{len(self.running_mean)}, eps={self.eps}, affine={self.weight is not None}"
