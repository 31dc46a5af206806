"""Define the fully connected network."""

import math
from itertools import pairwise
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.config import GNNConfig, MLPConfig
from bnn_symm.architectures.layers.activations import ACTIVATIONS
from bnn_symm.architectures.layers.dropout import drop_inputs

_NORMS = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}


class MLP(nn.Module):
    """A fully connected network; without hidden layers, a linear model.

    ``h_0 = flatten(x);  h_l = activation(norm(W_l h_{l-1} + b_l));  output = W h_L + b``

    Parameters are `layers.0.weight`, `layers.0.bias`, (`norms.0.weight`, `norms.0.bias`), ...,
    `head.weight`, `head.bias`.

    Args:
        num_features: Length of a flattened point.
        num_outputs: Length of the output.
        config: Widths, activation, norm and dropout.
    """

    def __init__(self, num_features: int, num_outputs: int, config: MLPConfig | GNNConfig) -> None:
        super().__init__()
        sizes = (num_features, *config.widths)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.norms = nn.ModuleList(
            _NORMS.get(config.norm, nn.Identity)(width) for width in config.widths
        )
        # One per layer, although they hold nothing: FiGLU, which may replace them, has a width.
        self.activations = nn.ModuleList(ACTIVATIONS[config.activation]() for _ in config.widths)
        self.head = nn.Linear(sizes[-1], num_outputs)
        for layer in [*self.layers, self.head][1:]:
            drop_inputs(layer, config.dropout)

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, x: Float[Tensor, "point *input"]) -> Float[Tensor, "point output"]:
        """Return the outputs of each point."""
        hidden = x.flatten(1)
        for module in self.in_order():
            hidden = module(hidden)
        return hidden

    def in_order(self) -> list[nn.Module]:
        """Return the modules in the order in which they are applied to the flattened input."""
        hidden = zip(self.layers, self.norms, self.activations, strict=True)
        return [*(module for modules in hidden for module in modules), self.head]


def build_mlp(config: MLPConfig, input_shape: tuple[int, ...], num_outputs: int) -> MLP:
    """Build an MLP for points of any shape, which it flattens.

    Args:
        config: Settings of the network.
        input_shape: Shape of one point.
        num_outputs: Length of the output.
    """
    return MLP(math.prod(input_shape), num_outputs, config)
