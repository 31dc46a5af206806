"""Draw initial values that depend only on the seed and on the parameter's name and shape."""

import contextlib
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntries
from bnn_symm.architectures.asymmetric.init_matched import InitialEntries
from bnn_symm.architectures.asymmetric.settings import NORMS
from bnn_symm.architectures.layers.activations import ThresholdedLinearUnit
from bnn_symm.randomness import torch_generator

HIDDEN_GAIN_SQUARED = 2.0
"""A relu passes half of the second moment of a symmetric input; a gain^2 of 2 compensates."""

OUTPUT_GAIN_SQUARED = 1.0
"""The output has no activation, so it starts at the scale of its input."""

OUTPUT_LAYER = "head"
"""The name of the last linear layer in every architecture of this package."""


@torch.no_grad()
def initialize(net: nn.Module, seed: int) -> None:
    """Set the initial values of a network, in place.

    Weights of linear and convolution layers are drawn from ``Normal(0, gain^2 / fan_in)`` with
    gain^2 of 2, and of 1 for the output layer `head`; their biases are zero. The same gain serves
    all activations, so that one seed means the same values whatever the activation. Norms start as
    the identity: weight 1, bias 0. Thresholds start at 0, where a thresholded linear unit is a
    relu. Parameters of any other module keep their values.

    The key of a parameter is `(seed, "initial value", name)`, so adding a layer or changing another
    layer's width does not affect it. Numbers are drawn in float64 on the CPU and then cast, so
    every dtype and device gets the same values. A weight with fixed entries is drawn as a whole and
    then restricted to the free ones: one seed means the same values in a standard and in an
    asymmetric network. Frozen parameters (`requires_grad=False`) are not changed.

    Args:
        net: The network.
        seed: Seed of the values.

    References:
        He, Zhang, Ren and Sun (2015), Delving Deep into Rectifiers, arXiv:1502.01852.
    """
    for module_name, module in net.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            gain_squared = (
                OUTPUT_GAIN_SQUARED if module_name == OUTPUT_LAYER else HIDDEN_GAIN_SQUARED
            )
            name = f"{module_name}.weight" if module_name else "weight"
            _draw_normal(module, gain_squared, torch_generator(seed, "initial value", name))
            _fill(module, "bias", 0.0)
        elif isinstance(module, NORMS):
            _fill(module, "weight", 1.0)
            _fill(module, "bias", 0.0)
        elif isinstance(module, ThresholdedLinearUnit):
            _fill(module, "tau", 0.0)


def _trainable(module: nn.Module, name: str) -> nn.Parameter | None:
    """Return a parameter of a module, or None if it is frozen, constant or computed from others."""
    value = module._parameters.get(name)
    return value if value is not None and value.requires_grad else None


def _fill(module: nn.Module, name: str, number: float) -> None:
    value = _trainable(module, name)
    if value is not None:
        value.fill_(number)


def _draw_normal(layer: nn.Module, gain_squared: float, generator: torch.Generator) -> None:
    weight = _trainable(layer, "weight")
    is_computed = is_parametrized(layer, "weight")
    if weight is None and not is_computed:
        return
    like = cast(Tensor, layer.weight if weight is None else weight)
    shape = layer.weight_shape if isinstance(layer, FixedEntries) else like.shape
    fan_in = shape[1:].numel()  # a row of a matrix; the input channels and the kernel of a filter
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(
        gain_squared / fan_in
    )
    if weight is None:
        # Assigned by the right inverse of its parametrization; without one, the parameters keep
        # their values.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            layer.weight = cast(Any, values.to(like))
        return
    if isinstance(layer, FixedEntries):
        values = layer.restrict(values.to(weight.device))
    weight.copy_(values)
    if isinstance(layer, InitialEntries):
        layer.reset_initial_entries()
