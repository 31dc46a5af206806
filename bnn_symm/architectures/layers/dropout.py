"""Declare dropout as an attribute of a layer: the rate at which its inputs are dropped.

The forward pass of a layer with a rate is unchanged and deterministic, so methods without dropout
see the plain network. Methods with dropout apply it to the weights: the column of a dropped input
(in a convolution, the channel) is multiplied by 0, that of a kept one by 1 / (1 - rate).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.fixed_entries import free_parameters, weight_shapes
from bnn_symm.errors import ConfigError


def drop_inputs(layer: nn.Module, rate: float) -> None:
    """Declare the rate at which the inputs of a layer are dropped; 0 for never.

    Args:
        layer: `nn.Linear` or `nn.ConvNd`; in grouped convolutions an input is a channel within its
            group.
        rate: probability of being dropped, in [0, 1).

    Raises:
        ConfigError: if the layer is of another type, or the rate is out of range.
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise ConfigError(
            f"drop_inputs: got a {type(layer).__name__}, expected a linear layer or a convolution"
        )
    if not 0 <= rate < 1:
        raise ConfigError(f"drop_inputs: got a rate of {rate}, expected a probability below 1")
    declared: Any = layer
    declared.input_dropout = float(rate)


class DroppedInputs:
    """The inputs of layers that may be dropped, and the free entries that belong to each.

    Fixed entries of a weight are not dropped.

    Args:
        net: any network; its layers have declared their rates.

    Attributes:
        rates: (unit,), the rate of each input of each layer with a rate.
        unit_of: (parameter,), for each entry of the network's flat parameter vector, 1 + the unit
            that it belongs to, or 0.
    """

    rates: Tensor
    unit_of: Int[Tensor, " parameter"]

    def __init__(self, net: nn.Module):
        # Whole weights are floating-point tensors; float64 represents the numbers of units exactly.
        numbers = {
            name: torch.zeros(shape, dtype=torch.float64)
            for name, shape in weight_shapes(net).items()
        }
        rates = []
        count = 0
        for name, rate in _declared(net):
            if name not in numbers:
                continue  # a constant weight
            shape = numbers[name].shape
            units = torch.arange(count + 1, count + 1 + shape[1], dtype=torch.float64)
            numbers[name] = units.reshape(1, -1, *[1] * (len(shape) - 2)).expand(shape)
            rates.append(torch.full((shape[1],), rate))
            count += shape[1]
        self.rates = torch.cat(rates) if rates else torch.empty(0)
        device = next(net.parameters()).device
        free = free_parameters(net, {name: value.to(device) for name, value in numbers.items()})
        self.unit_of = torch.cat(
            [free[name].flatten() for name, _ in net.named_parameters()]
        ).long()

    def factors(self, kept: Tensor) -> Tensor:
        """Return the factor of every entry of the parameter vector, (parameter,).

        Args:
            kept: (unit,), which inputs are kept.
        """
        scales = kept / (1 - self.rates.to(kept.device))
        return torch.cat([scales.new_ones(1), scales]).to(self.unit_of.device)[self.unit_of]


def _declared(net: nn.Module) -> Iterator[tuple[str, float]]:
    """Yield the name of the weight, and the rate, for every layer whose inputs are dropped."""
    for name, module in net.named_modules():
        rate: float = getattr(module, "input_dropout", 0.0)
        if rate > 0:
            yield f"{name}.weight" if name else "weight", rate
