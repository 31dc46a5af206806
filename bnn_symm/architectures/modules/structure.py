"""Check a module's layers and parameters without a forward pass."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from bnn_symm.architectures.modules.batch_norm import refusal
from bnn_symm.errors import ConfigError

_RATES = ("drop_prob", "drop_path", "p")
"""Attributes in which layers that drop whole paths (stochastic depth) store their rate."""


def check_structure(name: str, net: Any, *, is_lazy_allowed: bool = False) -> None:
    """Reject a module whose layers or parameters cannot have a posterior.

    Nothing is computed, so the check is cheap.

    Args:
        name: name of the module in messages.
        net: the module.
        is_lazy_allowed: whether layers may still wait for their first batch.

    Raises:
        ConfigError: if it is no module, has nothing to infer, or has batch statistics, dropout,
            norms that keep a state, hooks that hide parameters, or parameters that cannot have a
            density.
    """
    if not isinstance(net, nn.Module):
        got = (
            f"the class {net.__name__}"
            if isinstance(net, type)
            else f"an object of type {type(net).__name__}"
        )
        raise ConfigError(f"{name}: got {got}, expected a torch.nn.Module")
    if any(
        isinstance(module, torch.jit.ScriptModule | nn.DataParallel) for module in net.modules()
    ):
        raise ConfigError(
            f"{name} is compiled by torch.jit or wrapped by DataParallel, whose parameters cannot "
            "be replaced; pass the original torch.nn.Module"
        )
    for layer, module in net.named_modules():
        _check_layer(f"{name} has {type(module).__name__} in {layer or 'its root'!r}", module)
    trainable = {key: value for key, value in net.named_parameters() if value.requires_grad}
    if next(net.parameters(), None) is None:
        raise ConfigError(
            f"{name} is a module without parameters; expected at least one, there is nothing to "
            "infer"
        )
    if not trainable:
        raise ConfigError(
            f"{name}: all parameters have requires_grad=False, so there is nothing to infer; call "
            "requires_grad_(True) on the layers whose weights are to be inferred"
        )
    if not is_lazy_allowed or not any(is_lazy(value) for value in trainable.values()):
        check_parameters(name, trainable)


def check_parameters(name: str, trainable: dict[str, nn.Parameter]) -> None:
    """Reject parameters that cannot be entries of one vector of real numbers.

    Args:
        name: name of the module in messages.
        trainable: parameter name -> parameter, for those that are to be inferred.

    Raises:
        ConfigError: if one is uninitialized, complex, sparse, without values, or differs in dtype
            or device.
    """
    first_name, first = next(iter(trainable.items()))
    for key, value in trainable.items():
        where = f"{name}: the parameter {key}"
        if is_lazy(value):
            raise ConfigError(f"{where} has no shape yet; pass one batch through the network first")
        if value.is_complex():
            raise ConfigError(
                f"{where} is complex ({value.dtype}), expected real numbers; keep its real and "
                "imaginary parts as a real parameter (torch.view_as_real) and combine them in "
                "forward"
            )
        if value.layout is not torch.strided:
            raise ConfigError(
                f"{where} is sparse ({value.layout}), expected a dense tensor; call .to_dense()"
            )
        if value.device.type == "meta":
            raise ConfigError(
                f"{where} is on the meta device, which holds no values; call to_empty and "
                "initialize it"
            )
        if (value.dtype, value.device) != (first.dtype, first.device):
            raise ConfigError(
                f"{where} is {value.dtype} on {value.device}, {first_name} is {first.dtype} on "
                f"{first.device}; expected one dtype and one device: call .to(device, dtype) on "
                "the network"
            )


def _check_layer(described: str, module: nn.Module) -> None:
    """Reject layers by type whose effect a comparison of outputs could miss."""
    if isinstance(module, _BatchNorm):
        raise ConfigError(refusal(described))
    if getattr(module, "track_running_stats", False):
        raise ConfigError(
            f"{described}: batch statistics are not supported, since the likelihood of a point "
            "would depend on its batch; use LayerNorm/GroupNorm"
        )
    rate = next(_dropout_rates(module), 0.0)
    if rate > 0:
        raise ConfigError(
            f"{described}: dropout of {rate} is not supported, since it makes the likelihood "
            "random; set it to 0, the posterior over the weights replaces it"
        )
    if isinstance(module, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
        raise ConfigError(
            f"{described}: it draws random numbers in training mode, which makes the likelihood "
            "random; use a deterministic layer"
        )
    if type(module).__name__ == "_SpectralNorm" or _has_hook(module, "SpectralNorm"):
        raise ConfigError(
            f"{described}: spectral_norm updates a state in every training pass, so the outputs "
            "depend on former calls; remove it"
        )
    if _has_hook(module, "WeightNorm"):
        raise ConfigError(
            f"{described}: torch.nn.utils.weight_norm hides the weight behind a hook; use "
            "torch.nn.utils.parametrizations.weight_norm"
        )
    if any(key.endswith("_orig") for key in module._parameters) and any(
        key.endswith("_mask") for key in module._buffers
    ):
        raise ConfigError(
            f"{described}: pruning hides the weight behind a hook; call "
            "torch.nn.utils.prune.remove, or fix entries with bnn_symm.asymmetrize"
        )


def _dropout_rates(module: nn.Module) -> Iterator[float]:
    """Yield the rates of a layer at which it drops something in training."""
    keys = ["dropout"]
    if isinstance(module, _DropoutNd):
        keys = ["p"]
    elif "drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth":
        keys = ["dropout", *_RATES]
    for key in keys:
        rate = getattr(module, key, 0.0)
        if isinstance(rate, int | float):
            yield float(rate)


def _has_hook(module: nn.Module, kind: str) -> bool:
    """Return whether a hook of torch.nn.utils of this class computes a weight before every pass."""
    return any(type(hook).__name__ == kind for hook in module._forward_pre_hooks.values())


def plain_tensors(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield full name, module, attribute and tensor of each tensor attribute.

    Parameters and buffers are left out.
    """
    for layer, module in net.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                yield (f"{layer}.{key}" if layer else key), module, key, value
