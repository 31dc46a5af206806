"""Define the residual network for small images."""

from collections import OrderedDict
from typing import no_type_check

from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.config import ResNetConfig
from bnn_symm.architectures.input_shapes import image_shape
from bnn_symm.architectures.layers.activations import image_activation
from bnn_symm.architectures.layers.dropout import drop_inputs
from bnn_symm.architectures.layers.norms import image_norm

STAGE_CHANNELS = (16, 32, 64)
"""Channels of the three stages at width_multiplier 1 (He et al., 2016, section 4.2)."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    ``output = activation2(norm2(conv2(activation1(norm1(conv1(x))))) + shortcut(x))``

    The shortcut is the identity, or a 1x1 convolution and a norm where channels or resolution
    change ("option B").

    Args:
        channels: Channels of the input.
        new_channels: Channels of the output.
        stride: 1, or 2 to halve height and width.
        config: Activation, norm and dropout.
    """

    def __init__(self, channels: int, new_channels: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        # Convolutions before a norm have no biases, as in the paper: the norm has an offset per
        # channel.
        self.conv1 = nn.Conv2d(
            channels, new_channels, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.norm1 = image_norm(config.norm, new_channels)
        self.activation1 = image_activation(config.activation, config.norm, new_channels)
        self.conv2 = nn.Conv2d(new_channels, new_channels, kernel_size=3, padding=1, bias=False)
        drop_inputs(self.conv2, config.dropout)
        self.norm2 = image_norm(config.norm, new_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != new_channels:
            self.shortcut = nn.Sequential(
                OrderedDict[str, nn.Module](
                    conv=nn.Conv2d(
                        channels, new_channels, kernel_size=1, stride=stride, bias=False
                    ),
                    norm=image_norm(config.norm, new_channels),
                )
            )
        self.activation2 = image_activation(config.activation, config.norm, new_channels)

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(
        self, x: Float[Tensor, "point channel height width"]
    ) -> Float[Tensor, "point out_channel h w"]:
        """Return the maps of the block for each point."""
        hidden = self.activation1(self.norm1(self.conv1(x)))
        return self.activation2(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, three stages of residual blocks, the mean over height and width, and a linear layer.

    Parameters are `stem.conv.weight`, `stem.norm.*`, `stages.0.0.conv1.weight`,
    `stages.0.0.norm1.*`, ..., `stages.1.0.shortcut.conv.weight`, ..., `head.weight`, `head.bias`;
    with `frn` and relu also `stem.activation.tau` and each block's `activation1.tau` and
    `activation2.tau`.

    Args:
        channels: Channels of an image.
        num_outputs: Length of the output.
        config: Depth, width multiplier, activation, norm and dropout.
        stage_channels: Channels of the three stages; default those of the width multiplier.

    References:
        He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition,
        arXiv:1512.03385.
    """

    def __init__(
        self,
        channels: int,
        num_outputs: int,
        config: ResNetConfig,
        stage_channels: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        # depth = 6 n + 2: three stages of n blocks of two convolutions, the stem and the head.
        blocks_per_stage = (config.depth - 2) // 6
        widths = stage_channels or default_stage_channels(config)
        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=nn.Conv2d(channels, widths[0], kernel_size=3, padding=1, bias=False),
                norm=image_norm(config.norm, widths[0]),
                activation=image_activation(config.activation, config.norm, widths[0]),
            )
        )
        stages: list[nn.Module] = []
        before = widths[0]
        for stage, width in enumerate(widths):
            first = ResidualBlock(before, width, 1 if stage == 0 else 2, config)
            rest = (ResidualBlock(width, width, 1, config) for _ in range(blocks_per_stage - 1))
            stages.append(nn.Sequential(first, *rest))
            before = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, num_outputs)
        drop_inputs(self.head, config.dropout)

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(
        self, x: Float[Tensor, "point channel height width"]
    ) -> Float[Tensor, "point output"]:
        """Return the outputs of each point."""
        return self.head(self.stages(self.stem(x)).mean(dim=(2, 3)))


def default_stage_channels(config: ResNetConfig) -> tuple[int, ...]:
    """Return the channels of the three stages of a configuration."""
    return tuple(channels * config.width_multiplier for channels in STAGE_CHANNELS)


def build_resnet(config: ResNetConfig, input_shape: tuple[int, ...], num_outputs: int) -> ResNet:
    """Build a ResNet for images.

    Args:
        config: Settings of the network.
        input_shape: (channel, height, width) of an image.
        num_outputs: Length of the output.

    Raises:
        ConfigError: If a point is not an image.
    """
    channels, _, _ = image_shape(config.name, input_shape)
    return ResNet(channels, num_outputs, config)
