"""Build the control `parameter_matched`: a standard network with fewer units.

It has as many parameters as the asymmetric network has free entries.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bnn_symm.architectures.asymmetric.asymmetrize import apply_symmetry
from bnn_symm.architectures.config import CNNConfig, GNNConfig, MLPConfig, ResNetConfig
from bnn_symm.architectures.input_shapes import image_shape
from bnn_symm.architectures.resnet import ResNet, default_stage_channels
from bnn_symm.errors import ConfigError

Widths = tuple[int, ...]


def build_parameter_matched(
    config: MLPConfig | CNNConfig | ResNetConfig | GNNConfig,
    input_shape: tuple[int, ...],
    num_outputs: int,
    build_standard: Callable[[Any, tuple[int, ...], int], nn.Module],
) -> nn.Module:
    """Build a standard network whose number of parameters matches the weight-asymmetric network.

    All widths (for a ResNet: the channels of its stages) are scaled by one factor; then single
    widths are adjusted while that brings the number of parameters nearer to the asymmetric
    network's free ones.

    Args:
        config: Configuration of the network to match, with its symmetry settings.
        input_shape: Shape of one point.
        num_outputs: Length of the output of one point.
        build_standard: Builds a network with other widths: configuration, `input_shape` and
            `num_outputs` -> network.

    Raises:
        ConfigError: If there is no hidden layer to narrow, or the asymmetric network cannot be
            built.
    """

    def build(widths: Widths) -> nn.Module:
        if isinstance(config, ResNetConfig):
            channels, _, _ = image_shape(config.name, input_shape)
            return ResNet(channels, num_outputs, config, widths)
        narrowed = dataclasses.replace(config, widths=widths)
        return build_standard(narrowed, input_shape, num_outputs)

    whole = default_stage_channels(config) if isinstance(config, ResNetConfig) else config.widths
    if not whole:
        raise ConfigError(
            "parameter_matched narrows the hidden layers, and this network has none; set "
            "architecture.widths"
        )
    asymmetric = apply_symmetry(
        build(whole), dataclasses.replace(config.symmetry, kind="weight_asymmetric"), input_shape
    )
    return build(nearest_widths(whole, _number_of_parameters(asymmetric), _counter(build)))


def nearest_widths(whole: Widths, wanted: int, count: Callable[[Widths], int]) -> Widths:
    """Return widths of nearly the same proportions with nearly the wanted number of parameters.

    Args:
        whole: Widths to start from.
        wanted: Number of parameters.
        count: Number of parameters for given widths; increases with each width.
    """
    # Scale by one factor, found by bisection to the resolution at which a width changes.
    low, high = 0.0, 1.0
    for _ in range(max(whole).bit_length() + 1):
        middle = (low + high) / 2
        low, high = (middle, high) if count(_scaled(whole, middle)) <= wanted else (low, middle)
    best = min(
        (_scaled(whole, factor) for factor in (low, high)),
        key=lambda widths: abs(count(widths) - wanted),
    )
    while True:
        steps = itertools.product(range(len(best)), (-1, 1))
        near = [
            (*best[:i], best[i] + step, *best[i + 1 :]) for i, step in steps if best[i] + step > 0
        ]
        candidate = min(near, key=lambda widths: abs(count(widths) - wanted))
        if abs(count(candidate) - wanted) >= abs(count(best) - wanted):
            return best
        best = candidate


def _scaled(widths: Widths, factor: float) -> Widths:
    return tuple(max(1, round(width * factor)) for width in widths)


def _counter(build: Callable[[Widths], nn.Module]) -> Callable[[Widths], int]:
    counts: dict[Widths, int] = {}

    def count(widths: Widths) -> int:
        if widths not in counts:
            with torch.device("meta"):  # shapes only, without memory and values
                counts[widths] = _number_of_parameters(build(widths))
        return counts[widths]

    return count


def _number_of_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
