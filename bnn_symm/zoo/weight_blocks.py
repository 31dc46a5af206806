"""Arrange the weights of networks by the hidden units that they belong to.

The spec of an architecture says which entries of each axis of a tensor belong to which unit of
which group. A *block* is a part of a tensor with one segment on every axis. As an array it is
(network, *unit, channel): one axis for each axis of the tensor that a group permutes, and all other
positions (inputs, outputs, positions of a kernel, copies) as channels, which no permutation moves.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.models import BayesianModel
from bnn_symm.symmetry import Segment, SymmetryGroup

# A segment of an axis, and where it begins.
_Place = tuple[Segment, int]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a tensor with one segment on every axis.

    Attributes:
        tensor: name of the tensor.
        places: segment and start on each axis of the tensor.
        groups: the group of each axis that a group permutes.
        is_odd: for each of these, whether an entry changes its sign with its unit.
        num_channels: number of entries for one unit of each group.
    """

    tensor: str
    places: tuple[_Place, ...]
    groups: tuple[str, ...]
    is_odd: tuple[bool, ...]
    num_channels: int

    def of(self, value: Float[Tensor, "network ..."]) -> Float[Tensor, "network ..."]:
        """Return the block of a tensor, (network, *unit, channel).

        Args:
            value: (network, *shape), whole weights.
        """
        shape, unit_dims, channel_dims = [len(value)], [], []
        for dim, (segment, start) in enumerate(self.places, 1):
            value = value.narrow(dim, start, segment.length)
            if segment.group is None or segment.within:
                channel_dims.append(len(shape))
                shape.append(segment.length)
            else:
                unit_dims.append(len(shape) + 1)
                channel_dims += [len(shape), len(shape) + 2]
                shape += [segment.outer, segment.size, segment.inner]
            if segment.within:
                value = self._pooled(value, dim)
                shape[-1] = 2
        units = [shape[dim] for dim in unit_dims]
        return (
            value.reshape(shape)
            .permute(0, *unit_dims, *channel_dims)
            .reshape(len(value), *units, self.num_channels)
        )

    def _pooled(self, value: Tensor, dim: int) -> Tensor:
        """Return two statistics of an axis whose order depends on the unit of another axis."""
        first = value.abs() if any(segment.signed for segment, _ in self.places) else value
        return torch.stack([first.mean(dim), value.square().mean(dim)], dim)


@dataclass(frozen=True, kw_only=True)
class WeightLayout:
    """The blocks of all tensors of an architecture, and which units the group distinguishes.

    Attributes:
        blocks: all blocks.
        orbits: group -> (unit,), units of one number can take each other's place.
        signed: groups of which some unit may change its sign.
    """

    blocks: tuple[Block, ...]
    orbits: Mapping[str, Int[Tensor, " unit"]]
    signed: frozenset[str]

    @classmethod
    def of(cls, group: SymmetryGroup, model: BayesianModel) -> "WeightLayout":
        """Return the layout of an architecture.

        Args:
            group: its symmetry group. The smaller it is, the more units have an orbit of their own.
            model: a model of it. Constants of the network have no block; latent variables of the
                likelihood have one without units.
        """
        varying = model.layer_values(model.unflatten(model.initial()))
        signed = frozenset(_signed_groups(group))
        blocks = [
            _block(name, places, signed)
            for name, axes in group.spec.axes.items()
            if name in varying
            for places in itertools.product(*map(_places, axes))
        ]
        latents = model.shapes.keys() - model.net_values(model.shapes).keys()
        blocks += [_block(name, (), signed) for name in model.shapes if name in latents]
        present = {name for block in blocks for name in block.groups}
        orbits = {
            name: torch.from_numpy(_orbits(group, name, own.size))
            for name, own in group.spec.groups.items()
            if name in present
        }
        return cls(blocks=tuple(blocks), orbits=orbits, signed=signed)

    def arrays(
        self, model: BayesianModel, weights: Float[Tensor, "network parameter"]
    ) -> list[Float[Tensor, "network ..."]]:
        """Return the blocks of networks, each (network, *unit, channel).

        Args:
            model: the model.
            weights: flat vectors.
        """
        values = model.unflatten(weights)
        values |= model.layer_values(values)
        return [block.of(values[block.tensor]) for block in self.blocks]


def _places(axis: Sequence[Segment]) -> Iterator[_Place]:
    start = 0
    for segment in axis:
        yield segment, start
        start += segment.length


def _block(name: str, places: tuple[_Place, ...], signed: frozenset[str]) -> Block:
    segments = [segment for segment, _ in places]
    is_pooled = any(segment.within for segment in segments)
    moved = [own for own in segments if own.group is not None and not own.within]
    sizes = [
        2 if own.within else own.length if own.group is None else own.outer * own.inner
        for own in segments
    ]
    return Block(
        tensor=name,
        places=places,
        groups=tuple(own.group for own in moved if own.group is not None),
        # Absolute values and squares of entries do not change their sign.
        is_odd=tuple(own.signed and own.group in signed and not is_pooled for own in moved),
        num_channels=math.prod(sizes),
    )


def _signed_groups(group: SymmetryGroup) -> Iterator[str]:
    """Yield the groups of which some element of the symmetry group flips a unit."""
    for component in group.components:
        flips = min(component.orientation, default=1) < 0
        if flips or component.kind == "interchangeable, with signs":
            yield from component.units
        for move in component.moves:
            yield from (name for name, (_, sign) in move.items() if (np.asarray(sign) < 0).any())


def _orbits(group: SymmetryGroup, name: str, size: int) -> Int[np.ndarray, " unit"]:
    """Return the number of the orbit of each unit of a group."""
    pairs: list[tuple[int, int]] = []
    for component in group.components:
        units = component.units.get(name, ())
        if component.kind != "entangled":
            pairs += itertools.pairwise(units)
        for move in component.moves:
            if name in move:
                pairs += zip(units, move[name][0].tolist(), strict=True)
    rows, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
