"""Linear and convolution layers with fixed entries, whose parameter is the vector of the free ones.

``W' = M * W + (1 - M) * F``

M is 1 at free entries and 0 at fixed ones, F holds the fixed values. The parameter `weight` is the
vector of the free entries in the row-major order of M, so a prior over it, a variational family or
an optimizer covers exactly the free entries. M and F are the buffers `mask` and `fixed`.

References:
    Lim, Putterman, Walters, Maron and Jegelka (2024), arXiv:2405.20231, section 3.1.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bnn_symm.architectures.modules.private_copy import fixed_parameters

PLAIN_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""The layers whose weights can have fixed entries."""


class FixedEntries(nn.Module):
    """Mixin of the layers in this module; it comes before `nn.Linear` or `nn.ConvNd` in the bases.

    Args:
        args: Positional arguments of the plain layer.
        mask: True at free entries, of the weight's shape; at least one entry is free.
        fixed: Values of the fixed entries, of the weight's shape; read only where `mask` is False.
        keywords: Keyword arguments of the plain layer.

    Attributes:
        weight: (free,), the free entries. A caller may substitute the whole weight, as
            `torch.func.functional_call` does with the values of `effective_parameters`.
        mask: (*weight_shape), True at free entries.
        fixed: (*weight_shape), 0 at free entries.
    """

    plain: ClassVar[type[nn.Module]]
    weight: nn.Parameter
    mask: Tensor
    fixed: Tensor
    _positions: Tensor

    def __init__(self, *args: Any, mask: Tensor, fixed: Tensor, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._fix(mask, fixed)

    def _fix(self, mask: Tensor, fixed: Tensor) -> None:
        weight = self.weight
        if not mask.shape == fixed.shape == weight.shape:
            raise ValueError(
                f"got a mask of shape {tuple(mask.shape)} and fixed values of shape "
                f"{tuple(fixed.shape)}, want both of the weight's shape, {tuple(weight.shape)}"
            )
        if not mask.any():
            raise ValueError(
                "got a mask without any free entry, want at least one: nothing is left to infer"
            )
        mask = mask.to(weight.device).clone()
        self.register_buffer("mask", mask)
        self.register_buffer("fixed", fixed.to(weight.device, weight.dtype).masked_fill(mask, 0))
        # Not saved, since `mask` determines it.
        self.register_buffer("_positions", _positions(mask), persistent=False)
        self.weight = nn.Parameter(
            self.restrict(weight.detach()).clone(), requires_grad=weight.requires_grad
        )

    @property
    def weight_shape(self) -> torch.Size:
        """Return the shape of the whole weight."""
        return self.fixed.shape

    def embed(self, free: Float[Tensor, "*draw free"]) -> Float[Tensor, "..."]:
        """Return the whole weight, (*draw, *weight_shape), as a new tensor.

        It has the given values at free entries and F at fixed ones.
        """
        return _embed(free, self.fixed.to(free.dtype), self._positions)

    def embed_scale(self, scale: Float[Tensor, "*draw free"]) -> Float[Tensor, "..."]:
        """Apply the linear part of `embed`, as for standard deviations: 0 at fixed entries."""
        return _embed(scale, torch.zeros_like(self.fixed, dtype=scale.dtype), self._positions)

    def restrict(self, full: Float[Tensor, "..."]) -> Float[Tensor, "*draw free"]:
        """Return the free entries of a whole weight, (*draw, *weight_shape): `embed` inverted."""
        draw = full.shape[: full.ndim - self.fixed.ndim]
        return full.reshape(*draw, -1).index_select(-1, self._positions)

    def effective_weight(self) -> Float[Tensor, "*shape"]:
        """Return the whole weight that the layer computes with."""
        return _effective_weight(self.weight, self.fixed, self._positions)

    def dense(self) -> nn.Module:
        """Return a plain layer of the same function, in which fixed entries are parameters too."""
        clone = copy.deepcopy(self)
        weight = self.effective_weight().detach().clone()
        del clone.mask, clone.fixed, clone._positions
        clone.__class__ = cast(Any, self.plain)
        clone.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        return clone

    def update_positions(self) -> None:
        """Update the layer after an in-place change of `mask` with equally many free entries."""
        self._positions = _positions(self.mask)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.update_positions()

    def extra_repr(self) -> str:
        """Return the plain layer's description and the number of free entries."""
        return f"{super().extra_repr()}, free={self._positions.numel()} of {self.fixed.numel()}"


class FixedEntriesLinear(FixedEntries, nn.Linear):
    """A linear layer whose weight has fixed entries."""

    plain = nn.Linear

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, input: Tensor) -> Tensor:
        """Map (*, in_features) to (*, out_features)."""
        return F.linear(
            input, _effective_weight(self.weight, self.fixed, self._positions), self.bias
        )


class _FixedEntriesConv(FixedEntries):
    bias: nn.Parameter | None

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, input: Tensor) -> Tensor:
        """Map (point, channel, *positions) to (point, out_channel, *new_positions)."""
        weight = _effective_weight(self.weight, self.fixed, self._positions)
        return cast(Any, self)._conv_forward(input, weight, self.bias)


class FixedEntriesConv1d(_FixedEntriesConv, nn.Conv1d):
    """A convolution over one axis whose weight has fixed entries."""

    plain = nn.Conv1d


class FixedEntriesConv2d(_FixedEntriesConv, nn.Conv2d):
    """A convolution over two axes whose weight has fixed entries."""

    plain = nn.Conv2d


class FixedEntriesConv3d(_FixedEntriesConv, nn.Conv3d):
    """A convolution over three axes whose weight has fixed entries."""

    plain = nn.Conv3d


_FIXED = {
    cls.plain: cls
    for cls in (FixedEntriesLinear, FixedEntriesConv1d, FixedEntriesConv2d, FixedEntriesConv3d)
}


def fix_entries(layer: nn.Module, mask: Tensor, fixed: Tensor) -> FixedEntries:
    """Fix entries of a plain layer in place; free entries keep their present values.

    The layer changes its class, as with `torch.nn.utils.parametrize`, so all references to it see
    the change.

    Args:
        layer: Exactly an `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.
        mask: True at free entries; of the weight's shape.
        fixed: Values of the fixed entries; of the weight's shape.

    Returns:
        The layer.

    Raises:
        ValueError: If shapes differ, or no entry is free.
    """
    former = type(layer)
    layer.__class__ = _FIXED[former]
    fixed_layer = cast(FixedEntries, layer)
    try:
        fixed_layer._fix(mask, fixed)
    except ValueError:
        layer.__class__ = former
        raise
    return fixed_layer


def fixed_layers(net: nn.Module) -> Iterator[tuple[str, FixedEntries]]:
    """Yield the name of the weight and the layer for every layer with fixed entries."""
    for name, module in net.named_modules():
        if isinstance(module, FixedEntries):
            yield f"{name}.weight" if name else "weight", module


def effective_parameters(net: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters as the layers use them: whole weights where entries are fixed.

    Args:
        net: The network.
        values: Name -> (*draw, *shape) of some of its parameters.

    Returns:
        Name -> (*draw, *shape of the whole parameter), suitable for `torch.func.functional_call`.
    """
    layers = dict(fixed_layers(net))
    return {
        name: layers[name].embed(value) if name in layers else value
        for name, value in values.items()
    }


def effective_scales(net: nn.Module, scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return standard deviations of the `effective_parameters`, which are 0 at fixed entries.

    Args:
        net: The network.
        scales: Name -> (*draw, *shape) of standard deviations of some of its parameters.
    """
    layers = dict(fixed_layers(net))
    return {
        name: layers[name].embed_scale(value) if name in layers else value
        for name, value in scales.items()
    }


def free_parameters(net: nn.Module, effective: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Invert `effective_parameters`; values at fixed entries are dropped unchecked.

    Args:
        net: The network.
        effective: Name -> (*draw, *shape of the whole parameter).

    Returns:
        Name -> (*draw, *shape) of the network's parameters.
    """
    layers = dict(fixed_layers(net))
    return {
        name: layers[name].restrict(value) if name in layers else value
        for name, value in effective.items()
    }


def weight_shapes(net: nn.Module, *, constants: bool = False) -> dict[str, torch.Size]:
    """Return name -> shape of every parameter as the layers use it.

    For a weight with fixed entries this is the shape of the whole weight.

    Args:
        net: The network.
        constants: Whether the buffers of a private copy that were parameters are included.
    """
    layers = dict(fixed_layers(net))
    every = dict(net.named_parameters()) | (fixed_parameters(net) if constants else {})
    return {
        name: layers[name].weight_shape if name in layers else value.shape
        for name, value in every.items()
    }


def _positions(mask: Bool[Tensor, "*shape"]) -> Int[Tensor, " free"]:
    return mask.flatten().nonzero().squeeze(1)


def _embed(free: Tensor, base: Tensor, positions: Tensor) -> Tensor:
    draw = free.shape[:-1]
    flat = base.flatten().expand(*draw, -1)
    # Out of place, so that it works under vmap and grad. Positions are distinct, so the order of
    # writing does not matter.
    return flat.scatter(-1, positions.expand(*draw, -1), free).reshape(*draw, *base.shape)


def _effective_weight(weight: Tensor, fixed: Tensor, positions: Tensor) -> Tensor:
    # Attributes only, no `dim()`: a tracer of operations should see none where the weight is
    # returned unchanged.
    if weight.ndim == fixed.ndim:
        return weight
    return _embed(weight, fixed.to(weight.dtype), positions)


# torch.fx cannot trace the branch, so it treats the function as one operation.
torch.fx.wrap("_effective_weight")
