"""What a user's module must satisfy before a posterior over its weights means anything."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bnn_symm.errors import ConfigError
from bnn_symm.randomness import torch_generator

NUM_PROBES = 4
"""Random points on which a batch is compared with its single points; a few suffice to see any dependence."""


def check_module(name: str, net: Any, input_shape: tuple[int, ...], num_outputs: int) -> None:
    """Refuses a module that is not a deterministic function of one point and its parameters.

    Args:
        name: What messages call the module.
        net: What the factory returned.
        input_shape: Shape of one point.
        num_outputs: Length of the output of one point that is wanted.

    Raises:
        ConfigError: If it is no module or has no parameters, if a pass on two zero points fails or does not
            give (2, num_outputs), if it has batch statistics or dropout, or if outputs are not finite, or in
            training mode change with the batch, from pass to pass, or against evaluation mode.
    """
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{name} returned an object of type {type(net).__name__}, want a torch.nn.Module")
    if next(net.parameters(), None) is None:
        raise ConfigError(f"{name} returned a module without parameters, want some: there is nothing to infer")
    _check_layers(name, net)
    training = net.training
    net.eval()  # the first pass is also what gives lazy layers their parameters
    _check_output(name, net, input_shape, num_outputs)
    _check_function(name, net, input_shape)
    net.train(training)


def _check_layers(name: str, net: nn.Module) -> None:
    """Finds by type what a comparison of outputs could miss, and says which layer it is."""
    for layer, module in net.named_modules():
        described = f"{name} has {type(module).__name__} in {layer or 'its root'!r}"
        if isinstance(module, _BatchNorm) or getattr(module, "track_running_stats", False):
            raise ConfigError(
                f"{described}: batch statistics are refused, since they make one point's likelihood depend "
                "on its batch; use LayerNorm/GroupNorm"
            )
        rate = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
        if isinstance(rate, int | float) and rate > 0:
            raise ConfigError(
                f"{described}: dropout of {rate} is refused, since it makes the likelihood random; the "
                "posterior over the weights takes its place: set it to 0"
            )


def _check_output(name: str, net: nn.Module, input_shape: tuple[int, ...], num_outputs: int) -> None:
    """One pass on two zero points gives a tensor of shape (2, num_outputs)."""
    output = _output(name, net, _like_parameters(net, torch.zeros(2, *input_shape)))
    wanted = (2, num_outputs)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        got = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(f"{name}: got an output of type {got}, want one tensor of real numbers, of shape {wanted}")
    if tuple(output.shape) != wanted:
        raise ConfigError(
            f"{name}: got outputs of shape {tuple(output.shape)} for two points, want {wanted}; let the "
            "factory take num_outputs and use it for its last layer"
        )


def _check_function(name: str, net: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Outputs do not change with the batch, with the pass, or with the mode."""
    generator = torch_generator("module probes")
    points = _like_parameters(net, torch.randn(NUM_PROBES, *input_shape, generator=generator))
    net.train()
    batch = _output(name, net, points)
    again = _output(name, net, points)
    singles = torch.cat([_output(name, net, point[None]) for point in points])
    net.eval()
    evaluated = _output(name, net, points)
    if not batch.isfinite().all():
        raise ConfigError(
            f"{name}: outputs are NaN or infinite for standard normal inputs, want finite ones; look at the "
            "initial values and at divisions"
        )
    if not _equal(batch, again):
        raise ConfigError(
            f"{name}: two passes on the same points differ; a module may draw no random numbers in its "
            "forward, since they make the likelihood random: remove them"
        )
    if not _equal(batch, singles):
        raise ConfigError(
            f"{name}: the output of a point changes with the batch it is in, which makes one point's "
            "likelihood depend on its batch; use LayerNorm/GroupNorm and compute nothing over the first axis"
        )
    if not _equal(batch, evaluated):
        raise ConfigError(
            f"{name}: outputs differ between training and evaluation mode, want one function; remove what "
            "looks at `self.training`"
        )


def _output(name: str, net: nn.Module, points: Tensor) -> Any:
    """What a pass gives that leaves the module's buffers alone, whatever it does to them."""
    buffers = {word: value.clone() for word, value in net.named_buffers()}
    try:
        with torch.no_grad():
            return functional_call(net, buffers, (points,))
    except Exception as error:
        mode = "training" if net.training else "evaluation"
        raise ConfigError(
            f"{name}: a forward pass in {mode} mode on points of shape {tuple(points.shape)} raised "
            f"{type(error).__name__}: {error}; want a pass for any number of points of this shape"
        ) from error


def _equal(first: Tensor, second: Tensor) -> bool:
    """Equal up to the reordering of sums: half of the digits, far above rounding, far below a dependence."""
    if first.shape != second.shape:
        return False
    tolerance = math.sqrt(torch.finfo(first.dtype).eps) * (1.0 + float(first.abs().max()))
    return bool((first - second).abs().max() <= tolerance)


def _like_parameters(net: nn.Module, points: Tensor) -> Tensor:
    """Points in the dtype and on the device of the parameters."""
    parameter = next(net.parameters())
    return points.to(device=parameter.device, dtype=parameter.dtype)
