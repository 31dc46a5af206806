"""Replace batch norm, whose outputs in training mode depend on the other points of the batch.

With statistics of the batch, the likelihood does not factorize over points, so there is no
posterior to sample. Two replacements have one:

- frozen: the running statistics become constants (`FrozenBatchNorm`); scale and offset remain
  parameters. Statistics of a trained module are kept. Those of a new one (mean 0, variance 1) are
  estimated once, in one pass over training inputs at the initial weights: so they exist before the
  fit, and every stage, chain and member of an ensemble has the same likelihood.
- converted: layer norm over all channels, `nn.GroupNorm(1, channels)`, with the scale and offset of
  the batch norm. Its statistics are sums over all channels of a point, so that every permutation of
  the channels remains a symmetry. Several groups would leave only permutations of whole groups. A
  filter response norm would keep all of them too, but retains little more than the sign of a
  unit without height and width, so it cannot replace `nn.BatchNorm1d`.

Both keep what follows the norm in a subclass that is batch norm and then its own submodules, such
as the dropout and the activation in `BatchNormAct2d` of timm.
"""

import copy
import inspect
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from bnn_symm.advice import advise, advise_setting
from bnn_symm.architectures.config import BatchNorm
from bnn_symm.architectures.layers.batch_norm import FrozenBatchNorm
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import torch_generator
from bnn_symm.summaries import Result
from bnn_symm.symmetry.inputs import network_inputs

MAX_POINTS, MAX_ENTRIES = 10_000, 10_000_000
"""Most training inputs from which statistics are estimated, and most entries that these have: they
pass through the network as one batch, in which every layer sees the final statistics of those
before it."""

_TRIAL_POINTS = 64
# Class -> numbers of axes that its inputs may have after the channels.
_POSITIONS = {nn.BatchNorm2d: (2,), nn.BatchNorm3d: (3,)}


@dataclass(frozen=True, kw_only=True)
class BatchNormReport(Result):
    """Describe what replaced the batch norm of a network.

    Attributes:
        mode: `frozen` or `convert`.
        layers: Names of the layers.
        estimated: Those of the layers whose statistics were estimated; the others were trained.
        num_points: Training inputs in the estimate and in `relative_change`.
        relative_change: Of `convert`: root mean square of the change of the outputs, relative to
            that of the outputs of the frozen network, at the initial weights; None without inputs.
        taken_from: The run, or the prior mean, whose statistics replaced the estimated ones.
    """

    mode: BatchNorm
    layers: list[str]
    estimated: list[str]
    num_points: int
    relative_change: float | None = None
    taken_from: str | None = None

    @property
    def note(self) -> str:
        """Return a sentence for the user."""
        number = f"{len(self.layers)} batch norm layer{'s' if len(self.layers) > 1 else ''}"
        if self.mode == "convert":
            change = (
                ""
                if self.relative_change is None
                else f"; outputs at the start changed by {self.relative_change:.3g} of their size, "
                f"on {self.num_points} training inputs"
            )
            return f"{number} replaced by layer norm{change}"
        if not self.estimated:
            return f"{number} frozen at the statistics of {self.taken_from or 'the module'}"
        which = "" if len(self.estimated) == len(self.layers) else f" in {len(self.estimated)}"
        return (
            f"{number} frozen; statistics estimated{which} from {self.num_points} training inputs "
            "at the initial weights"
        )


def refusal(described: str) -> str:
    """Return the message that refuses batch norm and names its replacements.

    Args:
        described: The layer and its network.
    """
    frozen, converted = (
        advise(
            advise_setting(f"architecture.batch_norm={mode}"),
            f"batch_norm={mode} or {function}",
        )
        for mode, function in (
            ("frozen", "freeze_batch_norm(net, inputs)"),
            ("convert", "convert_batch_norm(net)"),
        )
    )
    return (
        f"{described}: batch statistics are not supported, since the likelihood of a point would "
        f"depend on its batch; {frozen} makes them constants, {converted} puts layer norm in its "
        "place"
    )


@checked
def freeze_batch_norm(
    net: nn.Module, inputs: Shaped[Tensor, "point *feature"] | None = None
) -> nn.Module:
    """Return a copy of a network whose batch norm has constant statistics.

    Args:
        net: The network; it is not changed.
        inputs: Training inputs, from which the statistics of layers that were never trained are
            estimated at the present weights. At most 10,000 are used, fewer of large ones.

    Returns:
        The copy, with `FrozenBatchNorm` layers and the attribute `batch_norm_report`.

    Raises:
        ConfigError: If there is no batch norm, it cannot be replaced, or it was never trained and
            there are no inputs.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        >>> freeze_batch_norm(net, torch.randn(20, 3))[1]
        FrozenBatchNorm(4, eps=1e-05, affine=True)
    """
    return resolve_statistics(_frozen_copy(net), "frozen", inputs)


@checked
def convert_batch_norm(
    net: nn.Module, inputs: Shaped[Tensor, "point *feature"] | None = None
) -> nn.Module:
    """Return a copy of a network with layer norm over all channels in place of batch norm.

    Args:
        net: The network; it is not changed.
        inputs: Training inputs, on which the change of the outputs is measured.

    Returns:
        The copy, with `nn.GroupNorm(1, channels)` layers and the attribute `batch_norm_report`.

    Raises:
        ConfigError: If there is no batch norm, or it cannot be replaced.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        >>> convert_batch_norm(net)[1].num_groups
        1
    """
    return resolve_statistics(_frozen_copy(net), "convert", inputs)


def _frozen_copy(net: nn.Module) -> nn.Module:
    """Return a copy of a network with frozen layers."""
    name = type(net).__name__
    check_replaceable(net, name)  # before the copy, since layers without a shape have none
    return with_frozen_layers(copy.deepcopy(net), name)


def with_frozen_layers(net: nn.Module, name: str) -> nn.Module:
    """Return a network with `FrozenBatchNorm` in place of batch norm, changed in place.

    Args:
        net: The network.
        name: Name of the network in messages.

    Raises:
        ConfigError: If there is no batch norm, or a layer cannot be replaced.
    """
    check_replaceable(net, name)
    return _replaced(net, lambda m: _frozen_module(m) if isinstance(m, _BatchNorm) else None)


def check_replaceable(net: nn.Module, name: str) -> None:
    """Refuse a network without batch norm, or with batch norm that cannot be replaced.

    Args:
        net: The network.
        name: Name of the network in messages.

    Raises:
        ConfigError: If there is no batch norm, or a layer cannot be replaced.
    """
    layers = {layer: m for layer, m in net.named_modules() if isinstance(m, _BatchNorm)}
    if not layers:
        raise ConfigError(
            f"{name} has no batch norm, so there is nothing to freeze or convert; leave out "
            "architecture.batch_norm"
        )
    for layer, module in layers.items():
        if isinstance(module, LazyModuleMixin):
            raise ConfigError(
                f"{name} has {type(module).__name__} in {layer!r}, which has no shape yet; pass "
                "one batch through the network in the factory"
            )
        if not _is_norm_and_submodules(module):
            raise ConfigError(
                f"{name} has {type(module).__name__} in {layer!r}, a class of its own that "
                "computes something else than batch norm, followed by its submodules in their "
                "order; use the class of torch.nn"
            )


def resolve_statistics(net: nn.Module, mode: BatchNorm, inputs: Tensor | None = None) -> nn.Module:
    """Return a network with frozen layers after their statistics, or their layer norm, are set.

    Args:
        net: A network with `FrozenBatchNorm` layers, changed in place.
        mode: `frozen` or `convert`.
        inputs: Training inputs.

    Raises:
        ConfigError: As `freeze_batch_norm`.
    """
    layers = frozen_layers(net)
    untrained = [name for name, module in layers.items() if module.is_untrained]
    x = None if inputs is None else network_inputs(net, first_inputs(inputs))
    if untrained and x is None and mode == "frozen":
        raise ConfigError(
            f"the batch norm in {untrained[0]!r} was never trained (mean 0, variance 1); pass "
            "training inputs, from which its statistics are estimated: "
            f"{advise('fit to data', 'inputs=dataset.train.x or points=dataset.train.x')}"
        )
    if x is not None and untrained:
        estimate_statistics(net, x, untrained)
    change = None
    if mode == "convert":
        outputs = None if x is None else _outputs(net, x)
        net = _replaced(net, lambda m: _layer_norm(m) if isinstance(m, FrozenBatchNorm) else None)
        if x is not None and outputs is not None:
            change = float((_outputs(net, x) - outputs).norm() / outputs.norm().clamp(min=1e-30))
    net.batch_norm_report = BatchNormReport(  # pyright: ignore[reportArgumentType]
        mode=mode,
        layers=list(layers),
        estimated=untrained if mode == "frozen" else [],
        num_points=0 if x is None else len(x),
        relative_change=change,
    )
    return net


def frozen_layers(net: nn.Module) -> dict[str, FrozenBatchNorm]:
    """Return name -> layer, for the layers with frozen statistics.

    Args:
        net: The network.
    """
    return {name: m for name, m in net.named_modules() if isinstance(m, FrozenBatchNorm)}


def estimate_statistics(net: nn.Module, x: Tensor, names: list[str] | None = None) -> None:
    """Set frozen statistics to the mean and variance of the layer's inputs, in one pass.

    Each layer is set before it computes, so the layers after it see its final statistics. The
    statistics of a layer that is called several times are those of all its inputs together.

    Args:
        net: The network, changed in place.
        x: Inputs, which pass as one batch.
        names: Layers to set; default all.
    """
    layers = frozen_layers(net)
    seen: dict[nn.Module, list[Tensor]] = {}

    def set_statistics(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, FrozenBatchNorm)
        seen.setdefault(module, []).append(args[0].detach().transpose(0, 1).flatten(1).double())
        variance, mean = torch.var_mean(torch.cat(seen[module], dim=1), dim=1, correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(variance)

    hooks = [
        module.register_forward_pre_hook(set_statistics)
        for name, module in layers.items()
        if names is None or name in names
    ]
    try:
        _outputs(net, x)
    finally:
        for hook in hooks:
            hook.remove()


def first_inputs(inputs: Tensor) -> Tensor:
    """Return as many inputs as pass in one batch; a training split is in random order.

    Args:
        inputs: Training inputs, (point, *feature).
    """
    entries = max(1, math.prod(inputs.shape[1:]))
    return inputs[: max(1, min(MAX_POINTS, MAX_ENTRIES // entries))].detach()


def _outputs(net: nn.Module, x: Tensor) -> Tensor:
    """Return outputs in evaluation mode; the mode of every module is restored."""
    with _evaluation_mode(net), torch.no_grad():
        return net(x)


@contextmanager
def _evaluation_mode(net: nn.Module) -> Any:
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _replaced(net: nn.Module, replace: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Return the network with each module replaced for which there is a replacement.

    A module that occurs several times is replaced by one module.
    """
    memo: dict[nn.Module, nn.Module] = {}
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and (new := memo.get(child) or replace(child)) is not None:
                memo[child] = new
                setattr(parent, name, new)
    return replace(net) or net


def _is_norm_and_submodules(module: _BatchNorm) -> bool:
    """Return whether a module is batch norm followed by its submodules, in evaluation mode.

    A subclass may compute anything, so its outputs are compared, in float64, on random inputs and
    at random parameters and statistics of several sizes.
    """
    if type(module).__module__.startswith("torch.nn."):
        return True
    required = list(inspect.signature(type(module).forward).parameters.values())[1:]
    if len(required) != 1:
        return False  # such as a residual that is added before the activation
    generator, shapes = torch_generator("batch norm of a class of its own"), 0
    positions = next((n for kind, n in _POSITIONS.items() if isinstance(module, kind)), (0, 1))
    for size, number in itertools.product((1e-3, 1.0, 30.0), positions):
        # So many points that every unit has inputs on both sides of a kink of what follows.
        shape = (_TRIAL_POINTS, module.num_features, *range(3, 3 + number))
        x = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
        try:
            trial = copy.deepcopy(module).double().eval()
            with torch.no_grad():
                for name, value in [*trial.named_parameters(), *trial.named_buffers()]:
                    if value.is_floating_point():
                        value.normal_(generator=generator).mul_(size)
                        if name == "running_var":
                            value.square_()
                expected = _frozen_module(trial)(x.clone())
                found = trial(x.clone())
        except Exception:  # the user's code may raise anything; it may not take this shape
            continue
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-9):
            return False
        shapes += 1
    return shapes > 0


def _frozen_module(module: _BatchNorm) -> nn.Module:
    """Return the frozen layer of a batch norm, followed by its submodules, if it has any."""
    followers = dict(module.named_children())
    layer = _frozen(module)
    if not followers:
        return layer
    return nn.Sequential(OrderedDict({"norm": layer, **followers})).train(module.training)


def _frozen(module: _BatchNorm) -> FrozenBatchNorm:
    """Return the frozen layer with the parameters and statistics of a batch norm."""
    layer = FrozenBatchNorm(module.num_features, module.eps, affine=module.affine)
    layer.weight, layer.bias = module.weight, module.bias
    reference = next((v for v in (module.weight, module.running_mean) if v is not None), None)
    if reference is not None:
        layer.to(reference.device, reference.dtype)
    for name in (*FrozenBatchNorm.unit_statistics, "num_batches_tracked"):
        if (value := getattr(module, name)) is not None:
            getattr(layer, name).copy_(value)
    return layer.train(module.training)


def _layer_norm(module: FrozenBatchNorm) -> nn.GroupNorm:
    """Return layer norm over all channels with the scale and offset of a batch norm."""
    affine = module.weight is not None
    layer = nn.GroupNorm(1, len(module.running_mean), eps=module.eps, affine=affine)
    if module.weight is not None and module.bias is not None:
        layer.weight, layer.bias = module.weight, module.bias
    return layer.train(module.training)
