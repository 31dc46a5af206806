"""Networks that are one module after another, so that they can be computed in another way than by
their `forward`.
"""

from torch import nn

from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntriesLinear
from bnn_symm.architectures.mlp import MLP


def module_sequence(net: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Names and modules of a network that applies them in this order to its flattened input.

    Args:
        net: Any network.

    Returns:
        None if that is not all that the network does: if it is neither an `MLP` nor an
            `nn.Sequential` of modules
        (sequences within it are resolved), or has hooks.
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
    """Whether a layer computes `weight @ x + bias` of its whole weight, as a subclass of a linear
    layer may not.
    """
    return type(module) in (nn.Linear, FixedEntriesLinear)
