"""Define the small convolutional network."""

from collections import OrderedDict
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.config import CNNConfig
from bnn_symm.architectures.input_shapes import image_shape
from bnn_symm.architectures.layers.activations import image_activation
from bnn_symm.architectures.layers.dropout import drop_inputs
from bnn_symm.architectures.layers.norms import image_norm

SMALLEST_POOLED = 4
"""Maps smaller than this are not halved: 2x2 is the smallest size that retains positions and that
FRN can normalize."""


class CNN(nn.Module):
    """Blocks of 3x3 convolution, norm, activation and 2x2 average pooling, then a linear layer.

    The last maps are flattened, not averaged: in small images of digits or clothes the position of
    a feature matters. Pooling averages because a mean is smooth in the weights; a maximum has kinks
    that lower the acceptance rate of HMC.

    Parameters are `blocks.0.conv.weight`, `blocks.0.conv.bias`, (`blocks.0.norm.*`,
    `blocks.0.activation.tau`), ..., `head.weight`, `head.bias`.

    Args:
        input_shape: (channel, height, width) of an image.
        num_outputs: Length of the output.
        config: Channels of each block, activation, norm and dropout.
    """

    def __init__(
        self, input_shape: tuple[int, int, int], num_outputs: int, config: CNNConfig
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        blocks: list[nn.Module] = []
        for new_channels in config.widths:
            block = OrderedDict[str, nn.Module](
                conv=nn.Conv2d(channels, new_channels, kernel_size=3, padding=1),
                norm=image_norm(config.norm, new_channels),
                activation=image_activation(config.activation, config.norm, new_channels),
            )
            if min(height, width) >= SMALLEST_POOLED:
                block["pool"] = nn.AvgPool2d(2)
                height, width = height // 2, width // 2
            blocks.append(nn.Sequential(block))
            channels = new_channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels * height * width, num_outputs)
        for layer in [*(block.get_submodule("conv") for block in blocks), self.head][1:]:
            drop_inputs(layer, config.dropout)

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(
        self, x: Float[Tensor, "point channel height width"]
    ) -> Float[Tensor, "point output"]:
        """Return the outputs of each point."""
        return self.head(self.blocks(x).flatten(1))


def build_cnn(config: CNNConfig, input_shape: tuple[int, ...], num_outputs: int) -> CNN:
    """Build a CNN for images.

    Args:
        config: Settings of the network.
        input_shape: (channel, height, width) of an image.
        num_outputs: Length of the output.

    Raises:
        ConfigError: If a point is not an image.
    """
    return CNN(image_shape(config.name, input_shape), num_outputs, config)
