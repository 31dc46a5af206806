"""Check that the outputs of a network are what its likelihood expects."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.errors import ConfigError
from bnn_symm.models.likelihoods import Bernoulli, Categorical
from bnn_symm.symmetry.inputs import network_inputs

_NUM_POINTS = 16
_FACTORS = (1.0, -3.0, 10.0)
"""Multiples of the parameters: outputs that stay in [0, 1] at all of them are probabilities."""


def check_logits(
    name: str, net: nn.Module, x: Float[Tensor, "point *feature"], likelihood: Any
) -> None:
    """Refuse a network that ends in a softmax or a sigmoid where the likelihood expects logits.

    A log-softmax is accepted: its outputs are logits of the same probabilities.

    Args:
        name: name of the network in messages.
        net: the network, which is not changed.
        x: points of the data; the first few are used.
        likelihood: of the outputs; only likelihoods of classes are checked.

    Raises:
        ConfigError: if the outputs are probabilities.
    """
    if not isinstance(likelihood, Categorical | Bernoulli):
        return
    parameters = {word: value.detach() for word, value in net.named_parameters()}
    outputs = []
    with torch.no_grad():
        for factor in _FACTORS:
            scaled = {word: factor * value for word, value in parameters.items()}
            scaled |= {word: value.clone() for word, value in net.named_buffers()}
            points = network_inputs(net, x[:_NUM_POINTS]).clone()
            outputs.append(functional_call(net, scaled, (points,)))
    values = torch.cat(outputs)
    if not bool(((values >= 0) & (values <= 1)).all()) or bool((values == values[:1]).all()):
        return
    sums = values.sum(-1)
    last = "softmax" if values.shape[-1] > 1 and bool((sums - 1).abs().max() < 1e-3) else "sigmoid"
    raise ConfigError(
        f"{name}: all outputs lie between 0 and 1, as after a {last}, but likelihood "
        f"{likelihood.name} expects logits; remove the last {last} from the network"
    )
