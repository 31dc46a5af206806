"""Check that a user's module has a well-defined density over its weights.

A density has one value at each vector of weights. The outputs of a point must therefore be a
function of this point and of the parameters: not of the other points, former calls, random numbers,
the mode, or anything that a pass changes.
"""

import copy
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.lazy import LazyModuleMixin

from bnn_symm.architectures.modules.private_copy import private_copy, set_mode
from bnn_symm.architectures.modules.structure import check_parameters, check_structure
from bnn_symm.errors import ConfigError, one_line
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.inputs import input_points, network_inputs
from bnn_symm.symmetry.tracing.dropout_calls import DropoutCalls

NUM_PROBES = 4
"""Number of points on which a batch is compared with its single points; a few reveal any
dependence."""


def check_module(
    name: str,
    net: Any,
    input_shape: tuple[int, ...],
    num_outputs: int,
    points: Tensor | None = None,
) -> None:
    """Reject a module that is not a deterministic function of one point and its parameters.

    The module is not changed, except that lazy layers get their parameters.

    Args:
        name: Name of the module in messages.
        net: The object that the factory returned.
        input_shape: Shape of one point.
        num_outputs: Expected length of the output of one point.
        points: Points of the data, (point, *input_shape); default standard normals, or random
            tokens for a network that embeds them.

    Raises:
        ConfigError: As `check_structure`; or if a pass fails or does not return (point,
            num_outputs), or if outputs are not finite, change with the batch, from pass to pass or
            with the mode, or have no gradient.
    """
    check_structure(name, net, is_lazy_allowed=True)
    if points is None:
        points = input_points(net, input_shape, NUM_PROBES)
        points = points.float() if points.is_floating_point() else points
    with preserve_global_state():
        _fill_lazy_layers(name, net, points)
    check_parameters(
        name, {key: value for key, value in net.named_parameters() if value.requires_grad}
    )
    check_function(name, private_copy(net, name), points, num_outputs)


def check_function(
    name: str, net: nn.Module, points: Float[Tensor, "point *feature"], num_outputs: int | None
) -> int:
    """Reject a network whose outputs are not a function of one point and of its parameters.

    Args:
        name: Name of the network in messages.
        net: A private copy, which is not changed.
        points: Points of the data; the first few are used.
        num_outputs: Expected length of the output of one point; None for any.

    Returns:
        The length of the output of one point.

    Raises:
        ConfigError: As `check_module`.
    """
    points = network_inputs(net, points[:NUM_PROBES].detach())
    try:
        return _check_function(name, net, points, num_outputs)
    except _OutputsDiffer:
        # Rounding grows through deep networks, and may look like a dependence in float32.
        if next(net.parameters()).dtype == torch.float64:
            raise
        try:
            net = copy.deepcopy(net).double()
            return _check_function(name, net, network_inputs(net, points), num_outputs)
        except ConfigError:
            pass
        raise


class _OutputsDiffer(ConfigError):
    """Outputs that should agree do not."""


def _check_function(name: str, net: nn.Module, points: Tensor, num_outputs: int | None) -> int:
    current = {key: value.detach().clone() for key, value in net.named_parameters()}
    perturbed = _perturbed(current)
    with torch.inference_mode(False), preserve_global_state():
        if _is_known(net):
            outputs = _outputs(name, copy.deepcopy(net), current, points)
            _check_shape(name, outputs, points, next(net.parameters()).dtype, num_outputs)
            return outputs.shape[-1]
        evaluated = _check_mode(
            name, net, points, current, perturbed, training=False, num_outputs=num_outputs
        )
        trained = _check_mode(
            name, net, points, current, perturbed, training=True, num_outputs=num_outputs
        )
        if not all(
            outputs_agree(first, second) for first, second in zip(evaluated, trained, strict=True)
        ):
            raise _OutputsDiffer(
                f"{name}: outputs differ between training and evaluation mode, want one function; "
                "remove code that reads `self.training`"
            )
        _check_gradient(name, net, points)
        _check_recomputation(name, net, points, perturbed)
        return evaluated[0].shape[-1]


def _is_known(net: nn.Module) -> bool:
    """Return whether a network has modules of this package and torch only, and needs no check."""
    from_package = [type(module).__module__.startswith("bnn_symm.") for module in net.modules()]
    from_torch = [
        type(module).__module__.startswith("torch.nn.modules.") for module in net.modules()
    ]
    hooks = any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    return (
        from_package[0]
        and not hooks
        and all(a or b for a, b in zip(from_package, from_torch, strict=True))
    )


def _check_mode(
    name: str,
    net: nn.Module,
    points: Tensor,
    current: Mapping[str, Tensor],
    perturbed: Mapping[str, Tensor],
    *,
    training: bool,
    num_outputs: int | None,
) -> tuple[Tensor, Tensor]:
    """Compare passes in one mode, and return the outputs at both sets of parameters."""

    def fresh() -> nn.Module:
        return set_mode(copy.deepcopy(net), training=training)

    before = _generator_states()
    first = _outputs(name, fresh(), current, points)
    _check_shape(name, first, points, next(net.parameters()).dtype, num_outputs)
    again, other = (
        _outputs(name, fresh(), current, points),
        _outputs(name, fresh(), perturbed, points),
    )
    if not first.isfinite().all():
        raise ConfigError(
            f"{name}: outputs are NaN or infinite for points of the data or standard normals, want "
            "finite ones; check the initial values and divisions"
        )
    if _generator_states() != before or not outputs_agree(first, again):
        net = fresh()
        with DropoutCalls(net) as calls:
            _outputs(name, net, current, points)
        if calls.rate > 0:
            raise ConfigError(
                f"{name}: forward calls dropout of {calls.rate:g} {calls.position}, which makes "
                "the likelihood random; set it to 0, the posterior over the weights replaces it"
            )
        raise _OutputsDiffer(
            f"{name}: two passes on the same points differ, or draw random numbers, which makes "
            "the likelihood random; remove random numbers, clocks and other changes from forward"
        )
    used = fresh()
    states = [_outputs(name, used, values, points) for values in (current, perturbed, current)]
    if not all(
        outputs_agree(got, wanted)
        for got, wanted in zip(states, (first, other, first), strict=True)
    ):
        raise _OutputsDiffer(
            f"{name}: outputs depend on former calls (a pass changes a buffer or an attribute that "
            "later passes read); want a function of the point and the parameters only: remove this "
            "state"
        )
    singles = torch.cat([_outputs(name, used, current, point[None]) for point in points])
    reverse = _outputs(name, used, current, points.flip(0)).flip(0)
    if not outputs_agree(first, singles) or not outputs_agree(first, reverse):
        raise _OutputsDiffer(
            f"{name}: the output of a point changes with the batch it is in, so its likelihood "
            "would depend on the batch; use LayerNorm/GroupNorm and compute nothing over the first "
            "axis"
        )
    return first, other


def _check_shape(
    name: str, outputs: Tensor, points: Tensor, dtype: torch.dtype, num_outputs: int | None
) -> None:
    """Reject outputs of a shape other than (point, output), or of another dtype."""
    wanted = (
        len(points),
        outputs.shape[-1] if num_outputs is None and outputs.dim() else num_outputs,
    )
    if tuple(outputs.shape) != wanted:
        raise ConfigError(
            f"{name}: got outputs of shape {tuple(outputs.shape)} for {len(points)} points, want "
            f"{wanted}; give the last layer the outputs that data and likelihood need (a factory "
            "gets num_outputs)"
        )
    if outputs.dtype != dtype:
        raise ConfigError(
            f"{name}: got outputs of {outputs.dtype} with parameters of {dtype}, want the "
            "same; remove conversions of dtype from forward"
        )


def _check_gradient(name: str, net: nn.Module, points: Tensor) -> None:
    """Reject parameters that affect outputs without a gradient, and passes that keep a graph."""
    clone = copy.deepcopy(net)
    with torch.enable_grad():
        leaves = {
            key: value.detach().clone().requires_grad_() for key, value in clone.named_parameters()
        }
        outputs = _forward(name, clone, leaves, points.clone())
    grads: Any = [None] * len(leaves)
    if outputs.requires_grad:
        grads = torch.autograd.grad(outputs.sum(), list(leaves.values()), allow_unused=True)
    missing = [key for key, grad in zip(leaves, grads, strict=True) if grad is None]
    values = {key: value.detach() for key, value in leaves.items()}
    perturbed = _perturbed(values)
    for key in missing:
        changed = _outputs(name, copy.deepcopy(net), {**values, key: perturbed[key]}, points)
        if not outputs_agree(changed, outputs.detach()):
            raise ConfigError(
                f"{name}: outputs depend on {key}, but it gets no gradient; remove detach, no_grad "
                "and NumPy from forward, or set requires_grad=False for a layer that is constant"
            )
    if len(missing) == len(leaves):
        raise ConfigError(
            f"{name}: outputs do not depend on any parameter, so there is nothing to infer; use "
            "the parameters in forward"
        )
    for layer, module in clone.named_modules():
        for key, value in [*vars(module).items(), *module._buffers.items()]:
            if isinstance(value, Tensor) and value.grad_fn is not None:
                raise ConfigError(
                    f"{name}: forward keeps a tensor that it computed as "
                    f"{f'{layer}.{key}'.lstrip('.')}; return it, or keep a detached copy"
                )


def _check_recomputation(
    name: str, net: nn.Module, points: Tensor, values: Mapping[str, Tensor]
) -> None:
    """Reject a network whose gradient at given parameters is that at its own ones.

    Activation checkpoints run the forward pass again during the backward pass, when the given
    parameters have been taken out of the network.
    """
    given = {key: value.clone().requires_grad_() for key, value in values.items()}
    own = copy.deepcopy(net)
    with torch.no_grad():
        for key, value in own.named_parameters():
            value.copy_(values[key]).requires_grad_()
    try:
        with torch.enable_grad():
            outputs = _forward(name, copy.deepcopy(net), given, points.clone())
            expected = own(points.clone())
            gradients, own_gradients = (
                torch.autograd.grad(out.sum(), list(leaves.values()), allow_unused=True)
                for out, leaves in ((outputs, given), (expected, dict(own.named_parameters())))
            )
    except ConfigError:
        raise
    except Exception as error:
        text = one_line(f"{type(error).__name__}: {error}", 120)
        raise ConfigError(
            f"{name}: its gradient raised {text}; remove torch.utils.checkpoint and other code "
            "that runs in the backward pass"
        ) from error
    for key, gradient, own_gradient in zip(given, gradients, own_gradients, strict=True):
        if gradient is None or own_gradient is None:
            continue
        if gradient.isfinite().all() and not outputs_agree(gradient, own_gradient):
            raise _OutputsDiffer(
                f"{name}: the gradient of {key} at given parameters is another than with these "
                "parameters in the network, as with activation checkpoints, which run forward "
                "again in the backward pass; remove torch.utils.checkpoint"
            )


def _outputs(name: str, net: nn.Module, values: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Return the outputs of a pass that must change neither its input nor the parameters."""
    given, used = points.clone(), {key: value.clone() for key, value in values.items()}
    with torch.no_grad():
        outputs = _forward(name, net, used, given).clone()
    if not torch.equal(given.nan_to_num(), points.nan_to_num()):
        raise ConfigError(
            f"{name}: forward changes its input in place, which changes the data of later passes; "
            "work on a copy, such as x = x - 1 instead of x -= 1"
        )
    for key, value in used.items():
        if not torch.equal(value.nan_to_num(), values[key].nan_to_num()):
            raise ConfigError(
                f"{name}: forward changes its parameter {key} in place; compute a new tensor from "
                "it"
            )
    return outputs


def _forward(name: str, net: nn.Module, values: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Return the result of a pass, which must be one tensor of real numbers."""
    try:
        outputs = functional_call(net, dict(values), (points,))
    except Exception as error:
        mode = "training" if net.training else "evaluation"
        raise ConfigError(
            f"{name}: a forward pass in {mode} mode on points of shape {tuple(points.shape)} "
            f"raised {one_line(f'{type(error).__name__}: {error}', 120)}; want a pass for any "
            "number of points of this shape"
        ) from error
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        got = str(outputs.dtype) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ConfigError(f"{name}: got an output of type {got}, want one tensor of real numbers")
    return outputs


def _fill_lazy_layers(name: str, net: nn.Module, points: Tensor) -> None:
    """Make the pass that gives lazy layers their parameters, if there are any; buffers are kept."""
    if not any(isinstance(module, LazyModuleMixin) for module in net.modules()):
        return
    parameter, was_training = next(net.parameters()), net.training
    buffers = {key: value.clone() for key, value in net.named_buffers()}
    net.eval()
    with torch.no_grad():
        _forward(name, net, buffers, points[:2].to(parameter.device, parameter.dtype))
    net.train(was_training)


def _perturbed(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters well away from the given ones, of the same signs to keep roots defined."""
    generator = torch_generator("perturbed parameters")
    perturbed = {}
    for key, value in values.items():
        factor = torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
        added = 0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64)
        factor, added = factor.to(value.device, value.dtype), added.to(value.device, value.dtype)
        perturbed[key] = value * factor + torch.where(value < 0, -added, added)
    return perturbed


@contextmanager
def preserve_global_state() -> Iterator[None]:
    """Restore the global generators of torch, NumPy and Python on exit."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's module may draw from it
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _generator_states() -> tuple[Any, ...]:
    """Return the states of the global CPU generators, which change when a pass draws from them."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), state[1].tobytes(), state[2], random.getstate()


def outputs_agree(first: Tensor, second: Tensor) -> bool:
    """Return whether outputs are equal up to the reordering of sums.

    The tolerance is half of the digits, far above rounding and far below a dependence; NaN equals
    NaN.
    """
    if first.shape != second.shape:
        return False
    size = first.nan_to_num(0.0, 0.0, 0.0).abs().max() if first.numel() else 0.0
    tolerance = math.sqrt(torch.finfo(first.dtype).eps) * (1.0 + float(size))
    return bool(torch.isclose(first, second, rtol=0.0, atol=tolerance, equal_nan=True).all())
