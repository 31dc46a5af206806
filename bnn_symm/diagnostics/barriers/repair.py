"""Reset the statistics of interpolated networks: REPAIR.

The average of two networks has preactivations of smaller variance than both: where units do not
match exactly, their preactivations are nearly uncorrelated, and the variance collapses layer by
layer. REPAIR gives each channel of a hidden layer the mean and the standard deviation that are
interpolated between those of the ends:

    z <- (z - m) / s * s_target + m_target,    s_target = (1 - tau) s_0 + tau s_1, m_target alike

This is an affine map of each channel, so it is expressed by the weight and the bias of the layer.
The repaired draw is a point of the same parameter space, and no layer is added. Networks with
frozen batch norm have statistics of their own: these are estimated again at every point of the
path, the ends included, and are expressed by the scale and the offset of the norm.

References:
    Jordan, Sedghi, Saukh, Entezari and Neyshabur (2023), REPAIR: REnormalizing Permuted
    Activations for Interpolation Repair, arXiv:2211.08403.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.architectures import FrozenBatchNorm, frozen_layers
from bnn_symm.data import Split
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import GaussianPosterior, Posterior, SamplePosterior
from bnn_symm.symmetry.group.fixed_values import has_fixed_entries

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SMALLEST = 1e-12  # A channel of smaller standard deviation is constant, and is shifted only.

MAX_POINTS = 2000
"""Largest number of training points on which the statistics of a merge are reset."""

ChannelStatistics = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a layer -> mean and standard deviation of each of its channels."""


@dataclass(frozen=True, kw_only=True)
class RepairedDraw:
    """Hold a draw after its statistics were reset.

    Attributes:
        flat: (parameter,), the repaired draw.
        factors: (parameter,), by which standard deviations of the weights are multiplied.
    """

    flat: Float[Tensor, " parameter"]
    factors: Float[Tensor, " parameter"]


def channel_statistics(
    model: BayesianModel, flat: Float[Tensor, " parameter"], x: Shaped[Tensor, "point *feature"]
) -> ChannelStatistics:
    """Return mean and standard deviation of the preactivations of every channel that is reset.

    Args:
        model: The model.
        flat: A flat parameter vector.
        x: Training inputs.

    Returns:
        Name of a hidden layer -> its statistics, in float64. Of networks with frozen batch norm,
            those of the inputs of the norms.

    Raises:
        ConfigError: As `repaired`.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def record(name: str, module: nn.Module, value: Tensor) -> None:
        found[name] = _moments(module, value)

    _pass(model, flat, x, record)
    return found


def repaired(
    model: BayesianModel,
    flat: Float[Tensor, " parameter"],
    x: Shaped[Tensor, "point *feature"],
    targets: ChannelStatistics,
) -> RepairedDraw:
    """Return a draw whose channels have the target statistics on the given inputs.

    Args:
        model: The model.
        flat: A flat parameter vector.
        x: Training inputs.
        targets: Of `channel_statistics`; not used with frozen batch norm, whose own statistics are
            estimated at `flat`.

    Returns:
        The draw, in the same parameter space.

    Raises:
        ConfigError: If there is no hidden layer to reset, or a layer has no weight and bias that
            can express the reset.
    """
    own = model.net_values(model.unflatten(flat))
    new, factors = dict(own), {name: torch.ones_like(value) for name, value in own.items()}

    def reset(name: str, module: nn.Module, value: Tensor) -> Tensor:
        weight, bias = (f"{name}.{key}" if name else key for key in ("weight", "bias"))
        mean, sd = _moments(module, value)
        if isinstance(module, FrozenBatchNorm):
            frozen = (module.running_var.double() + module.eps).sqrt()
            scale = (sd.square() + module.eps).rsqrt()
            ratio = frozen * scale
            shift = own[weight].double() * scale * (module.running_mean.double() - mean)
            new[bias] = (own[bias].double() + shift).to(own[bias])
            new[weight] = (own[weight].double() * ratio).to(own[weight])
            factors[weight] = ratio.to(own[weight])
            centered = (value - _channels(module, value, mean)) * _channels(module, value, scale)
            affine = (_channels(module, value, own[key]) for key in (weight, bias))
            return centered * next(affine) + next(affine)
        target_mean, target_sd = targets[name]
        ratio = torch.where(sd > _SMALLEST, target_sd / sd.clamp(min=_SMALLEST), 1.0)
        shift = target_mean - ratio * mean
        rows = ratio.view(-1, *[1] * (own[weight].dim() - 1))
        new[weight] = (own[weight].double() * rows).to(own[weight])
        new[bias] = (own[bias].double() * ratio + shift).to(own[bias])
        factors[weight] = rows.expand_as(own[weight]).to(own[weight])
        factors[bias] = ratio.to(own[bias])
        return value * _channels(module, value, ratio) + _channels(module, value, shift)

    _pass(model, flat, x, reset)
    values = model.unflatten(flat)
    ones = {name: torch.ones_like(value) for name, value in values.items()}
    return RepairedDraw(
        flat=model.flatten({**values, **new}), factors=model.flatten({**ones, **factors})
    )


def repair_merged(merged: Posterior, parts: Sequence[Posterior], train: Split) -> Posterior:
    """Return a barycenter whose statistics are reset to the average of those of its parts.

    The reset is that of the mean. Standard deviations of weights are rescaled with the weights.

    Args:
        merged: The barycenter of the parts: a normal, or one draw.
        parts: The posteriors that were merged.
        train: Training points; the first 2,000 are used.

    Raises:
        ConfigError: As `repaired`.
    """
    x = train.x[:MAX_POINTS]
    statistics = [channel_statistics(part.model, part.mean(), x) for part in parts]
    targets = interpolated(statistics, [1 / len(parts)] * len(parts))
    reset = repaired(merged.model, merged.mean(), x, targets)
    if isinstance(merged, GaussianPosterior):
        return GaussianPosterior(
            merged.model,
            merged.scaling,
            loc=reset.flat,
            scale=merged.scale * reset.factors,
            num_draws=merged.num_draws,
            seed=merged.seed,
            info=merged.info,
        )
    return SamplePosterior.from_draws(
        merged.model, reset.flat[None, None], merged.scaling, info=merged.info
    )


class RepairedPath:
    """A path between coupled draws whose statistics are reset at every point.

    Args:
        pairs: The coupled draws; their path is straight.
        model: The model of the first posterior.
        x: Training inputs.
    """

    def __init__(
        self, pairs: CoupledDraws, model: BayesianModel, x: Shaped[Tensor, "point *feature"]
    ) -> None:
        self._pairs, self._model, self._x = pairs, model, x
        models = pairs.models or (model,) * len(pairs.draws)
        self._ends = [
            [channel_statistics(own, flat, x) for own, flat in zip(models, row, strict=True)]
            for row in zip(*pairs.draws, strict=True)
        ]
        self._known: dict[tuple[float, ...], Tensor] = {}

    def model(self, weights: Sequence[float]) -> BayesianModel | None:
        """Return the model at a point of the simplex, as `CoupledDraws.model`."""
        return self._pairs.model(weights)

    def interpolate(self, weights: Sequence[float]) -> Float[Tensor, "draw parameter"]:
        """Return the repaired draws at a point of the simplex."""
        key = tuple(weights)
        if key not in self._known:
            model = self.model(weights) or self._model
            self._known[key] = torch.stack(
                [
                    repaired(model, flat, self._x, interpolated(ends, weights)).flat
                    for flat, ends in zip(self._pairs.interpolate(weights), self._ends, strict=True)
                ]
            )
        return self._known[key]


def interpolated(statistics: Sequence[ChannelStatistics], weights: Sequence[float]) -> Any:
    """Return the weighted averages of means and of standard deviations.

    Args:
        statistics: Of each end.
        weights: Of each end; they sum to 1.
    """
    return {
        name: tuple(
            sum(w * own[name][i] for w, own in zip(weights, statistics, strict=True))
            for i in range(2)
        )
        for name in statistics[0]
    }


def _pass(model: BayesianModel, flat: Tensor, x: Tensor, handle: Any) -> None:
    """Pass inputs through the network, and handle the value of each layer that is reset.

    What `handle` returns, unless None, takes the place of the layer's output.
    """
    net = copy.deepcopy(model.net).requires_grad_(False)
    values = model.net_values(model.unflatten(flat))
    norms = frozen_layers(net)
    layers: Mapping[str, Any] = (
        {**norms}
        if norms
        else {
            name: module
            for name, module in net.named_modules()
            if isinstance(module, _LAYERS) or has_fixed_entries(module)
        }
    )
    last = None if norms else _output_layer(net, values, layers, model.inputs(x[:1]))
    hooks, reset = [], {name: module for name, module in layers.items() if module is not last}
    _check(model, reset)
    for name, module in reset.items():

        def hook(module: nn.Module, args: Any, out: Tensor, name: str = name) -> Tensor | None:
            return handle(name, module, args[0] if isinstance(module, FrozenBatchNorm) else out)

        hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        functional_call(net, values, (model.inputs(x),))
    for own in hooks:
        own.remove()


def _output_layer(
    net: nn.Module, values: Mapping[str, Tensor], layers: Mapping[str, nn.Module], x: Tensor
) -> nn.Module | None:
    """Return the layer whose result is that of the network, which is not reset."""
    results: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, args: Any, out: Tensor) -> None:
        results.append((module, out))

    hooks = [module.register_forward_hook(record) for module in layers.values()]
    with torch.no_grad():
        outputs = functional_call(net, dict(values), (x,))
    for hook in hooks:
        hook.remove()
    return next((module for module, out in results if out is outputs), None)


def _check(model: BayesianModel, layers: Mapping[str, nn.Module]) -> None:
    """Refuse a network without a layer to reset, or with one that cannot express the reset."""
    if not layers:
        raise ConfigError("the network has no hidden layer whose statistics could be repaired")
    for name, module in layers.items():
        for key in ("weight", "bias"):
            value = getattr(module, key, None)
            full = f"{name}.{key}" if name else key
            if value is None or full not in model.shapes:
                raise ConfigError(
                    f"repair resets statistics by the weight and the bias of a layer, and "
                    f"{name or 'the network'} ({type(module).__name__}) infers no {key}; measure "
                    "without repair, or give the layer one"
                )
            if key == "weight" and type(module) not in (*_LAYERS, FrozenBatchNorm):
                raise ConfigError(
                    f"repair rescales whole weights, and {name} is a {type(module).__name__}, "
                    "which may have fixed entries; measure without repair"
                )


def _axis(module: nn.Module, value: Tensor) -> int:
    return value.dim() - 1 if isinstance(module, nn.Linear) else 1


def _moments(module: nn.Module, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, in float64."""
    rows = value.detach().double().movedim(_axis(module, value), 0).flatten(1)
    sd, mean = torch.std_mean(rows, dim=1, correction=0)
    return mean, sd


def _channels(module: nn.Module, value: Tensor, entries: Tensor) -> Tensor:
    """Return one entry per channel in the shape that broadcasts with the values of a layer."""
    shape = [1] * value.dim()
    shape[_axis(module, value)] = -1
    return entries.to(value).view(shape)
