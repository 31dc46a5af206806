"""Normalize one point at a time.

Statistics over a batch are excluded: with them the likelihood of one point depends on the others,
so the likelihood no longer factorizes, and neither a posterior nor its minibatch estimate is well
defined. `modules.batch_norm` replaces the batch norm that `image_norm` returns.
"""

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FilterResponseNorm(nn.Module):
    """Filter response normalization, FRN: divide each channel of a point by its root mean square.

    ``y = gamma x / sqrt(mean(x^2 over height, width) + eps) + beta``

    gamma is `weight` and beta is `bias`. The threshold that follows it is a separate layer,
    `activations.ThresholdedLinearUnit`, since a residual block adds its shortcut between the two.
    On maps of 1x1 the norm retains little more than the sign of x.

    Args:
        num_channels: Channels of the maps; the shape of `weight` and `bias`.
        eps: Keeps an all-zero map finite; 1e-6 is the paper's value for maps larger than 1x1.

    References:
        Singh and Krishnan (2020), Filter Response Normalization Layer, arXiv:1911.09737.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(
        self, x: Float[Tensor, "point channel height width"]
    ) -> Float[Tensor, "point channel height width"]:
        """Return the normalized maps, of the same shape."""
        mean_square = x.square().mean(dim=(2, 3), keepdim=True)
        scaled = x * torch.rsqrt(mean_square + self.eps)
        return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def image_norm(norm: str, num_channels: int) -> nn.Module:
    """Return the norm for maps: `none`, `layer`, `frn` or `batch`.

    `layer` is GroupNorm with one group: mean and variance over channels, height and width of one
    point, then a scale and an offset per channel. It commutes with permutations of the channels, as
    LayerNorm does (Ba et al., 2016, arXiv:1607.06450; Wu and He, 2018, arXiv:1803.08494).

    Args:
        norm: Name of the norm.
        num_channels: Channels of the maps.
    """
    if norm == "frn":
        return FilterResponseNorm(num_channels)
    if norm == "layer":
        return nn.GroupNorm(1, num_channels)
    if norm == "batch":
        return nn.BatchNorm2d(num_channels)
    return nn.Identity()
