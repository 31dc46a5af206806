"""The `architecture` section of a configuration: one class an architecture, told apart by
`name`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from bnn_symm.settings import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, settings

Activation = Literal["relu", "gelu", "tanh", "silu"]
"""Nonlinearities. gelu, tanh and silu are smooth, which gradient-based samplers like; only tanh is
odd."""

SymmetryKind = Literal[
    "standard",
    "weight_asymmetric",
    "sigma_asymmetric",
    "init_matched",
    "parameter_matched",
    "block_fixed",
]
"""What is done about the permutation symmetry: nothing, one of two ways to break it, or one of
three controls."""

MaskKind = Literal["random", "densest", "filters"]
"""Which entries of a weight are fixed."""

ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


@settings
class SymmetryConfig:
    """Whether, and how, a network's permutation symmetry is broken; the key
    `architecture.symmetry`.

    The kinds share their keys, so that a control is one key away from the network that it controls
    for.

    References:
        Lim, Putterman, Walters, Maron and Jegelka (2024), The Empirical Impact of Neural Parameter
        Symmetries, or Lack Thereof, arXiv:2405.20231.
    """

    kind: SymmetryKind = "standard"
    """`weight_asymmetric`: weights have fixed entries. `sigma_asymmetric`: FiGLU in place of every
    activation. Controls: `init_matched` starts where the weight-asymmetric network does and trains
    everything; `parameter_matched` is a standard network, narrowed to as many parameters;
    `block_fixed` has as many fixed entries of the same size, arranged so that units within a block
    stay interchangeable."""
    fixed_per_row: Literal["auto"] | NonNegativeInt | tuple[NonNegativeInt, ...] = "auto"
    """Fixed entries a row (the inputs of one unit, or of one output channel); one number, or one a
    layer. With `mask: filters` the number of fixed input channels."""
    kappa: Literal["auto"] | NonNegative | tuple[NonNegative, ...] = "auto"
    """Standard deviation of the fixed values; one number, or one a layer."""
    mask: MaskKind = "random"
    """`random`: fixed entries at random. `densest`: as few as make all rows differ. `filters`:
    whole input channels of a convolution, at random."""
    block: PositiveInt = 1
    """Of `block_fixed`: how many units a block has; with 1 the network is the weight-asymmetric
    one."""
    gate_scale: Literal["auto"] | Positive = "auto"
    """Of `sigma_asymmetric`: standard deviation of the matrix in the gate; auto is 1 /
    sqrt(width)."""
    seed: NonNegativeInt = 0
    """Of masks and fixed values. Networks can be compared weight by weight only if they share
    it."""


@settings
class MLPConfig:
    """A fully connected network on the flattened input."""

    name: Literal["mlp"] = "mlp"
    widths: tuple[PositiveInt, ...] = (64, 64)
    """Hidden units, layer by layer; `()` is a linear model."""
    activation: Activation = "relu"
    norm: Literal["none", "layer"] = "none"
    """`layer`: LayerNorm over a layer's units, before the activation."""
    dropout: Fraction = 0.0
    """Rate at which hidden units are dropped by methods that drop (`mc_dropout`); to others it is
    nothing."""
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class CNNConfig:
    """A small convolutional network for images, its last maps flattened into a linear layer."""

    name: Literal["cnn"] = "cnn"
    widths: tuple[PositiveInt, ...] = (16, 32)
    """Channels, convolution by convolution."""
    activation: Activation = "relu"
    norm: Literal["none", "layer", "frn"] = "none"
    """`layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold replaces
    relu."""
    dropout: Fraction = 0.0
    """Rate at which channels between convolutions, and inputs of the linear layer, are dropped by
    methods that drop (`mc_dropout`); to others it is nothing."""
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class ResNetConfig:
    """A residual network for small images, in the CIFAR form: three stages of 16, 32 and 64
    channels.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[20, 32, 56, 110] = 20
    """Layers with weights on the main path, 6 n + 2 for n blocks a stage."""
    width_multiplier: PositiveInt = 1
    """Multiplies the channels of every stage."""
    activation: Activation = "relu"
    norm: Literal["layer", "frn"] = "layer"
    """`layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold replaces
    relu."""
    dropout: Fraction = 0.0
    """Rate at which channels within a block, and inputs of the linear layer, are dropped by methods
    that drop (`mc_dropout`); to others it is nothing."""
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class ModuleConfig:
    """A network that the user's own code makes."""

    name: Literal["module"] = "module"
    factory: str
    """`package.module:factory`, a function or class that returns a `torch.nn.Module`."""
    keywords: dict[ArgumentName, Any] = Field(default_factory=dict)
    """Given to the factory, next to `input_shape` and `num_outputs` where it takes them."""
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


ArchitectureConfig = Annotated[
    MLPConfig | CNNConfig | ResNetConfig | ModuleConfig,
    Field(discriminator="name"),
]
