"""Express fixed entries as relations between hidden units.

The automorphisms of the resulting structure are the group that fixed entries leave. A vertex is a
unit of a group; a unit that may flip has two vertices, itself and its negative, tied by a partner
relation. A fixed tensor with one hidden axis colors units; one with two hidden axes relates them in
pairs. Free entries have a color of their own, so a permutation that preserves all colors maps mask
and fixed values to themselves.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry.group.fixed_values import FixedTensor
from bnn_symm.symmetry.group.permutation_spec import Axis, PermutationSpec, Segment, block_owner

_FREE = 0
_ABSENT = -1


@dataclass(frozen=True)
class Relation:
    """Colors of pairs of vertices.

    Attributes:
        name: name of the tensor that it comes from.
        rows: (row,) vertices.
        columns: (column,) vertices.
        colors: (row, column).
    """

    name: str
    rows: np.ndarray
    columns: np.ndarray
    colors: np.ndarray

    @property
    def is_square(self) -> bool:
        """Return whether rows and columns are the same vertices, so that there is a diagonal."""
        return np.array_equal(self.rows, self.columns)


@dataclass
class Structure:
    """Vertices with colors, and relations between them.

    Attributes:
        group: (vertex,) index of the group in the spec's order.
        unit: (vertex,) unit of the group.
        sign: (vertex,) 1, or -1 for the negative of a unit.
        colors: arrays of (vertex,) colors, all of which an automorphism preserves.
        relations: relations between vertices.
    """

    group: np.ndarray
    unit: np.ndarray
    sign: np.ndarray
    colors: list[np.ndarray] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)


def build_structure(spec: PermutationSpec, fixed: Mapping[str, FixedTensor]) -> Structure:
    """Build the structure that fixed entries induce on the units of a spec.

    Args:
        spec: the permutations to restrict.
        fixed: tensor name -> its fixed entries; tensors that the spec lacks are ignored.

    Raises:
        SymmetryError: if fixed entries relate three axes of hidden units.
    """
    where: dict[str, np.ndarray] = {}
    parts: list[tuple[int, int, int]] = []
    for number, (name, group) in enumerate(spec.groups.items()):
        start = len(parts)
        parts += [
            (number, unit, sign)
            for sign in ((1, -1) if group.signed else (1,))
            for unit in range(group.size)
        ]
        where[name] = np.arange(start, len(parts))
    group, unit, sign = np.array(parts, dtype=np.int64).reshape(-1, 3).T
    structure = Structure(group, unit, sign)
    _add_partners(structure, spec, where)
    _add_blocks(structure, spec, where)
    for name, entry in fixed.items():
        if name in spec.axes and not bool(entry.free.all()):
            _add_tensor(structure, spec, where, name, entry)
    return structure


def _add_partners(
    structure: Structure, spec: PermutationSpec, where: Mapping[str, np.ndarray]
) -> None:
    for name, group in spec.groups.items():
        if group.signed:
            swap = np.roll(np.arange(2 * group.size), group.size)
            partner = (np.arange(2 * group.size)[:, None] == swap).astype(np.int64)
            structure.relations.append(
                Relation(f"signs of {name}", where[name], where[name], partner)
            )


def _add_blocks(
    structure: Structure, spec: PermutationSpec, where: Mapping[str, np.ndarray]
) -> None:
    for name, group in spec.groups.items():
        if group.blocks == 1:
            continue
        block = structure.unit[where[name]] // (group.size // group.blocks)
        if group.parent is None:
            _color(structure, where[name], block)
            continue
        owner = where[group.parent]
        belongs = (block[:, None] == structure.unit[owner]).astype(np.int64)
        structure.relations.append(Relation(f"blocks of {name}", where[name], owner, belongs))


def _color(structure: Structure, vertices: np.ndarray, colors: np.ndarray) -> None:
    everywhere = np.full(len(structure.unit), _ABSENT)
    everywhere[vertices] = colors
    structure.colors.append(everywhere)


def _add_tensor(
    structure: Structure,
    spec: PermutationSpec,
    where: Mapping[str, np.ndarray],
    name: str,
    entry: FixedTensor,
) -> None:
    """Cut a tensor along the segments of its axes, and add the relation or colors of each piece."""
    axes = spec.axes[name]
    free, values = entry.free.numpy(), entry.values.numpy()
    every = np.unique(np.concatenate([values[~free], -values[~free]]))
    codes = np.where(free, _FREE, np.searchsorted(every, values) + 1)
    negated = np.where(free, _FREE, np.searchsorted(every, -values) + 1)
    for hidden, arrays in pieces(spec, axes, codes, negated):
        _add_piece(structure, spec, where, name, hidden, *arrays)


def pieces(
    spec: PermutationSpec, axes: tuple[Axis, ...], *arrays: np.ndarray
) -> Iterator[tuple[list[Segment], list[np.ndarray]]]:
    """Yield the pieces of a tensor between segments of its axes, with their entries by unit.

    Args:
        spec: the spec of the network.
        axes: the axes of the tensor.
        arrays: integer arrays of its shape; -1 marks absent entries of an axis that holds one
            block.

    Yields:
        The segments that belong to a group, and each array as (*unit of each, other entries).
    """
    axes, *wide = _expand_blocks(spec, axes, *arrays)
    starts = [
        list(itertools.accumulate([segment.length for segment in axis], initial=0)) for axis in axes
    ]
    for choice in itertools.product(*(range(len(axis)) for axis in axes)):
        segments = [axis[i] for axis, i in zip(axes, choice, strict=True)]
        place = tuple(
            slice(bounds[i], bounds[i + 1]) for bounds, i in zip(starts, choice, strict=True)
        )
        hidden = [segment for segment in segments if segment.group is not None]
        if hidden:
            yield hidden, [_by_unit(array[place], segments) for array in wide]


def _by_unit(piece: np.ndarray, segments: list[Segment]) -> np.ndarray:
    """Reshape a piece to (*unit of each hidden axis, other entries)."""
    shape: list[int] = []
    units: list[int] = []
    for segment in segments:
        if segment.group is not None:
            units.append(len(shape) + 1)
            shape += [segment.outer, segment.size, segment.inner]
        else:
            shape.append(segment.length)
    array = np.moveaxis(piece.reshape(shape), units, range(len(units)))
    return array.reshape(*array.shape[: len(units)], -1)


def _add_piece(
    structure: Structure,
    spec: PermutationSpec,
    where: Mapping[str, np.ndarray],
    name: str,
    hidden: list[Segment],
    codes: np.ndarray,
    negated: np.ndarray,
) -> None:
    if len(hidden) > 2:
        raise SymmetryError(
            f"{name}: fixed entries lie on three axes of hidden units, which is not supported; "
            "leave all entries of this tensor free"
        )
    signs = [(1, -1) if spec.groups[segment.group or ""].signed else (1,) for segment in hidden]

    def signed(*unit_signs: int) -> np.ndarray:
        flips = sum(
            segment.signed and sign < 0 for segment, sign in zip(hidden, unit_signs, strict=True)
        )
        return negated if flips % 2 else codes

    vertices = [where[segment.group or ""] for segment in hidden]
    if len(hidden) == 1:
        every = np.concatenate([signed(sign) for sign in signs[0]])
        _color(structure, vertices[0], _number_rows(every))
        return
    every = np.concatenate(
        [np.concatenate([signed(r, c) for c in signs[1]], axis=1) for r in signs[0]]
    )
    colors = _number_rows(every.reshape(-1, every.shape[-1])).reshape(every.shape[:2])
    relation = Relation(name, vertices[0], vertices[1], colors)
    if relation.is_square:
        _color(structure, vertices[0], np.diagonal(colors))
    structure.relations.append(relation)


def _number_rows(rows: np.ndarray) -> np.ndarray:
    """Assign numbers to rows so that equal rows get equal numbers."""
    if rows.shape[1] == 1:
        return np.unique(rows[:, 0], return_inverse=True)[1]
    packed = np.ascontiguousarray(rows).view([("", rows.dtype)] * rows.shape[1]).ravel()
    return np.unique(packed, return_inverse=True)[1].ravel()


def _expand_blocks(
    spec: PermutationSpec, axes: tuple[Axis, ...], *arrays: np.ndarray
) -> tuple[tuple[Axis, ...], *tuple[np.ndarray, ...]]:
    """Expand an axis that holds one block to all units; entries outside of it are absent."""
    for dim, axis in enumerate(axes):
        if not any(segment.within for segment in axis):
            continue
        (segment,) = axis
        assert segment.group is not None
        group = spec.groups[segment.group]
        owner = block_owner(spec, axes, segment)
        expanded = []
        for array in arrays:
            moved = np.moveaxis(array, (owner, dim), (0, 1))
            rows = len(moved) // group.blocks
            wide = np.full((len(moved), group.size, *moved.shape[2:]), _ABSENT, dtype=array.dtype)
            for block in range(group.blocks):
                block_rows = slice(block * rows, (block + 1) * rows)
                wide[block_rows, block * segment.size : (block + 1) * segment.size] = moved[
                    block_rows
                ]
            expanded.append(np.moveaxis(wide, (0, 1), (owner, dim)))
        whole = Segment(
            group=segment.group, size=group.size, signed=segment.signed, scale=segment.scale
        )
        return (*axes[:dim], (whole,), *axes[dim + 1 :]), *expanded
    return axes, *arrays
