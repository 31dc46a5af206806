"""Fix the biases of hidden units at random values, which makes units distinguishable.

The values are distinct with probability 1, so that no permutation of units keeps them. Of the ways
of breaking the symmetry it has the fewest constants, one for each unit. A fixed bias is a frozen
parameter: it has no prior, it is not fitted, and it is part of the fingerprint.

References:
    Lim, Putterman, Walters, Maron and Jegelka (2024), arXiv:2405.20231, caption of table 9, where
    networks with fixed biases have higher barriers than W- and sigma-asymmetric ones.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.masks import fixed_values
from bnn_symm.architectures.config import SymmetryConfig
from bnn_symm.errors import ConfigError

if TYPE_CHECKING:
    from bnn_symm.symmetry.group.permutation_spec import Axis

BIAS_KAPPA = 1.0
"""The standard deviation of fixed biases with `kappa: auto`: that of units with inputs of scale 1,
at the initial weights of this package, up to a factor of sqrt(2)."""

_MARK = "_has_fixed_bias"
"""Attribute of a layer whose bias is fixed."""


@torch.no_grad()
def fix_biases(
    net: nn.Module,
    layers: Mapping[str, nn.Module],
    settings: SymmetryConfig,
    input_shape: tuple[int, ...] | None,
) -> nn.Module:
    """Fix the biases of all layers whose units can be permuted, in place.

    Args:
        net: The network, which is changed.
        layers: Its linear and convolution layers, by name.
        settings: `kappa`, one number, is the standard deviation of the values; `seed` is theirs.
        input_shape: Shape of one point.

    Returns:
        The network.

    Raises:
        ConfigError: If there is no input shape, if no such layer has a bias, or if `kappa` is a
            list or 0.
    """
    kappa = bias_kappa(settings)
    for path, layer in hidden_biases(net, layers, settings.kind, input_shape):
        bias = layer.get_parameter("bias")
        values = fixed_values(settings.seed, path, tuple(bias.shape), kappa)
        bias.copy_(torch.from_numpy(values))
        bias.requires_grad_(False)
        setattr(layer, _MARK, True)
    return net


def bias_kappa(settings: SymmetryConfig) -> float:
    """Return the scale of the biases of a kind that acts on them.

    Args:
        settings: How the symmetry is broken.

    Raises:
        ConfigError: If `kappa` is a list or 0.
    """
    kappa = BIAS_KAPPA if settings.kappa == "auto" else settings.kappa
    if isinstance(kappa, tuple) or kappa == 0:
        raise ConfigError(
            f"kappa: got {settings.kappa} for {settings.kind}, want one number above 0: with equal "
            "biases units remain interchangeable"
        )
    return float(kappa)


def hidden_biases(
    net: nn.Module,
    layers: Mapping[str, nn.Module],
    kind: str,
    input_shape: tuple[int, ...] | None,
) -> list[tuple[str, nn.Module]]:
    """Return the layers with a trained bias whose units can be permuted, with the bias's name.

    Args:
        net: The network.
        layers: Its linear and convolution layers, by name.
        kind: The kind of symmetry, for messages.
        input_shape: Shape of one point.

    Raises:
        ConfigError: If there is no input shape, or no such layer.
    """
    if input_shape is None:
        raise ConfigError(
            f"{kind} finds the hidden units in a forward pass; pass input_shape, the shape of one "
            "point"
        )
    from bnn_symm.symmetry import permutation_spec

    axes = permutation_spec(net, input_shape).axes
    found = []
    for name, layer in layers.items():
        path = f"{name}.bias" if name else "bias"
        bias = layer._parameters.get("bias")
        if bias is not None and bias.requires_grad and _moves(axes.get(path, ())):
            found.append((path, layer))
    if not found:
        raise ConfigError(
            f"{kind} found no hidden layer with a bias in {type(net).__name__}; use "
            "kind=weight_asymmetric, or layers with biases"
        )
    return found


def _moves(axes: Sequence["Axis"]) -> bool:
    """Return whether units along an axis can be permuted."""
    return any(segment.group is not None for axis in axes for segment in axis)


def fixed_bias(module: nn.Module) -> Tensor | None:
    """Return the bias of a layer if `fix_biases` fixed it, else None."""
    return module.bias if getattr(module, _MARK, False) else None  # pyright: ignore[reportReturnType]
