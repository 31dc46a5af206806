"""Rescale units by positive factors, which preserves the function of a relu network.

The weights into a unit are multiplied by c, and those out of it by 1/c.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bnn_symm.symmetry.group.permutation_spec import Axis, PermutationSpec, Segment, block_owner


def rescale(
    spec: PermutationSpec, tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Multiply the weights into every unit by a positive factor and divide those out of it.

    Args:
        spec: the spec of the network.
        tensors: name -> (*draw, *shape), effective weights.
        factors: group -> (unit,), positive; other groups are not rescaled.

    Returns:
        Tensors of the same function, provided that the groups have powers (those of relu units).
    """
    result = {}
    for name, value in tensors.items():
        axes = spec.axes.get(name, ())
        for dim, axis in enumerate(axes):
            if not any(segment.group in factors and segment.scale for segment in axis):
                continue
            if axis[0].within:
                value = _rescale_within(spec, axes, value, dim, factors)
                continue
            along = torch.cat([_factor(segment, factors, value) for segment in axis])
            if bool((along != 1).any()):
                value = value * along.reshape([-1] + [1] * (len(axes) - dim - 1))
        result[name] = value
    return result


def _rescale_within(
    spec: PermutationSpec,
    axes: tuple[Axis, ...],
    value: Tensor,
    dim: int,
    factors: Mapping[str, Tensor],
) -> Tensor:
    """Rescale an axis that holds one block by the factors of the block that each row selects."""
    (segment,) = axes[dim]
    factor = factors.get(segment.group) if segment.group is not None else None
    if factor is None or not segment.scale or segment.group is None:
        return value
    blocks = spec.groups[segment.group].blocks
    last = (
        value.dim() - len(axes) + block_owner(spec, axes, segment),
        value.dim() - len(axes) + dim,
    )
    moved = value.movedim(last, (-2, -1))
    powers = (factor.to(value.device, value.dtype) ** segment.scale).reshape(blocks, segment.size)
    per_row = powers.repeat_interleave(moved.shape[-2] // blocks, dim=0)
    return (moved * per_row).movedim((-2, -1), last)


def _factor(segment: Segment, factors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    factor = factors.get(segment.group) if segment.group is not None else None
    if factor is None or not segment.scale:
        return torch.ones(segment.length, dtype=like.dtype, device=like.device)
    powers = factor.to(like.device, like.dtype) ** segment.scale
    return powers[None, :, None].expand(segment.outer, -1, segment.inner).flatten()
