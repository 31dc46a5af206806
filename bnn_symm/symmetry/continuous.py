"""Continuous symmetries, which no permutation removes: rescaled units, scale before a norm, shift of a softmax.

They are reported, so that nobody takes a trivial permutation group for a posterior without any symmetry. An entry that
is fixed at a value other than zero takes away the directions that it lies in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bnn_symm.symmetry.derive import input_points, random_values, relative_difference
from bnn_symm.symmetry.fixed import Fixed, dense_twin
from bnn_symm.symmetry.spec import PermutationSpec, Segment

# A norm's `eps` makes the invariance approximate; doubling weights that no norm follows changes outputs by far more.
_SAME_OUTPUTS = 1e-3

Kind = Literal["positive scaling", "scale before a norm", "shift of the softmax"]


@dataclass(frozen=True)
class ContinuousSymmetry:
    """A family of transformations of the parameters, with as many directions as `dimensions`.

    Attributes:
        kind: `positive scaling`: a unit is made c times as large and read 1/c times; exact, changes the prior. `scale
            before a norm`: all weights of a layer times c; exact up to the norm's epsilon. `shift of the softmax`: a
            constant added to all outputs; exact for a categorical likelihood.
        where: the group, or the layer.
        dimensions: directions left.
        removed: directions that fixed entries took away.
    """

    kind: Kind
    where: str
    dimensions: int
    removed: int


def rescale(spec: PermutationSpec, tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiplies every unit by a positive factor where it is made, and divides by it where it is read.

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
            along = torch.cat([_factor(segment, factors, value) for segment in axis])
            if bool((along != 1).any()):
                value = value * along.reshape([-1] + [1] * (len(axes) - dim - 1))
        result[name] = value
    return result


def _factor(segment: Segment, factors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    factor = factors.get(segment.group) if segment.group is not None else None
    if factor is None or not segment.scale:
        return torch.ones(segment.length, dtype=like.dtype, device=like.device)
    own = factor.to(like.device, like.dtype) ** segment.scale
    return own[None, :, None].expand(segment.outer, -1, segment.inner).flatten()


def continuous_symmetries(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, Fixed],
    *,
    input_shape: tuple[int, ...] | None = None,
    softmax: bool = False,
) -> list[ContinuousSymmetry]:
    """The continuous symmetries that are known for a network, and how much of each is left.

    Args:
        net: the network.
        spec: its permutations.
        fixed: what is fixed of it.
        input_shape: see `permutation_spec`.
        softmax: whether its outputs are the logits of a softmax.
    """
    found = [*_positive_scalings(spec, fixed), *_before_norms(net, fixed, input_shape)]
    return found + (_shifts(spec, fixed) if softmax else [])


def _positive_scalings(spec: PermutationSpec, fixed: Mapping[str, Fixed]) -> list[ContinuousSymmetry]:
    found = []
    for name, group in spec.groups.items():
        segments = [s for axes in spec.axes.values() for axis in axes for s in axis if s.group == name]
        if not any(segment.scale for segment in segments) or any(segment.within for segment in segments):
            continue
        held = torch.zeros(group.size, dtype=torch.bool)
        for tensor, entry in fixed.items():
            for dim, axis in enumerate(spec.axes[tensor]):
                start = 0
                for segment in axis:
                    own = (entry.values != 0).movedim(dim, 0)[start : start + segment.length]
                    start += segment.length
                    if segment.group == name and segment.scale:
                        held |= own.reshape(segment.outer, segment.size, -1).any(-1).any(0)
        found.append(ContinuousSymmetry("positive scaling", name, int((~held).sum()), int(held.sum())))
    return found


def _before_norms(
    net: nn.Module, fixed: Mapping[str, Fixed], input_shape: tuple[int, ...] | None
) -> list[ContinuousSymmetry]:
    """Layers whose weights may all be doubled: found by doubling them."""
    twin, x = dense_twin(net).double(), input_points(net, input_shape)
    values = random_values(twin, "scale before a norm")
    layers: dict[str, list[str]] = {}
    for name, value in twin.named_parameters():
        if value.dim() >= 2 or name.endswith(".bias"):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    found = []
    for layer, names in layers.items():
        if all(values[name].dim() < 2 for name in names):
            continue
        doubled = {**values, **{name: 2 * values[name] for name in names}}
        if relative_difference(twin, values, doubled, x) < _SAME_OUTPUTS:
            held = any(bool((fixed[name].values != 0).any()) for name in names if name in fixed)
            found.append(ContinuousSymmetry("scale before a norm", layer, int(not held), int(held)))
    return found


def _shifts(spec: PermutationSpec, fixed: Mapping[str, Fixed]) -> list[ContinuousSymmetry]:
    """A constant added along the output axis of the last layer's bias, or of one column of its weights."""
    found = []
    for name, dim in spec.output_axes.items():
        columns = 1
        for axis in (axis for d, axis in enumerate(spec.axes[name]) if d != dim):
            columns *= sum(segment.length for segment in axis)
        held = int((~fixed[name].free).movedim(dim, 0).flatten(1).any(0).sum()) if name in fixed else 0
        found.append(ContinuousSymmetry("shift of the softmax", name, columns - held, held))
    return found
