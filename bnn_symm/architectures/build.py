"""From a configuration to an initialised network: the registry of architectures."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bnn_symm.architectures.asymmetric import apply_symmetry
from bnn_symm.architectures.cnn import build_cnn
from bnn_symm.architectures.config import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
)
from bnn_symm.architectures.from_module import build_from_module
from bnn_symm.architectures.initial import initialise
from bnn_symm.architectures.mlp import build_mlp
from bnn_symm.architectures.parameter_matched import build_parameter_matched
from bnn_symm.architectures.resnet import build_resnet
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import global_seed

BUILDERS: dict[type[Any], Callable[[Any, tuple[int, ...], int], nn.Module]] = {
    MLPConfig: build_mlp,
    CNNConfig: build_cnn,
    ResNetConfig: build_resnet,
    ModuleConfig: build_from_module,
}
"""A new architecture is a file, a class in config.py and a line here."""


def build_network(
    config: ArchitectureConfig, *, input_shape: tuple[int, ...], num_outputs: int, seed: int = 0
) -> nn.Module:
    """The network of a configuration, with initial values that depend on `seed` and parameter names only.

    A network of `ModuleConfig` keeps the initial values that its factory gave: how a network starts is part
    of its author's design. The factory runs with torch's global generator seeded by `(seed, "module")`, so
    that these values can be repeated too; a factory that draws from other generators must seed them itself.

    Args:
        config: Which architecture, and its settings.
        input_shape: Shape of one point: (feature,) or (channel, height, width).
        num_outputs: Length of the output of one point.
        seed: Seed of the initial values.

    Returns:
        A module from (point, *input_shape) to (point, num_outputs), in training mode, with the attribute
        `input_shape`. torch's global generator is left as it was found.

    Raises:
        ConfigError: If the architecture does not fit the inputs, a user's module fails a check, or
            `config.symmetry` does not fit the network.
    """
    if not input_shape or min(input_shape) < 1:
        raise ConfigError(
            f"got inputs of shape {input_shape}; want at least one axis and no empty one, such as (4,) for "
            "four features: check data.name and data.target"
        )
    if num_outputs < 1:
        raise ConfigError(f"got num_outputs={num_outputs}; want 1 or more: check data.target and likelihood.name")
    with global_seed(seed, "module"):
        if config.symmetry.kind == "parameter_matched" and not isinstance(config, ModuleConfig):
            net = build_parameter_matched(config, input_shape, num_outputs)
        else:
            net = BUILDERS[type(config)](config, input_shape, num_outputs)
            net = apply_symmetry(net, config.symmetry, input_shape)
    if not isinstance(config, ModuleConfig):
        initialise(net, seed)
    if not hasattr(net, "input_shape"):  # a user's module may have one of its own
        net.input_shape = tuple(input_shape)  # pyright: ignore[reportArgumentType]
    return net
