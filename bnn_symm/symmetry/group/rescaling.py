"""Positive factors of units: made c times as large, and read 1/c times, the function is the same
(relu).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bnn_symm.symmetry.group.permutation_spec import Axis, PermutationSpec, Segment, block_owner


def rescale(
    spec: PermutationSpec, tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Multiplies every unit by a positive factor where it is made, and divides by it where it is
    read.

    Args:
        spec: of the network.
        tensors: name -> (*draw, *shape), whole weights.
        factors: group -> (unit,), positive; groups that are not named stay as they are.

    Returns:
        The tensors of the same function, for groups that have powers (those of relu units).
    """
    result = {}
    for name, value in tensors.items():
        axes = spec.axes.get(name, ())
        for dim, axis in enumerate(axes):
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
    """An axis that holds one block: each row of the axis that says which takes the factors of its
    block.
    """
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
    own = (factor.to(value.device, value.dtype) ** segment.scale).reshape(blocks, segment.size)
    return (moved * own.repeat_interleave(moved.shape[-2] // blocks, dim=0)).movedim((-2, -1), last)


def _factor(segment: Segment, factors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    factor = factors.get(segment.group) if segment.group is not None else None
    if factor is None or not segment.scale:
        return torch.ones(segment.length, dtype=like.dtype, device=like.device)
    own = factor.to(like.device, like.dtype) ** segment.scale
    return own[None, :, None].expand(segment.outer, -1, segment.inner).flatten()
