"""What the layers of a module show without a forward pass: kinds of parameters, and layers that
have no density.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from bnn_symm.errors import ConfigError

_RATES = ("drop_prob", "drop_path", "p")
"""Attributes in which layers that drop whole paths (stochastic depth) keep their rate."""


def check_structure(name: str, net: Any, *, is_lazy_allowed: bool = False) -> None:
    """Refuse a module whose layers or parameters cannot have a posterior.

    Nothing is computed, so that the check costs nothing.

    Args:
        name: what messages call the module.
        net: the module.
        is_lazy_allowed: whether layers may still wait for their first batch.

    Raises:
        ConfigError: if it is no module, has nothing to infer, or has batch statistics, dropout,
            norms that keep a state, hooks that hide parameters, or parameters of a kind that has no
            density here.
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
            "be exchanged; give "
            f"the torch.nn.Module that it was made of"
        )
    for layer, module in net.named_modules():
        _check_layer(f"{name} has {type(module).__name__} in {layer or 'its root'!r}", module)
    trainable = {word: value for word, value in net.named_parameters() if value.requires_grad}
    if next(net.parameters(), None) is None:
        raise ConfigError(
            f"{name} is a module without parameters; expected some, there is nothing to infer"
        )
    if not trainable:
        raise ConfigError(
            f"{name}: all parameters have requires_grad=False, so that there is nothing to infer; "
            "call "
            f"requires_grad_(True) on the layers whose weights are unknown"
        )
    if not is_lazy_allowed or not any(is_lazy(value) for value in trainable.values()):
        check_parameters(name, trainable)


def check_parameters(name: str, trainable: dict[str, nn.Parameter]) -> None:
    """Refuse parameters that cannot be entries of one vector of real numbers.

    Args:
        name: what messages call the module.
        trainable: parameter name -> parameter, of those that are to be inferred.

    Raises:
        ConfigError: if one is uninitialized, complex, sparse, without values or of another dtype or
            device.
    """
    first_name, first = next(iter(trainable.items()))
    for word, value in trainable.items():
        where = f"{name}: the parameter {word}"
        if is_lazy(value):
            raise ConfigError(f"{where} has no shape yet; pass one batch through the network first")
        if value.is_complex():
            raise ConfigError(
                f"{where} is complex ({value.dtype}), expected real numbers; keep its real and "
                "imaginary parts as a "
                f"real parameter (torch.view_as_real) and combine them in forward"
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
    """Refuse layers that a comparison of outputs could miss, by their type."""
    if isinstance(module, _BatchNorm) or getattr(module, "track_running_stats", False):
        raise ConfigError(
            f"{described}: batch statistics are refused, since they make one point's likelihood "
            "depend on its batch; use LayerNorm/GroupNorm"
        )
    rate = next(_dropout_rates(module), 0.0)
    if rate > 0:
        raise ConfigError(
            f"{described}: dropout of {rate} is refused, since it makes the likelihood random; the "
            "posterior over the weights takes its place: set it to 0"
        )
    if isinstance(module, nn.RReLU | nn.FractionalMaxPool2d | nn.FractionalMaxPool3d):
        raise ConfigError(
            f"{described}: it draws random numbers in training, which make the likelihood random"
        )
    if type(module).__name__ == "_SpectralNorm" or _has_hook(module, "SpectralNorm"):
        raise ConfigError(
            f"{described}: spectral_norm keeps a state that every pass in training changes, so "
            "that the outputs depend on former calls; remove it, or divide by "
            "torch.linalg.matrix_norm(weight, 2) in forward"
        )
    if _has_hook(module, "WeightNorm"):
        raise ConfigError(
            f"{described}: torch.nn.utils.weight_norm hides the weight behind a hook; use "
            "torch.nn.utils.parametrizations.weight_norm"
        )
    if any(word.endswith("_orig") for word in module._parameters) and any(
        word.endswith("_mask") for word in module._buffers
    ):
        raise ConfigError(
            f"{described}: pruning hides the weight behind a hook; call "
            "torch.nn.utils.prune.remove, or fix entries with bnn_symm.asymmetrize"
        )


def _dropout_rates(module: nn.Module) -> Iterator[float]:
    """Yield the rates at which a layer drops something in training."""
    words = ["dropout"]
    if isinstance(module, _DropoutNd):
        words = ["p"]
    elif "drop" in type(module).__name__.lower() or type(module).__name__ == "StochasticDepth":
        words = ["dropout", *_RATES]
    for word in words:
        rate = getattr(module, word, 0.0)
        if isinstance(rate, int | float):
            yield float(rate)


def _has_hook(module: nn.Module, kind: str) -> bool:
    """Return whether a hook of torch.nn.utils, by the name of its class, computes a weight before
    every pass.
    """
    return any(type(hook).__name__ == kind for hook in module._forward_pre_hooks.values())


def plain_tensors(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Yield full name, module, attribute and tensor of every tensor that is neither a parameter nor
    a buffer.
    """
    for layer, module in net.named_modules():
        for word, value in vars(module).items():
            if isinstance(value, Tensor):
                yield (f"{layer}.{word}" if layer else word), module, word, value
