"""Linear maps of hidden units that preserve the function: rotations of heads, and what is left.

Where nothing but linear operations lies between two layers, as between the queries and keys or the
values and outputs of a head of attention, an invertible matrix A can be inserted:

    W_q -> A W_q,  W_k -> A^-T W_k        W_v -> B W_v,  W_o -> W_o B^-1        for every head

with biases like their weights. Rotary positions leave the maps that commute with their rotations:
a rotation and a scale of every pair of units. A norm of queries and keys without weights leaves the
orthogonal maps, one with weights leaves none.

Candidates are read from the permutation spec, and certified: a random element that is generic in
the group, such as I + u v^T, is applied to random weights in float64. Outputs are analytic in u and
v, so that equality at one random element means equality at all of them, and these generate the
group.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.certificate import TOLERANCE, evaluate, random_values, relative_change
from bnn_symm.symmetry.group.fixed_values import FixedTensor, dense_copy
from bnn_symm.symmetry.group.permutation_spec import PermutationSpec
from bnn_symm.symmetry.inputs import input_points

__all__ = ["LinearMaps", "MappedAxis", "linear_maps", "map_axes"]

_POINTS = 12
# Standard deviations of what is added to the values of the network, one for each trial.
_SPREADS = (0.1, 1.0, 1.0)

Form = Literal["general", "orthogonal", "similarities of pairs", "rotations of pairs"]


@dataclass(frozen=True, eq=False)
class MappedAxis:
    """The entries of one axis of a tensor on which a map acts.

    Attributes:
        tensor: name of the tensor.
        dim: the axis, counted from the last, so that axes of draws may precede.
        index: (block, copy, unit), the entry of each unit; all copies are mapped alike.
        power: 1 where the matrix A acts, -1 where A^-T does.
    """

    tensor: str
    dim: int
    index: Int[Tensor, "block copy unit"]
    power: int


@dataclass(frozen=True, eq=False)
class LinearMaps:
    """A group of linear maps of units, one matrix per block, that preserve the function.

    Attributes:
        where: the group of units, or the two layers between which the maps are inserted.
        form: `general`: all invertible matrices; `orthogonal`: the orthogonal ones; `similarities
            of pairs`: a rotation and a positive scale of each pair of units; `rotations of pairs`:
            a rotation of each pair.
        axes: where the maps act.
        pairs: the pairs of units, for the last two forms.
        free: (block, unit), whether a unit may be mixed with others where A acts, and where A^-T
            does: none of its entries is fixed.
        heads: the group of units that own the blocks, if there is one.
    """

    where: str
    form: Form
    axes: tuple[MappedAxis, ...]
    pairs: Int[Tensor, "pair 2"] | None
    free: tuple[Bool[Tensor, "block unit"], Bool[Tensor, "block unit"]]
    heads: str | None = None

    @property
    def dimensions(self) -> int:
        """Return the number of free directions, with units that have a fixed entry kept."""
        forward, backward = self.free
        both = forward & backward
        if self.form == "general":
            return int((forward.sum(1) * backward.sum(1)).sum())
        if self.pairs is not None:
            number = int(both[:, self.pairs].all(-1).sum())
            return number * (2 if self.form == "similarities of pairs" else 1)
        size = both.sum(1)
        return int((size * (size - 1) // 2).sum())

    @property
    def num_removed(self) -> int:
        """Return the number of directions that fixed entries remove."""
        everything = torch.ones_like(self.free[0])
        return replace(self, free=(everything, everything)).dimensions - self.dimensions

    def apply(
        self, tensors: Mapping[str, Tensor], matrices: Float[Tensor, "block unit unit"]
    ) -> dict[str, Tensor]:
        """Map the units of every block.

        Args:
            tensors: name -> (*draw, *shape), effective weights.
            matrices: one matrix A per block, an element of the group.

        Returns:
            Tensors of the same function.
        """
        return map_axes(self.axes, tensors, matrices)


def map_axes(
    axes: tuple[MappedAxis, ...],
    tensors: Mapping[str, Tensor],
    matrices: Float[Tensor, "block unit unit"],
) -> dict[str, Tensor]:
    """Apply A or A^-T along axes of tensors.

    Args:
        axes: the axes, with their powers.
        tensors: name -> (*draw, *shape).
        matrices: one matrix A per block.

    Returns:
        All tensors, those of `axes` mapped.
    """
    result, inverse = dict(tensors), torch.linalg.inv(matrices).mT
    for axis in axes:
        value = result[axis.tensor]
        matrix = (matrices if axis.power > 0 else inverse).to(value.device, value.dtype)
        rows = value.movedim(axis.dim, 0).clone()
        index = axis.index.to(value.device)
        rows[index] = torch.einsum("buv,bcv...->bcu...", matrix, rows[index])
        result[axis.tensor] = rows.movedim(0, axis.dim)
    return result


def linear_maps(
    net: nn.Module,
    spec: PermutationSpec,
    fixed: Mapping[str, FixedTensor],
    *,
    input_shape: tuple[int, ...] | None = None,
) -> list[LinearMaps]:
    """Return the linear maps of units that preserve the function.

    Args:
        net: the network.
        spec: its permutation symmetries.
        fixed: its fixed entries.
        input_shape: see `permutation_spec`.

    Returns:
        One entry for each group of units, or for each pair of layers whose units stay in their
        place within a head.

    Example:
        >>> from bnn_symm.symmetry import permutation_spec
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> (maps,) = linear_maps(net, permutation_spec(net), {})
        >>> maps.form, maps.dimensions
        ('general', 9)
    """
    test = _Test(net, input_shape)
    found = []
    for where, axes in _groups_of_units(spec):
        if (form := test.form(axes)) is not None:
            found.append((where, form, axes, None, spec.groups[where].parent))
    for heads, where, axes in _pairs_of_layers(spec):
        form, pairs = test.form_of_heads(axes)
        if form is not None:
            found.append((where, form, axes, pairs, heads))
    return [
        LinearMaps(where, form, axes, pairs, _free_units(axes, fixed), heads)
        for where, form, axes, pairs, heads in found
    ]


class _Test:
    """Compare outputs before and after a map at random weights, in float64.

    Args:
        net: the network.
        input_shape: shape of one point.
    """

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...] | None) -> None:
        self._net = dense_copy(net).double().eval()
        self._x = input_points(net, input_shape, _POINTS)
        # Near the values of the network, all units of a relu may be active at all points.
        self._trials = [
            (values, evaluate(self._net, values, self._x))
            for values in (
                random_values(self._net, "linear maps", number, spread=spread)
                for number, spread in enumerate(_SPREADS)
            )
        ]

    def form(self, axes: tuple[MappedAxis, ...]) -> Form | None:
        """Return the form of the maps of whole blocks, if there are any."""
        blocks, size = axes[0].index.shape[0], axes[0].index.shape[2]
        if not self._preserves(axes, _reflections(blocks, size)):
            return None
        first = axes[:1]
        if self._preserves(first, _reflections(blocks, size)):
            return None  # a tensor without an effect is no evidence
        general = self._preserves(axes, _rank_one_changes(blocks, size))
        return "general" if general else "orthogonal"

    def form_of_heads(
        self, axes: tuple[MappedAxis, ...]
    ) -> tuple[Form | None, Int[Tensor, "pair 2"] | None]:
        """Return the form of the maps of whole blocks, or else of pairs of units, and the pairs."""
        blocks, size = axes[0].index.shape[0], axes[0].index.shape[2]
        if size % 2:
            return self.form(axes), None
        units = torch.arange(size)
        for pairs in (units.reshape(2, -1).T, units.reshape(-1, 2)):  # both layouts of rotary
            rotations = pair_matrices(pairs, _unit_phases(blocks, len(pairs)))
            if not self._preserves(axes, rotations):
                continue
            if self._preserves(axes[:1], rotations):
                return None, None
            if (form := self.form(axes)) is not None:
                return form, None
            # A norm of the units undoes a scale of all, so that these differ.
            scales = _random("scales", blocks, len(pairs), 1).exp()
            scaled = pair_matrices(pairs, scales * _unit_phases(blocks, len(pairs)))
            is_scaled = self._preserves(axes, scaled)
            return ("similarities of pairs" if is_scaled else "rotations of pairs"), pairs
        return None, None

    def _preserves(self, axes: tuple[MappedAxis, ...], matrices: Tensor) -> bool:
        return all(
            relative_change(before, evaluate(self._net, map_axes(axes, values, matrices), self._x))
            <= TOLERANCE
            for values, before in self._trials
        )


def pair_matrices(
    pairs: Int[Tensor, "pair 2"], factors: Float[Tensor, "block pair 2"]
) -> Float[Tensor, "block unit unit"]:
    """Return the matrices that multiply each pair of units by a complex number.

    Args:
        pairs: units of the real and of the imaginary part.
        factors: real and imaginary part of each factor.
    """
    size = 2 * len(pairs)
    matrices = torch.zeros(len(factors), size, size, dtype=factors.dtype)
    (real, imaginary), (a, b) = pairs.T, factors.unbind(-1)
    matrices[:, real, real] = matrices[:, imaginary, imaginary] = a
    matrices[:, imaginary, real], matrices[:, real, imaginary] = b, -b
    return matrices


def _unit_phases(blocks: int, pairs: int) -> Float[Tensor, "block pair 2"]:
    angle = 2 * math.pi * _random("phases", blocks, pairs)
    return torch.stack([angle.cos(), angle.sin()], -1)


def _reflections(blocks: int, size: int) -> Float[Tensor, "block unit unit"]:
    normal = _random("reflections", blocks, size)
    normal = normal / normal.norm(dim=1, keepdim=True)
    return torch.eye(size, dtype=torch.float64) - 2 * normal[:, :, None] * normal[:, None]


def _rank_one_changes(blocks: int, size: int) -> Float[Tensor, "block unit unit"]:
    """Return I + u v^T, with v^T u >= 0 so that it is well conditioned."""
    first, second = _random("rank one", blocks, 2, size).unbind(1)
    sign = torch.where((first * second).sum(1, keepdim=True) < 0, -1.0, 1.0)
    outer = (sign * first)[:, :, None] * second[:, None] / size
    return torch.eye(size, dtype=torch.float64) + outer


def _random(name: str, *shape: int) -> Tensor:
    generator = torch_generator("linear maps", name)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _groups_of_units(spec: PermutationSpec) -> Iterator[tuple[str, tuple[MappedAxis, ...]]]:
    """Yield the groups of two or more units per block, with every axis of their units."""
    for name, group in spec.groups.items():
        occurrences = list(spec.occurrences(name))
        size = group.size // group.blocks
        if size < 2 or not occurrences or any(segment.within for _, _, segment, _ in occurrences):
            continue
        axes, layers = [], dict[str, int]()
        for tensor, dim, segment, start in occurrences:
            entries = start + torch.arange(segment.length)
            entries = entries.reshape(segment.outer, group.blocks, size, segment.inner)
            index = entries.permute(1, 0, 3, 2).flatten(1, 2)
            layers.setdefault(f"{_layer(tensor)} {start}", len(layers))
            power = segment.scale or (1 if layers[f"{_layer(tensor)} {start}"] == 0 else -1)
            axes.append(MappedAxis(tensor, dim - len(spec.axes[tensor]), index, power))
        yield name, tuple(axes)


@dataclass(frozen=True)
class _Piece:
    """The rows or columns of one layer that belong to the units of every head.

    Attributes:
        layer: name of the layer.
        dim: 0 for rows, 1 for columns.
        kept: whether no permutation moves the axis.
        axes: the axes of the layer's weight and bias.
    """

    layer: str
    dim: int
    kept: bool
    axes: tuple[MappedAxis, ...]

    @property
    def module(self) -> str:
        """Return the name of the module that has the layer."""
        return self.layer.rpartition(".")[0]

    @property
    def size(self) -> int:
        """Return the number of units of a block."""
        return self.axes[0].index.shape[2]

    def in_copies(self, size: int) -> "_Piece":
        """Return the piece with every block cut into copies of `size` units."""
        cut = [
            replace(axis, index=axis.index.unflatten(2, (-1, size)).flatten(1, 2))
            for axis in self.axes
        ]
        return replace(self, axes=tuple(cut))


_Candidate = tuple[str | None, str, tuple[MappedAxis, ...]]


def _pairs_of_layers(spec: PermutationSpec) -> Iterator[_Candidate]:
    """Yield rows of one layer with rows or columns of another, whose units stay within a head.

    Yields:
        The group of heads, the two layers, and the axes.
    """
    for heads, pieces in _pieces_of_heads(spec):
        for first, second in itertools.combinations(pieces, 2):
            if first.size == second.size:
                yield from _pair(heads, first, second)
    for first, second in itertools.combinations(_pieces_of_one_block(spec), 2):
        size = min(first.size, second.size)
        if (first.kept or second.kept) and first.size % size == second.size % size == 0:
            yield from _pair(None, first.in_copies(size), second.in_copies(size))


def _pair(heads: str | None, first: _Piece, second: _Piece) -> Iterator[_Candidate]:
    """Yield the axes of two pieces of one module, those of rows first."""
    first, second = sorted((first, second), key=lambda piece: piece.dim)
    if first.dim == 0 and first.module == second.module:
        inverse = tuple(replace(axis, power=-1) for axis in second.axes)
        yield heads, f"{first.layer} and {second.layer}", (*first.axes, *inverse)


def _pieces_of_heads(spec: PermutationSpec) -> Iterator[tuple[str, list[_Piece]]]:
    """Yield every group of heads, and the pieces of layers in which these move as a whole."""
    for name, heads in spec.groups.items():
        members = [name, *(own.name for own in spec.groups.values() if own.parent == name)]
        found = [
            (tensor, dim, segment.inner, start + torch.arange(segment.length))
            for member in members
            for tensor, dim, segment, start in spec.occurrences(member)
            if segment.outer == 1 and segment.inner > 1 and not segment.within
        ]
        size = min((inner for _, _, inner, _ in found), default=1)
        pieces: dict[tuple[str, int, int], _Piece] = {}
        for tensor, dim, inner, entries in found:
            if inner % size == 0:
                parts = entries.reshape(heads.size, -1, inner // size, size).unbind(2)
                for index in parts:
                    _add(pieces, spec, tensor, dim, index, kept=False)
        yield name, list(pieces.values())


def _pieces_of_one_block(spec: PermutationSpec) -> list[_Piece]:
    """Return the axes that no permutation moves, and those of heads, whose units are one block.

    These are queries and keys with rotary positions where there is one head, or one of keys.
    """
    pieces: dict[tuple[str, int, int], _Piece] = {}
    for tensor, axes in spec.axes.items():
        for dim, axis in enumerate(axes):
            if len(axis) != 1 or axis[0].within or axis[0].outer > 1:
                continue
            (segment,) = axis
            kept = segment.group is None
            if (segment.size if kept else segment.inner) > 1:
                shape = (1, 1, segment.length) if kept else (1, segment.size, segment.inner)
                index = torch.arange(segment.length).reshape(shape)
                _add(pieces, spec, tensor, dim, index, kept=kept)
    return list(pieces.values())


def _add(
    pieces: dict[tuple[str, int, int], _Piece],
    spec: PermutationSpec,
    tensor: str,
    dim: int,
    index: Int[Tensor, "block copy unit"],
    *,
    kept: bool,
) -> None:
    """Add an axis of a weight or bias to the piece of its layer."""
    rank = len(spec.axes[tensor])
    if rank > 2:
        return
    layer, axis = _layer(tensor), MappedAxis(tensor, dim - rank, index, 1)
    key = (layer, dim, int(index.min()))
    before = pieces[key].axes if key in pieces else ()
    pieces[key] = _Piece(layer, dim, kept, (*before, axis))


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _free_units(
    axes: tuple[MappedAxis, ...], fixed: Mapping[str, FixedTensor]
) -> tuple[Tensor, Tensor]:
    """Return where A and where A^-T act whether no entry of a unit is fixed, (block, unit) each."""
    blocks, _, size = axes[0].index.shape
    free = {power: torch.ones(blocks, size, dtype=torch.bool) for power in (1, -1)}
    for axis in axes:
        if axis.tensor in fixed:
            entries = fixed[axis.tensor].free.movedim(axis.dim, 0)
            is_free = entries.reshape(len(entries), -1).all(1)
            free[axis.power] &= is_free[axis.index].all(1)
    return free[1], free[-1]
