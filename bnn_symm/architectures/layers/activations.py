"""Provide nonlinearities by name, and the thresholded linear unit that FRN needs."""

from collections.abc import Callable
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.config import Activation

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


class ThresholdedLinearUnit(nn.Module):
    """A relu with a learned threshold per channel, TLU.

    ``z = max(y, tau)``

    Filter response normalization does not center its input, so a fixed threshold of zero may cut
    off too much or too little of a channel; `tau` is the learned threshold. It starts at 0, where
    the unit is a relu.

    Args:
        num_channels: Channels of the maps; the shape of `tau`.

    References:
        Singh and Krishnan (2020), Filter Response Normalization Layer, arXiv:1911.09737.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.zeros(num_channels))

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(
        self, y: Float[Tensor, "point channel height width"]
    ) -> Float[Tensor, "point channel height width"]:
        """Return the larger of `y` and `tau`, channel by channel."""
        return torch.maximum(y, self.tau.view(1, -1, 1, 1))


def image_activation(activation: Activation, norm: str, num_channels: int) -> nn.Module:
    """Return the named nonlinearity for maps, but a TLU for relu after `frn`.

    A relu after a TLU would hide every negative threshold, so the TLU replaces it. The smooth
    activations have no threshold, since its kink would defeat their purpose.

    Args:
        activation: Name of the nonlinearity.
        norm: Name of the norm before it.
        num_channels: Channels of the maps.
    """
    if norm == "frn" and activation == "relu":
        return ThresholdedLinearUnit(num_channels)
    return ACTIVATIONS[activation]()
