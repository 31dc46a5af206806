"""Copy a network for inference, in evaluation mode and with all constants as buffers.

A posterior is over the trainable parameters. Parameters with `requires_grad=False` and plain
tensors are constants of the function, as buffers are. In the copy they are buffers, so
`named_parameters()` is exactly what is inferred in every layer of the package, and
`named_buffers()` is everything else that a stored run has to keep. Each module remembers which of
its buffers were parameters (`fixed_parameters`), so that they can be counted and stored.
"""

import copy
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bnn_symm.architectures.modules.structure import plain_tensors
from bnn_symm.errors import ConfigError, one_line

_FAST_PATHS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Layers that in evaluation mode may read other layers' weights without their forward pass."""

_FIXED = "_fixed_parameters"
"""Attribute of a module with the names of its buffers that were parameters."""


def private_copy(net: nn.Module, name: str) -> nn.Module:
    """Return a copy of a network in evaluation mode whose constants are buffers.

    The network itself is not changed.

    Args:
        net: the network.
        name: name of the network in messages.

    Raises:
        ConfigError: if it cannot be copied.
    """
    try:
        clone = copy.deepcopy(net)
    except Exception as error:
        raise ConfigError(
            f"{name} cannot be copied ({one_line(f'{type(error).__name__}: {error}', 100)}); "
            "keep only parameters, buffers and plain values in it, no tensors computed in a "
            "forward pass"
        ) from error
    _register_once(clone, set())
    _constants_to_buffers(clone)
    return set_mode(clone, training=False)


class Again(nn.Module):
    """A module that is registered elsewhere, and is called here too.

    `torch.func.functional_call` leaves a module that is registered under several names with the
    values of the call in place of its own, so copies register each module once.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self._modules_elsewhere = (module,)  # a tuple, which does not register it

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """Return what the module returns."""
        return self._modules_elsewhere[0](*args, **keywords)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_modules_elsewhere" not in self.__dict__:  # while it is copied
                raise
            return getattr(self.__dict__["_modules_elsewhere"][0], name)


def _register_once(net: nn.Module, seen: set[nn.Module]) -> None:
    """Replace all but the first registration of a module that has parameters or buffers.

    Args:
        net: the network, changed in place.
        seen: modules that are registered; gets those of the network, in the order of their names.
    """
    for name, child in net._modules.items():  # named_children() leaves out repetitions
        if child in seen:
            net._modules[name] = Again(child)
        elif child is not None and child.state_dict():
            seen.add(child)
            _register_once(child, seen)


def fix_parameters(net: nn.Module, names: Collection[str]) -> None:
    """Turn parameters of a private copy into constants, in place.

    Args:
        net: a private copy, which is changed.
        names: names of parameters, as `named_parameters` gives them.
    """
    for name, value in net.named_parameters():
        if name in names:
            value.requires_grad_(False)
    _constants_to_buffers(net)


def fixed_parameters(net: nn.Module) -> dict[str, Tensor]:
    """Return name -> value of the parameters of a private copy that are constants.

    A parameter that layers share is listed once. Of a weight with fixed entries, the value is the
    vector of the other entries, as its parameter was.

    Args:
        net: a private copy; tensors are not copied.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in net.named_modules():
        for key in vars(module).get(_FIXED, ()):
            value = module._buffers[key]
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                found[f"{path}.{key}" if path else key] = value
    return found


def constants_differ(state: Mapping[str, Tensor], net: nn.Module) -> str | None:
    """Return the first constant of a network whose values differ from a state dict, or None.

    Args:
        state: name -> tensor. Names that the network lacks and integer scalars (counters) are
            ignored.
        net: a private copy.
    """
    for name, value in net.named_buffers():
        stored = state.get(name)
        if stored is None or (value.dim() == 0 and not value.is_floating_point()):
            continue
        same = stored.shape == value.shape and torch.equal(
            stored.detach().to(value.device, value.dtype).nan_to_num(), value.nan_to_num()
        )
        if not same:
            return name
    return None


def set_mode(net: nn.Module, *, training: bool) -> nn.Module:
    """Put a network into training or evaluation mode, and return it.

    Attention layers always take their general path. Without dropout, which is rejected, the mode
    only selects the kernels that compute the same values.

    Args:
        net: the network, which is changed.
        training: whether to use training mode.

    Returns:
        The network.
    """
    net.train(training)
    for module in net.modules():
        if isinstance(module, _FAST_PATHS):
            module.training = True
    return net


def _constants_to_buffers(net: nn.Module) -> None:
    """Turn frozen and empty parameters and plain tensors into buffers, in place."""
    shared: dict[int, Tensor] = {}  # a parameter that two layers share becomes a shared buffer
    for module in net.modules():
        for key, value in list(module._parameters.items()):
            if value is None or (value.requires_grad and value.numel() > 0):
                continue
            constant = shared.setdefault(id(value), value.detach())
            del module._parameters[key]
            module.register_buffer(key, constant)
            setattr(module, _FIXED, (*vars(module).get(_FIXED, ()), key))
            # Recurrent layers keep a list of their weights, which this updates.
            setattr(module, key, constant)
    for _, module, key, value in list(plain_tensors(net)):
        if not hasattr(type(module), key):  # an attribute of the class would hide a buffer
            delattr(module, key)
            module.register_buffer(key, value.detach(), persistent=False)
