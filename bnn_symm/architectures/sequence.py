"""Recognize networks that are sequences of modules, to compute them without `forward`."""

from torch import nn

from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntriesLinear
from bnn_symm.architectures.mlp import MLP


def module_sequence(net: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Return names and modules of a network that applies them in order to its flattened input.

    Args:
        net: Any network.

    Returns:
        The names and modules, or None if the network is neither an `MLP` nor an `nn.Sequential` of
        modules (nested sequences are resolved), or if it has hooks.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in net.modules()):
        return None
    names = {module: name for name, module in net.named_modules()}
    if type(net) is MLP:
        return [(names[module], module) for module in net.in_order()]
    if type(net) is not nn.Sequential:
        return None
    modules = [
        module
        for name, module in net.named_modules(remove_duplicate=False)
        if name and not list(module.children())
    ]
    if any(
        type(module) is not nn.Sequential for module in net.modules() if list(module.children())
    ):
        return None
    if (
        modules
        and type(modules[0]) is nn.Flatten
        and (modules[0].start_dim, modules[0].end_dim) == (1, -1)
    ):
        modules = modules[1:]
    return [(names[module], module) for module in modules]


def is_linear(module: nn.Module) -> bool:
    """Return whether a layer computes `weight @ x + bias` of its whole weight.

    A subclass of a linear layer may compute something else.
    """
    return type(module) in (nn.Linear, FixedEntriesLinear)
