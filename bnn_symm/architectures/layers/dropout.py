"""Dropout as a word of a layer: the rate at which its inputs are dropped, by methods that drop.

A layer that was given a rate computes what it did; nothing in a forward pass is random, so that
every other method has the network as it is. Whoever drops does it in the weights: an input that is
dropped is a column of the weight (of a convolution, a channel) times 0, one that is kept times 1 /
(1 - rate).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.fixed_entries import free_parameters, weight_shapes
from bnn_symm.errors import ConfigError


def drop_inputs(layer: nn.Module, rate: float) -> None:
    """Says that the inputs of a layer are dropped at a rate; 0 for never.

    Args:
        layer: `nn.Linear` or `nn.ConvNd`; of grouped convolutions an input is a channel within its
            group.
        rate: probability of being dropped, in [0, 1).

    Raises:
        ConfigError: if the layer is another, or the rate out of range.
    """
    if not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise ConfigError(
            f"drop_inputs: got a {type(layer).__name__}, wanted a linear layer or a convolution"
        )
    if not 0 <= rate < 1:
        raise ConfigError(f"drop_inputs: got a rate of {rate}, wanted a probability below 1")
    declared: Any = layer
    declared.input_dropout = float(rate)


class DroppedInputs:
    """The inputs of layers that may be dropped, and which of a network's free entries each takes
    with it.

    What is fixed of a weight is no free entry and stays.

    Args:
        net: any network; its layers have said their rates.

    Attributes:
        rates: (unit,), of each input of each layer with a rate.
        unit_of: (parameter,), for each entry of the network's flat parameter vector, 1 + the unit
            that it is of, or 0.
    """

    rates: Tensor
    unit_of: Int[Tensor, " parameter"]

    def __init__(self, net: nn.Module):
        # Whole weights have floating entries; float64 numbers units exactly.
        numbers = {
            name: torch.zeros(shape, dtype=torch.float64)
            for name, shape in weight_shapes(net).items()
        }
        rates = []
        count = 0
        for name, rate in _declared(net):
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
        """What every entry of the parameter vector is multiplied by, (parameter,).

        Args:
            kept: (unit,), which inputs are kept.
        """
        scales = kept / (1 - self.rates.to(kept.device))
        return torch.cat([scales.new_ones(1), scales]).to(self.unit_of.device)[self.unit_of]


def _declared(net: nn.Module) -> Iterator[tuple[str, float]]:
    """Name of the weight, and rate, of every layer whose inputs are dropped."""
    for name, module in net.named_modules():
        rate: float = getattr(module, "input_dropout", 0.0)
        if rate > 0:
            yield f"{name}.weight" if name else "weight", rate
