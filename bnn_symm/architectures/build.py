"""Build an initialized network from its configuration; the registry of architectures."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.asymmetrize import apply_symmetry
from bnn_symm.architectures.asymmetric.parameter_matched import build_parameter_matched
from bnn_symm.architectures.cnn import build_cnn
from bnn_symm.architectures.config import (
    ArchitectureConfig,
    CNNConfig,
    GNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
)
from bnn_symm.architectures.gnn import build_gnn
from bnn_symm.architectures.initial_values import initialize
from bnn_symm.architectures.mlp import build_mlp
from bnn_symm.architectures.modules.batch_norm import (
    refusal,
    resolve_statistics,
    with_frozen_layers,
)
from bnn_symm.architectures.modules.from_module import build_from_module
from bnn_symm.architectures.resnet import build_resnet
from bnn_symm.arguments import checked
from bnn_symm.data.graph import Graph
from bnn_symm.errors import ConfigError, NotEnoughMemory
from bnn_symm.io.memory import check_memory
from bnn_symm.randomness import global_seed
from bnn_symm.symmetry.inputs import num_tokens_of

BUILDERS: dict[type[Any], Callable[[Any, Any, int], nn.Module]] = {
    MLPConfig: build_mlp,
    CNNConfig: build_cnn,
    ResNetConfig: build_resnet,
    GNNConfig: build_gnn,
    ModuleConfig: build_from_module,
}
"""A new architecture needs a file, a class in config.py and a line here. Builders take the shape of
one point; that of a graph network takes the graph."""

_COPIES = 4
"""Minimum number of vectors of all parameters in any fit: values, a copy, gradients, and a moment
or a momentum."""


@checked
def build_network(
    config: ArchitectureConfig,
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    seed: int = 0,
    points: Tensor | None = None,
    graph: Graph | None = None,
) -> nn.Module:
    """Build the network of a configuration, with initial values by seed and parameter name.

    A network of `ModuleConfig` keeps the initial values of its factory, which are part of its
    author's design. The factory runs with the global generators of torch, NumPy and Python seeded
    by `(seed, "module")`, so these values can be reproduced; a factory with a generator of its own
    must seed it itself.

    Args:
        config: Architecture and its settings.
        input_shape: Shape of one point: (feature,), (channel, height, width) or (time, feature).
        num_outputs: Length of the output of one point.
        seed: Seed of the initial values.
        points: Training inputs, on which a user's module is checked (default standard normals),
            and from which `batch_norm` estimates statistics.
        graph: The graph whose nodes are the points, of data that have one.

    Returns:
        A module from (point, *input_shape) to (point, num_outputs), in training mode, with the
        attribute `input_shape`. Global generators are not changed.

    Raises:
        ConfigError: If the architecture does not fit the inputs or the graph, a user's module fails
            a check, or `config.symmetry` or `config.batch_norm` does not fit the network.

    Example:
        >>> net = build_network(MLPConfig(widths=(3,)), input_shape=(2,), num_outputs=1)
        >>> net(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    if not input_shape or min(input_shape) < 1:
        raise ConfigError(
            f"got inputs of shape {input_shape}; want at least one axis and no empty axis, such as "
            "(4,) for four features: check data.name and data.target"
        )
    if num_outputs < 1:
        raise ConfigError(
            f"got num_outputs={num_outputs}; want 1 or more: check data.target and likelihood.name"
        )
    build = _builder(config, graph)
    _check_size(config, input_shape, num_outputs, build)
    takes_tokens = graph is None and points is not None and not points.is_floating_point()
    if takes_tokens and not isinstance(config, ModuleConfig):
        raise ConfigError(
            f"data.layout=tokens is for a network that embeds integers, but {config.name} takes "
            "numbers; name a network of your own with architecture.name=module, or set another "
            "data.layout"
        )
    with global_seed(seed, "module"):
        if config.symmetry.kind == "parameter_matched" and not isinstance(config, ModuleConfig):
            net = build_parameter_matched(config, input_shape, num_outputs, build)
            net = _without_batch_norm(net, config)
        else:
            if isinstance(config, ModuleConfig):
                net = build_from_module(config, input_shape, num_outputs, seed=seed, points=points)
            else:
                net = build(config, input_shape, num_outputs)
                net = _without_batch_norm(net, config)
            net = apply_symmetry(net, config.symmetry, input_shape)
    if not isinstance(config, ModuleConfig):
        initialize(net, seed)
    if getattr(config, "batch_norm", "refuse") != "refuse":
        net = resolve_statistics(net, cast(Any, config).batch_norm, points)
    if not hasattr(net, "input_shape"):  # a user's module may define it
        net.input_shape = tuple(input_shape)  # pyright: ignore[reportArgumentType]
    if takes_tokens and num_tokens_of(net) is None:
        raise ConfigError(
            f"the data are tokens, but the first layer of a {type(net).__name__} is no "
            "nn.Embedding; set the attribute num_tokens of the network, the number of tokens that "
            "it embeds, or another data.layout"
        )
    return net


def _builder(
    config: ArchitectureConfig, graph: Graph | None
) -> Callable[[Any, tuple[int, ...], int], nn.Module]:
    """Return the function that builds the networks of an architecture.

    Raises:
        ConfigError: If the data are a graph and the architecture is none for graphs, or the other
            way round.
    """
    if isinstance(config, GNNConfig):
        if graph is None:
            raise ConfigError(
                "architecture.name=gnn is for a graph, and the data are none: an NPZ file with an "
                "array edges, or data.name=digits_graph; for other data set another "
                "architecture.name"
            )
        return lambda config, _, outputs: BUILDERS[GNNConfig](config, graph, outputs)
    if graph is not None:
        raise ConfigError(
            f"the data are a graph, whose points are numbers of nodes, but architecture.name="
            f"{config.name} takes features; set architecture.name=gnn (with widths=[] it is a "
            "linear model of the features)"
        )
    return BUILDERS[type(config)]


def _without_batch_norm(net: nn.Module, config: Any) -> nn.Module:
    """Return a network of this package with frozen layers in place of batch norm, or refuse it."""
    if getattr(config, "batch_norm", "refuse") == "refuse":
        if config.norm == "batch":
            raise ConfigError(refusal("architecture.norm=batch"))
        return net
    return with_frozen_layers(net, f"architecture.norm={config.norm}")


def _check_size(
    config: ArchitectureConfig,
    input_shape: tuple[int, ...],
    num_outputs: int,
    build: Callable[[Any, tuple[int, ...], int], nn.Module],
) -> None:
    """Reject a network that does not fit into memory, before it is built.

    Raises:
        NotEnoughMemory: If memory is too small; the message has the number of parameters.
    """
    if isinstance(config, ModuleConfig):
        return
    keys = (
        "architecture.width_multiplier"
        if isinstance(config, ResNetConfig)
        else "architecture.widths"
    )
    try:
        with torch.device("meta"):  # shapes only, without memory and values
            net = build(config, input_shape, num_outputs)
        number = sum(parameter.numel() for parameter in net.parameters())
    except (RuntimeError, OverflowError, TypeError):
        raise NotEnoughMemory(
            f"{keys}: this network has more parameters than fit into memory; lower {keys}"
        ) from None
    check_memory(_COPIES * 4 * number, f"a fit of {number} parameters", f"lower {keys}")
