"""Resolve `auto` and lists of settings to fixed entries per row and kappa for each layer.

The rules reproduce the settings of Lim et al. (2024) at the sizes of its networks and scale them to
others.

References:
    Lim, Putterman, Walters, Maron and Jegelka (2024), arXiv:2405.20231, appendix.
"""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from bnn_symm.architectures.asymmetric.fixed_entries import PLAIN_LAYERS
from bnn_symm.architectures.asymmetric.masks import Layer, equal_rows_error, rows_can_differ
from bnn_symm.architectures.config import SymmetryConfig
from bnn_symm.architectures.layers.batch_norm import FrozenBatchNorm
from bnn_symm.architectures.layers.norms import FilterResponseNorm
from bnn_symm.errors import ConfigError

NORMS = (nn.LayerNorm, nn.GroupNorm, FilterResponseNorm, FrozenBatchNorm)

MLP_FRACTION = 8
"""In hidden linear layers, 1 entry in 8 of the narrower side is fixed: the paper's 64 at a width of
512."""

MLP_KAPPA, LAST_HIDDEN_KAPPA, HEAD_KAPPA = 1.0, 0.5, 0.25
"""The paper's kappas for an MLP; smaller towards the output, whose scale they would dominate."""

NORM_KAPPA = 3.0
"""The paper's kappa for a ResNet, where norms remove the scale again."""


def plain_layers(net: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that can have fixed entries, in the order of `named_modules`.

    Only exact types count, since a subclass may use its weight in other ways
    (`nn.MultiheadAttention` does). The weight must be a parameter that is inferred, not frozen or
    computed from others (weight normalization).
    """
    return {
        name: module
        for name, module in net.named_modules()
        if type(module) in PLAIN_LAYERS
        and (weight := module._parameters.get("weight")) is not None
        and weight.requires_grad
    }


def describe_layer(name: str, module: nn.Module) -> Layer:
    """Return the sizes of a layer's weight."""
    rows, channels, *kernel = module.get_parameter("weight").shape
    return Layer(name or "(root)", rows, channels, math.prod(kernel), isinstance(module, nn.Linear))


def fixed_counts(layers: Mapping[str, nn.Module], settings: SymmetryConfig) -> dict[str, int]:
    """Return the number of fixed entries per row, by name; 0 leaves a layer unchanged.

    With `mask: filters` it is the number of fixed input channels.

    Args:
        layers: Layers that can have fixed entries, by name.
        settings: How the symmetry is broken.

    Raises:
        ConfigError: If a list does not have one entry per layer, or by `auto` the rows of a layer
            cannot all differ.
    """
    given = settings.fixed_per_row
    if given != "auto":
        return dict(zip(layers, map(int, _by_layer("fixed_per_row", given, layers)), strict=True))
    counts: dict[str, int] = {}
    errors: dict[str, ConfigError] = {}
    convolutional = has_convolutions(layers)
    last = list(layers)[-1]
    for name, module in layers.items():
        layer = describe_layer(name, module)
        start = _entries(layer, convolutional, name == last)
        if settings.mask == "filters":
            counts[name] = _filters(layer, start)
            continue
        count = next(
            (n for n in range(start, layer.row) if rows_can_differ(layer.rows, layer.row, n)), None
        )
        counts[name] = count or 0
        if count is None:
            errors[name] = equal_rows_error(layer, layer.row, max(1, layer.row // 2), "inputs")
    if errors:
        instead = f"[{','.join(map(str, counts.values()))}]"
        raise ConfigError(f"{next(iter(errors.values()))}: type fixed_per_row={instead}")
    return counts


def kappas(
    net: nn.Module, layers: Mapping[str, nn.Module], means: Mapping[str, float], given: object
) -> list[float]:
    """Return the standard deviation of the fixed values for each layer.

    Args:
        net: The network, which is searched for norms.
        layers: Layers of the network.
        means: Name -> mean number of fixed entries per row.
        given: "auto", a number, or one number per layer.

    Raises:
        ConfigError: If a list does not have one entry per layer.
    """
    if given != "auto":
        return [float(value) for value in _by_layer("kappa", given, layers)]
    if not has_convolutions(layers):
        last = [LAST_HIDDEN_KAPPA, HEAD_KAPPA][-len(layers) :]
        return [MLP_KAPPA] * (len(layers) - len(last)) + last
    if any(isinstance(module, NORMS) for module in net.modules()):
        return [NORM_KAPPA] * len(layers)
    # The fixed entries of a row have the variance of He-initialized free ones: n kappa^2 = 2.
    return [math.sqrt(2 / max(1.0, means.get(name, 0.0))) for name in layers]


def has_convolutions(layers: Mapping[str, nn.Module]) -> bool:
    """Return whether the rules for convolutional networks apply."""
    return any(not isinstance(module, nn.Linear) for module in layers.values())


def _entries(layer: Layer, convolutional: bool, last: bool) -> int:
    """Return the number of fixed entries per row in the paper, before rows are made to differ."""
    if not convolutional:
        return layer.row // 2 if last else round(min(layer.row, layer.rows) / MLP_FRACTION)
    if layer.is_linear:
        return round(math.sqrt(layer.row))
    # The paper fixes 4 of 9 entries of each kernel in its first convolution.
    return min(round(math.sqrt(layer.rows)) * layer.area, 4 * layer.row // 9)


def _filters(layer: Layer, entries: int) -> int:
    """Return the number of fixed input channels.

    It is 0 where there are too few for all output channels to differ, as in a first layer. That
    layer keeps all its weights; the masks of the next one distinguish its output channels.
    """
    start = min(max(1, round(entries / layer.area)), layer.channels - 1)
    possible = (
        n for n in range(start, layer.channels) if rows_can_differ(layer.rows, layer.channels, n)
    )
    return next(possible, 0)


def _by_layer(key: str, given: object, layers: Mapping[str, nn.Module]) -> Sequence[int | float]:
    if isinstance(given, int | float):
        return [given] * len(layers)
    assert isinstance(given, tuple)
    if len(given) != len(layers):
        names = ", ".join(name or "(root)" for name in layers)
        raise ConfigError(
            f"{key}: got {len(given)} values, want one, or one for each of the {len(layers)} "
            f"layers: {names}"
        )
    return given
