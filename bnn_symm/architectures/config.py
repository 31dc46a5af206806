"""The `architecture` section of a configuration: one class an architecture, told apart by `name`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from bnn_symm.settings import PositiveInt, settings

Activation = Literal["relu", "gelu", "tanh", "silu"]
"""Nonlinearities. gelu, tanh and silu are smooth, which gradient-based samplers like; only tanh is odd."""

ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


@settings
class MLPConfig:
    """A fully connected network on the flattened input."""

    name: Literal["mlp"] = "mlp"
    widths: tuple[PositiveInt, ...] = (64, 64)
    """Hidden units, layer by layer; `()` is a linear model."""
    activation: Activation = "relu"
    norm: Literal["none", "layer"] = "none"
    """`layer`: LayerNorm over a layer's units, before the activation."""


@settings
class CNNConfig:
    """A small convolutional network for images, its last maps flattened into a linear layer."""

    name: Literal["cnn"] = "cnn"
    widths: tuple[PositiveInt, ...] = (16, 32)
    """Channels, convolution by convolution."""
    activation: Activation = "relu"
    norm: Literal["none", "layer", "frn"] = "none"
    """`layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold replaces relu."""


@settings
class ResNetConfig:
    """A residual network for small images, in the CIFAR form: three stages of 16, 32 and 64 channels."""

    name: Literal["resnet"] = "resnet"
    depth: Literal[20, 32, 56, 110] = 20
    """Layers with weights on the main path, 6 n + 2 for n blocks a stage."""
    width_multiplier: PositiveInt = 1
    """Multiplies the channels of every stage."""
    activation: Activation = "relu"
    norm: Literal["layer", "frn"] = "layer"
    """`layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold replaces relu."""


@settings
class ModuleConfig:
    """A network that the user's own code makes."""

    name: Literal["module"] = "module"
    factory: str
    """`package.module:factory`, a function or class that returns a `torch.nn.Module`."""
    keywords: dict[ArgumentName, Any] = Field(default_factory=dict)
    """Given to the factory, next to `input_shape` and `num_outputs` where it takes them."""


ArchitectureConfig = Annotated[
    MLPConfig | CNNConfig | ResNetConfig | ModuleConfig,
    Field(discriminator="name"),
]
