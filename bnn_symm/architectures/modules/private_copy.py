"""A copy of a network for inference: in evaluation mode, with everything that is not inferred among
its buffers.

A posterior is about the trainable parameters. Parameters with `requires_grad=False` and plain
tensors are constants of the function, as buffers are. In the copy they are buffers, so that
`named_parameters()` is exactly what is inferred, in every layer of the package, and
`named_buffers()` everything else that the copy of a run has to keep.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bnn_symm.architectures.modules.structure import plain_tensors
from bnn_symm.errors import ConfigError, one_line

_FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Layers that in evaluation mode may read the weights of others past their forward pass."""


def private_copy(net: nn.Module, name: str) -> nn.Module:
    """Return a copy of a network in evaluation mode, whose constants are buffers; the network is
    not changed.

    Args:
        net: the network.
        name: what messages call it.

    Raises:
        ConfigError: if it cannot be copied.
    """
    try:
        twin = copy.deepcopy(net)
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be copied ({one_line(f'{type(error).__name__}: {error}', 100)}); "
            "remove what it keeps "
            "besides parameters, buffers and plain values, such as tensors computed in a forward "
            "pass"
        ) from error
    _constants_to_buffers(twin)
    return set_mode(twin, training=False)


def constants_differ(state: Mapping[str, Tensor], net: nn.Module) -> str | None:
    """Return the first constant of a network that has other values in a state dict; None if there
    is none.

    Args:
        state: name -> tensor; names that the network lacks are not looked at, and counters neither.
        net: a private copy.
    """
    for name, value in net.named_buffers():
        theirs = state.get(name)
        if theirs is None or (value.dim() == 0 and not value.is_floating_point()):
            continue
        same = theirs.shape == value.shape and torch.equal(
            theirs.detach().to(value.device, value.dtype).nan_to_num(), value.nan_to_num()
        )
        if not same:
            return name
    return None


def set_mode(net: nn.Module, *, training: bool) -> nn.Module:
    """Put a network into training or evaluation mode, and return it.

    Attention keeps its general path in evaluation mode: without dropout, which is refused, the mode
        changes nothing but
    which kernels compute the same numbers.
    """
    net.train(training)
    for module in net.modules():
        if isinstance(module, _FAST_PATHS):
            module.training = True
    return net


def _constants_to_buffers(net: nn.Module) -> None:
    """Make buffers of frozen parameters, of parameters without entries, and of plain tensors, in
    place.
    """
    shared: dict[int, Tensor] = {}  # a parameter of two layers becomes one buffer of both
    for module in net.modules():
        for word, value in list(module._parameters.items()):
            if value is None or (value.requires_grad and value.numel() > 0):
                continue
            constant = shared.setdefault(id(value), value.detach())
            del module._parameters[word]
            module.register_buffer(word, constant)
            setattr(
                module, word, constant
            )  # recurrent layers keep a list of their weights, which follows this
    for _, module, word, value in list(plain_tensors(net)):
        if not hasattr(type(module), word):  # an attribute of the class would hide a buffer
            delattr(module, word)
            module.register_buffer(word, value.detach(), persistent=False)
