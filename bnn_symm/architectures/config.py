"""Configuration classes of the `architecture` section, one per architecture, selected by `name`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from bnn_symm.settings import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, settings

Activation = Literal["relu", "gelu", "tanh", "silu"]
"""Nonlinearities. gelu, tanh and silu are smooth, which suits gradient-based samplers; only tanh is
odd."""

SymmetryKind = Literal[
    "standard",
    "weight_asymmetric",
    "sigma_asymmetric",
    "bias_asymmetric",
    "bias_ordered",
    "init_matched",
    "parameter_matched",
    "block_fixed",
]
"""How the permutation symmetry is treated: kept, broken in one of four ways, or one of three
controls."""

MaskKind = Literal["random", "densest", "filters"]
"""How the fixed entries of a weight are chosen."""

BatchNorm = Literal["refuse", "frozen", "convert"]
"""What replaces batch norm, whose outputs in training mode depend on the other points of a
batch."""

ArgumentName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


@settings
class SymmetryConfig:
    """How a network's permutation symmetry is broken; the key `architecture.symmetry`.

    The kinds share their keys, so a control differs in a single key from the network that it
    controls for.

    Attributes:
        kind: `weight_asymmetric`: weights have fixed entries. `sigma_asymmetric`: FiGLU replaces
            every activation. `bias_asymmetric`: the biases of hidden units are fixed.
            `bias_ordered`: they increase from unit to unit; nothing is fixed. Controls:
            `init_matched` starts at the values of the weight-asymmetric network and trains all
            parameters; `parameter_matched` is a standard network with fewer
            units and as many parameters; `block_fixed` has as many fixed entries of the same size,
            arranged so that units within a block stay interchangeable.
        fixed_per_row: number of fixed entries per row (the inputs of one unit, or of one output
            channel): one number, or one per layer. With `mask: filters`, the number of fixed input
            channels.
        kappa: standard deviation of the fixed values: one number, or one per layer; of fixed or
            ordered biases one number, by default 1.
        mask: `random`: random fixed entries. `densest`: the fewest that make all rows differ, at
            most one per unit where there are enough inputs (with `kappa: 0` they are pruned, as in
            Rochussen 2024). `filters`: random input channels of a convolution as a whole.
        block: for `block_fixed`: number of units per block; with 1 the network is the
            weight-asymmetric one.
        gate_scale: for `sigma_asymmetric`: standard deviation of the matrix in the gate; auto is 1
            / sqrt(width).
        seed: seed of masks and fixed values. Networks can be compared weight by weight only if they
            share it.

    References:
        Lim, Putterman, Walters, Maron and Jegelka (2024), The Empirical Impact of Neural Parameter
        Symmetries, or Lack Thereof, arXiv:2405.20231. Rochussen (2024), Structured Partial
        Stochasticity in Bayesian Neural Networks, arXiv:2405.17666.

    Example:
        >>> SymmetryConfig(kind="weight_asymmetric", fixed_per_row=2).mask
        'random'
    """

    kind: SymmetryKind = "standard"
    fixed_per_row: Literal["auto"] | NonNegativeInt | tuple[NonNegativeInt, ...] = "auto"
    kappa: Literal["auto"] | NonNegative | tuple[NonNegative, ...] = "auto"
    mask: MaskKind = "random"
    block: PositiveInt = 1
    gate_scale: Literal["auto"] | Positive = "auto"
    seed: NonNegativeInt = 0


@settings
class MLPConfig:
    """A fully connected network on the flattened input.

    Attributes:
        widths: number of hidden units of each layer; `()` is a linear model.
        activation: nonlinearity of hidden units; gelu, tanh and silu are smooth, which suits
            gradient-based samplers; only tanh is odd.
        norm: `layer`: LayerNorm over a layer's units, before the activation. `batch`: batch norm,
            which needs `batch_norm`.
        batch_norm: `frozen`: the statistics of batch norm are estimated from the training inputs at
            the initial weights and are constants from then on. `convert`: layer norm replaces it.
        dropout: dropout rate of hidden units in methods with dropout (`mc_dropout`); other methods
            ignore it.
        symmetry: how the permutation symmetry is broken.

    Example:
        >>> MLPConfig(widths=(32, 32), activation="tanh").norm
        'none'
    """

    name: Literal["mlp"] = "mlp"
    widths: tuple[PositiveInt, ...] = (64, 64)
    activation: Activation = "relu"
    norm: Literal["none", "layer", "batch"] = "none"
    batch_norm: BatchNorm = "refuse"
    dropout: Fraction = 0.0
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class GNNConfig:
    """A graph network: layers that see each node and the mean of its neighbors, then a linear one.

    The data are a graph, such as `data.name=digits_graph`.

    Attributes:
        widths: number of hidden units of each layer; nodes at a distance of as many edges as there
            are layers influence each other. `()` is a linear model of the features.
        activation: nonlinearity of hidden units; gelu, tanh and silu are smooth, which suits
            gradient-based samplers; only tanh is odd.
        norm: `layer`: LayerNorm over a layer's units in each node, before the activation.
        dropout: dropout rate of hidden units in methods with dropout (`mc_dropout`); other methods
            ignore it.
        symmetry: how the permutation symmetry is broken.

    Example:
        >>> GNNConfig(activation="gelu").widths
        (64, 64, 64)
    """

    name: Literal["gnn"] = "gnn"
    widths: tuple[PositiveInt, ...] = (64, 64, 64)
    activation: Activation = "relu"
    norm: Literal["none", "layer"] = "none"
    dropout: Fraction = 0.0
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class CNNConfig:
    """A small convolutional network for images, whose last maps are flattened into a linear layer.

    Attributes:
        widths: number of channels of each convolution.
        activation: nonlinearity of hidden units; gelu, tanh and silu are smooth, which suits
            gradient-based samplers; only tanh is odd.
        norm: `layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold
            replaces relu. `batch`: batch norm, which needs `batch_norm`.
        batch_norm: `frozen`: the statistics of batch norm are estimated from the training inputs at
            the initial weights and are constants from then on. `convert`: layer norm replaces it.
        dropout: dropout rate of channels between convolutions, and of inputs of the linear layer,
            in methods with dropout (`mc_dropout`); other methods ignore it.
        symmetry: how the permutation symmetry is broken.

    Example:
        >>> CNNConfig(widths=(8, 16)).activation
        'relu'
    """

    name: Literal["cnn"] = "cnn"
    widths: tuple[PositiveInt, ...] = (16, 32)
    activation: Activation = "relu"
    norm: Literal["none", "layer", "frn", "batch"] = "none"
    batch_norm: BatchNorm = "refuse"
    dropout: Fraction = 0.0
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class ResNetConfig:
    """A residual network for small images in the CIFAR form: stages of 16, 32 and 64 channels.

    Attributes:
        depth: number of layers with weights on the main path, 6 n + 2 for n blocks per stage.
        width_multiplier: factor of the number of channels of every stage.
        activation: nonlinearity of hidden units; gelu, tanh and silu are smooth, which suits
            gradient-based samplers; only tanh is odd.
        norm: `layer`: one-group GroupNorm. `frn`: filter response norm, whose learned threshold
            replaces relu. `batch`: batch norm, which needs `batch_norm`.
        batch_norm: `frozen`: the statistics of batch norm are estimated from the training inputs at
            the initial weights and are constants from then on. `convert`: layer norm replaces it.
        dropout: dropout rate of channels within a block, and of inputs of the linear layer, in
            methods with dropout (`mc_dropout`); other methods ignore it.
        symmetry: how the permutation symmetry is broken.

    Example:
        >>> ResNetConfig(width_multiplier=2).depth
        20
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[20, 32, 56, 110] = 20
    width_multiplier: PositiveInt = 1
    activation: Activation = "relu"
    norm: Literal["layer", "frn", "batch"] = "layer"
    batch_norm: BatchNorm = "refuse"
    dropout: Fraction = 0.0
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


@settings
class ModuleConfig:
    """A network from the user's own code.

    Attributes:
        factory: `package.module:factory`, a function or class that returns a `torch.nn.Module`.
        keywords: keyword arguments of the factory, besides `input_shape` and `num_outputs` if it
            takes them.
        batch_norm: `refuse`: batch norm is an error. `frozen`: its running statistics are
            constants, those of the module, or, where it was never trained, estimated from the
            training inputs at the initial weights. `convert`: layer norm replaces it.
        symmetry: how the permutation symmetry is broken.

    Example:
        >>> ModuleConfig(factory="networks:build", keywords={"width": 8}).name
        'module'
    """

    name: Literal["module"] = "module"
    factory: str
    keywords: dict[ArgumentName, Any] = Field(default_factory=dict)
    batch_norm: BatchNorm = "refuse"
    symmetry: SymmetryConfig = Field(default_factory=SymmetryConfig)


ArchitectureConfig = Annotated[
    MLPConfig | CNNConfig | ResNetConfig | GNNConfig | ModuleConfig,
    Field(discriminator="name"),
]
