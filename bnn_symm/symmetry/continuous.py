"""Continuous symmetries: rescaling of units, scale before a norm, shift of a softmax.

No permutation removes them. They are reported so that a trivial permutation group is not mistaken
for a posterior without symmetries. An entry that is fixed at a nonzero value removes the directions
in which it would change.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.certificate import TOLERANCE, evaluate, random_values, relative_difference
from bnn_symm.symmetry.derive import NUM_POINTS
from bnn_symm.symmetry.group.fixed_values import FixedTensor, dense_copy
from bnn_symm.symmetry.group.permutation_spec import PermutationSpec
from bnn_symm.symmetry.group.relations import pieces
from bnn_symm.symmetry.group.rescaling import rescale
from bnn_symm.symmetry.inputs import input_points

# A norm's `eps` makes the invariance approximate; doubling weights that are not normalized
# afterwards changes outputs by far more.
_SAME_OUTPUTS = 1e-3
_POINTS = 12

__all__ = ["ContinuousSymmetry", "continuous_symmetries", "rescale"]

Kind = Literal["positive scaling", "scale before a norm", "shift of the softmax"]


@dataclass(frozen=True)
class ContinuousSymmetry:
    """A family of transformations of the parameters with `dimensions` free directions.

    Attributes:
        kind: `positive scaling`: the inputs of a unit are multiplied by c and its outputs by 1/c;
            exact, changes the prior. `scale before a norm`: all weights of a layer are multiplied
            by c; exact up to the norm's epsilon. `shift of the softmax`: a constant is added to all
            outputs; exact for a categorical likelihood.
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
        One entry for each group of units that can be rescaled, for each layer before a norm, and
        for each tensor that shifts the logits.
    """
    symmetries = [*_positive_scalings(spec, fixed), *_before_norms(net, spec, fixed, input_shape)]
    return symmetries + (_shifts(net, spec, fixed, input_shape) if softmax else [])


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
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(ground + 1, ground + 1))
    _, component = connected_components(graph, directed=False)
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


def _before_norms(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    input_shape: tuple[int, ...] | None,
) -> list[ContinuousSymmetry]:
    """Return the layers whose weights can all be doubled, found by doubling them."""
    clone, x = dense_copy(net).double(), input_points(net, input_shape, _POINTS)
    values, others = (random_values(clone, "scale before a norm", number) for number in (0, 1))
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
        if relative_difference(clone, values, changed, x) < _SAME_OUTPUTS:
            continue
        if relative_difference(clone, values, doubled, x) < _SAME_OUTPUTS:
            removed = any(bool((fixed[name].values != 0).any()) for name in names if name in fixed)
            symmetries.append(
                ContinuousSymmetry("scale before a norm", layer, int(not removed), int(removed))
            )
    return symmetries


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
        columns = values[name].numel() // values[name].shape[dim]
        removed = (
            int((~fixed[name].free).movedim(dim, 0).flatten(1).any(0).sum()) if name in fixed else 0
        )
        symmetries.append(
            ContinuousSymmetry("shift of the softmax", name, columns - removed, removed)
        )
    return symmetries
