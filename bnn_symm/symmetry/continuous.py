"""Continuous symmetries: scales of units, rotations of heads, scales and shifts before a norm.

No permutation removes them. They are reported so that a trivial permutation group is not mistaken
for a posterior without symmetries. An entry that is fixed at a nonzero value removes the directions
in which it would change.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.certificate import (
    TOLERANCE,
    evaluate,
    random_values,
    relative_change,
    relative_difference,
)
from bnn_symm.symmetry.derive import NUM_POINTS
from bnn_symm.symmetry.group.fixed_values import FixedTensor, dense_copy
from bnn_symm.symmetry.group.permutation_spec import PermutationSpec
from bnn_symm.symmetry.group.relations import pieces
from bnn_symm.symmetry.group.rescaling import rescale
from bnn_symm.symmetry.inputs import input_points
from bnn_symm.symmetry.linear_maps import Form, LinearMaps, linear_maps

# A norm's `eps` makes the invariance approximate; doubling weights that are not normalized
# afterwards changes outputs by far more.
_SAME_OUTPUTS = 1e-3
_POINTS = 12

__all__ = ["ContinuousSymmetry", "continuous_symmetries", "rescale"]

Kind = Literal[
    "positive scaling",
    "linear map of units",
    "rotation of units",
    "rotation and scale of pairs",
    "rotation of pairs",
    "shift of units",
    "bias without an effect",
    "scale before a norm",
    "shift before a norm",
    "shift of the softmax",
]
_KINDS: dict[Form, Kind] = {
    "general": "linear map of units",
    "orthogonal": "rotation of units",
    "similarities of pairs": "rotation and scale of pairs",
    "rotations of pairs": "rotation of pairs",
}


@dataclass(frozen=True)
class ContinuousSymmetry:
    """A family of transformations of the parameters with `dimensions` free directions.

    Attributes:
        kind: `positive scaling`: the inputs of a unit are multiplied by c and its outputs by 1/c;
            exact, changes the prior. `linear map of units`: an invertible matrix is inserted
            between two layers with nothing but linear operations between them, such as queries and
            keys of a head, and its inverse; `rotation of units`: an orthogonal matrix only;
            `rotation and scale of pairs`, `rotation of pairs`: those that commute with rotary
            positions; see `linear_maps`. `shift of units`: the biases of such units, undone by the
            bias of the layer that reads them. `bias without an effect`: such as that of keys,
            which a softmax cancels. `scale before a norm`: all weights of a layer, or those of one
            unit if the norm is one of each unit, are multiplied by c; exact up to the norm's
            epsilon. `shift before a norm`: a constant is added to the biases of all units, or one
            row to their weights; exact for norms that subtract the mean over units. `shift of the
            softmax`: a constant is added to all outputs; exact for a categorical likelihood.
        where: the group, or the layer.
        dimensions: number of directions left.
        removed: number of directions that fixed entries remove.
    """

    kind: Kind
    where: str
    dimensions: int
    removed: int


def continuous_symmetries(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    *,
    input_shape: tuple[int, ...] | None = None,
    softmax: bool = False,
) -> list[ContinuousSymmetry]:
    """Return the known continuous symmetries of a network, with their remaining directions.

    Args:
        net: the network.
        spec: its permutation symmetries.
        fixed: its fixed entries.
        input_shape: see `permutation_spec`.
        softmax: whether its outputs are the logits of a softmax.

    Returns:
        One entry for each group of units that can be rescaled or mapped, for each layer before a
        norm, and for each tensor that shifts the inputs of a norm or the logits.
    """
    maps = linear_maps(net, spec, fixed, input_shape=input_shape)
    general = {own.where for own in maps if own.form == "general"}  # these contain the scalings
    return [
        *(own for own in _positive_scalings(spec, fixed) if own.where not in general),
        *(
            ContinuousSymmetry(_KINDS[own.form], own.where, own.dimensions, own.num_removed)
            for own in maps
        ),
        *_shifts_of_units(net, maps, fixed, input_shape),
        *_biases_without_effect(net, spec, fixed, input_shape),
        *_before_norms(net, spec, fixed, input_shape),
        *_shifts_before_norms(net, spec, fixed, input_shape),
        *(_shifts(net, spec, fixed, input_shape) if softmax else []),
    ]


def _positive_scalings(
    spec: PermutationSpec, fixed: Mapping[str, FixedTensor]
) -> list[ContinuousSymmetry]:
    """Return one direction per unit, less those that nonzero fixed entries remove.

    A nonzero fixed entry between two units ties their factors to one another; one between a unit
    and anything else keeps the unit's factor at 1. The free directions are the sets of units that
    are tied to each other and to nothing else.
    """
    names = [name for name in spec.groups if name in spec.scaled_groups]
    sizes = [spec.groups[name].size for name in names]
    start = dict(zip(names, itertools.accumulate(sizes, initial=0), strict=False))
    ground = sum(sizes)
    ties = [np.empty((0, 2), dtype=np.int64)]
    for tensor, entry in fixed.items():
        nonzero = (entry.values != 0).numpy().astype(np.int64)
        for hidden, (codes,) in pieces(spec, spec.axes[tensor], nonzero):
            places = np.argwhere((codes == 1).any(-1))
            units = [
                start[s.group] + places[:, i]
                for i, s in enumerate(hidden)
                if s.scale and s.group is not None
            ]
            opposite = len(units) == 2 and sum(segment.scale for segment in hidden) == 0
            for unit in units:
                other = units[1] if opposite else np.full_like(unit, ground)
                ties.append(np.stack([unit, other], axis=1))
    edges = np.concatenate(ties)
    graph = scipy.sparse.coo_array((np.ones(len(edges)), edges.T), shape=(ground + 1, ground + 1))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    free = [
        first
        for first in np.unique(component, return_index=True)[1]
        if component[first] != component[ground]
    ]
    symmetries = []
    for name, size in zip(names, sizes, strict=True):
        left = int(sum(start[name] <= unit < start[name] + size for unit in free))
        symmetries.append(ContinuousSymmetry("positive scaling", name, left, size - left))
    return symmetries


def _shifts_of_units(
    net: nn.Module,
    maps: Sequence[LinearMaps],
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the biases of linear units whose shift the bias of the next layer can undo."""
    clone, x = dense_copy(net).double(), input_points(net, input_shape, _POINTS)
    values, others = (random_values(clone, "shift of units", number) for number in (0, 1))
    symmetries = []
    for own in maps:
        biases = [axis for axis in own.axes if axis.power > 0 and values[axis.tensor].dim() == 1]
        readers = [axis for axis in own.axes if axis.power < 0]
        undone = [f"{axis.tensor.rpartition('.')[0]}.bias" for axis in readers]
        is_linear = all(values[axis.tensor].dim() == 2 and axis.dim == -1 for axis in readers)
        if own.form != "general" or len(biases) != 1 or not is_linear or set(undone) - set(values):
            continue
        (bias,) = biases
        units = others[bias.tensor][bias.index[:, :1]]
        changed = dict(values)
        changed[bias.tensor] = values[bias.tensor].clone()
        changed[bias.tensor][bias.index] += units
        for axis, name in zip(readers, undone, strict=True):
            along = values[axis.tensor][:, axis.index] * units
            changed[name] = changed[name] - along.flatten(1).sum(1)
        if relative_difference(clone, values, changed, x) <= TOLERANCE:
            size = bias.index.shape[0] * bias.index.shape[2]
            is_kept = any(name in fixed for name in undone)
            free = fixed[bias.tensor].free if bias.tensor in fixed else None
            left = size if free is None else int(free[bias.index].all(1).sum())
            left = 0 if is_kept else left
            symmetries.append(ContinuousSymmetry("shift of units", bias.tensor, left, size - left))
    return symmetries


def _biases_without_effect(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the biases, or parts of them, on which the outputs do not depend."""
    clone, x = dense_copy(net).double(), input_points(net, input_shape, _POINTS)
    values, others = (random_values(clone, "bias", number) for number in (0, 1))
    before = evaluate(clone, values, x)
    symmetries = []
    for name, value in clone.named_parameters():
        if value.dim() != 1 or name not in spec.axes:
            continue
        start = 0
        for segment in spec.axes[name][0]:
            part = slice(start, start + segment.length)
            start += segment.length
            changed = {**values, name: values[name].clone()}
            changed[name][part] = others[name][part]
            if relative_change(before, evaluate(clone, changed, x)) <= TOLERANCE:
                free = fixed[name].free[part] if name in fixed else None
                left = segment.length if free is None else int(free.sum())
                removed = segment.length - left
                symmetries.append(ContinuousSymmetry("bias without an effect", name, left, removed))
    return symmetries


def _before_norms(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the layers whose weights can all be doubled, or those of each unit alone."""
    clone, x = dense_copy(net).double(), input_points(net, input_shape, _POINTS)
    values, others = (random_values(clone, "scale before a norm", number) for number in (0, 1))
    before = evaluate(clone, values, x)
    layers: dict[str, list[str]] = {}
    for name, value in clone.named_parameters():
        if name in spec.axes and (value.dim() >= 2 or name.endswith(".bias")):
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    symmetries = []
    for layer, names in layers.items():
        if all(values[name].dim() < 2 for name in names):
            continue
        doubled = {**values, **{name: 2 * values[name] for name in names}}
        # A layer whose weights do not affect the outputs, such as one dead unit, is no evidence of
        # a norm.
        changed = {**values, **{name: others[name] for name in names}}
        if relative_change(before, evaluate(clone, changed, x)) < _SAME_OUTPUTS:
            continue
        if relative_change(before, evaluate(clone, doubled, x)) >= _SAME_OUTPUTS:
            continue
        one = {**values, **{name: _with_first_doubled(values[name]) for name in names}}
        units = {len(values[name]) for name in names}  # axis 0 is not that of units in all layers
        by_unit = (
            len(units) == 1 and relative_change(before, evaluate(clone, one, x)) < _SAME_OUTPUTS
        )
        size = units.pop() if by_unit else 1
        kept = torch.zeros(size, dtype=torch.bool)  # those with a fixed entry
        for name in names:
            if name in fixed:
                kept |= (fixed[name].values != 0).reshape(size, -1).any(1)
        removed = int(kept.sum())
        symmetries.append(ContinuousSymmetry("scale before a norm", layer, size - removed, removed))
    return symmetries


def _with_first_doubled(value: Tensor) -> Tensor:
    """Return a tensor whose entries at place 0 of the first axis are doubled."""
    doubled = value.clone()
    doubled[0] *= 2
    return doubled


def _shifts_before_norms(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the tensors of hidden units to which one row can be added without effect."""
    clone, x = dense_copy(net).double(), input_points(net, input_shape, _POINTS)
    values, others = (random_values(clone, "shift before a norm", number) for number in (0, 1))
    before = evaluate(clone, values, x)
    outputs = {name for name, dim in spec.output_axes.items() if dim == 0}
    symmetries = []
    for name, value in clone.named_parameters():
        if name not in spec.axes or name in outputs or value.dim() == 0 or len(value) == 1:
            continue
        changed = {**values, name: others[name]}
        if relative_change(before, evaluate(clone, changed, x)) < _SAME_OUTPUTS:
            continue
        shifted = {**values, name: values[name] + others[name][:1]}
        if relative_change(before, evaluate(clone, shifted, x)) <= TOLERANCE:
            symmetries.append(_shift("shift before a norm", name, values[name], 0, fixed))
    return symmetries


def _shift(
    kind: Kind, name: str, value: Tensor, dim: int, fixed: Mapping[str, FixedTensor]
) -> ContinuousSymmetry:
    """Return the shifts of a tensor along an axis, less those that change a fixed entry."""
    columns = value.numel() // value.shape[dim]
    removed = (
        int((~fixed[name].free).movedim(dim, 0).flatten(1).any(0).sum()) if name in fixed else 0
    )
    return ContinuousSymmetry(kind, name, columns - removed, removed)


def _shifts(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the tensors of the output axis to which a constant can be added without effect.

    These are biases of the outputs, or columns of their weights, that shift all logits of a point
    alike; found by adding a random constant.
    """
    clone, x = dense_copy(net).double(), input_points(net, input_shape, NUM_POINTS)
    values = random_values(clone, "shift of the softmax")
    symmetries = []
    for name, dim in spec.output_axes.items():
        shape = [1 if d == dim else size for d, size in enumerate(values[name].shape)]
        added = torch.randn(shape, dtype=torch.float64, generator=torch_generator("shift", name))
        before, after = (
            evaluate(clone, v, x) for v in (values, {**values, name: values[name] + added})
        )
        change = after - before
        if not float((change - change.mean(-1, keepdim=True)).abs().max()) <= TOLERANCE * float(
            before.abs().max()
        ):
            continue
        symmetries.append(_shift("shift of the softmax", name, values[name], dim, fixed))
    return symmetries
