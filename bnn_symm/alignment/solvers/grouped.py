"""Assign the channels of grouped convolutions, where a tensor holds one block of several units.

Blocks exchange positions as a whole. The weight of a grouped convolution has the output channels on
one axis, and the input channels of the same block on another, so that the gain of one pair of
blocks is a sum over pairs of assignments:

    max  sum_c <L_c, P_c> + sum_T <A_T, P_rows B_T P_columns^T>

with the gains L_c of tensors that hold one group of the blocks, and the tensors A_T and B_T that
hold two. Each group of units in turn takes its best order, the others fixed, from two starts: the
orders that the L_c alone prefer, and the rows of the first tensor matched by their sorted norms,
which no order of the columns changes. The best order of the blocks is then one assignment. It is
exact if the pairs of blocks are solved; each of these is a local optimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.gains import Gain, Term
from bnn_symm.symmetry import Permutation, PermutationSpec
from bnn_symm.symmetry.group.permutation_spec import Segment, block_owner

_ROUNDS = 20
_TOLERANCE = 1e-6


def double_tensors(
    spec: PermutationSpec, owner: str, children: Sequence[str]
) -> dict[str, tuple[int, int]] | None:
    """Return the tensors that hold two groups of the blocks: name -> dimensions of both.

    The first dimension has all units, and the second those of the block that the first selects.

    Args:
        spec: of the network.
        owner: group of blocks.
        children: groups whose units are in the blocks.

    Returns:
        The tensors; None if one holds the blocks in another way.
    """
    family = {owner, *children}
    found = {}
    for name, axes in spec.axes.items():
        dims = [d for d, axis in enumerate(axes) if any(s.group in family for s in axis)]
        parts = [s for d in dims for s in axes[d]]
        if not any(s.within for s in parts):
            if len(dims) > 1:
                return None
            continue
        is_plain = all((s.outer, s.inner) == (1, 1) and s.group != owner for s in parts)
        inner = [d for d in dims if any(s.within for s in axes[d])]
        if len(dims) != 2 or len(parts) != 2 or len(inner) != 1 or not is_plain:
            return None
        rows = block_owner(spec, axes, axes[inner[0]][0])
        if rows not in dims:
            return None
        found[name] = rows, inner[0]
    return found


@dataclass(frozen=True)
class _Pair:
    """A tensor of a term that holds two groups of the blocks.

    Attributes:
        row, column: segments of the two groups.
        signed: whether signs of units act on it.
        reference, other: (block, row unit, column unit, entry).
    """

    row: Segment
    column: Segment
    signed: bool
    reference: Tensor
    other: Tensor

    def flips(self, group: str) -> bool:
        """Return whether entries change sign with the units of a group."""
        return self.signed and (self.row if group == self.row.group else self.column).signed

    def transposed(self) -> "_Pair":
        """Return the same with the axes exchanged."""
        reference, other = self.reference.transpose(1, 2), self.other.transpose(1, 2)
        return _Pair(self.column, self.row, self.signed, reference, other)


@dataclass(frozen=True)
class _Orders:
    """The order of the units of one group and their signs, (old block, unit)."""

    index: Tensor
    sign: Tensor


def assign_grouped(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> Permutation:
    """Return a good order of blocks and of the units within each, with everything else fixed.

    Args:
        objective: to be maximized.
        owner: group of blocks.
        children: groups whose units are in the blocks.
        current: the permutation.
    """
    spec = objective.spec
    tensors = double_tensors(spec, owner, children)
    assert tensors
    single = [
        Term(
            {name: value for name, value in term.reference.items() if name not in tensors},
            {name: value for name, value in term.other.items() if name not in tensors},
            term.signed,
        )
        for term in objective.terms
    ]
    linear = Objective(spec, tuple(single), 0.0)
    pairs = [
        _pair(spec, term, name, *dims, current)
        for name, dims in tensors.items()
        for term in objective.terms
    ]
    search = _BlockSearch(
        spec, children, {name: linear.gain(name, current) for name in children}, pairs
    )
    total = linear.gain(owner, current).best().clone()
    found = [search.solve(block) for block in range(len(total))]
    total += torch.stack([value for value, _ in found])
    _, chosen = scipy.optimize.linear_sum_assignment(total.numpy(), maximize=True)
    indices, signs = {**current.indices, owner: torch.from_numpy(chosen)}, dict(current.signs)
    for name in children:
        own = [(int(j), orders[name]) for j, (_, orders) in zip(chosen, found, strict=True)]
        indices[name] = torch.cat([j * each.index.shape[1] + each.index[j] for j, each in own])
        if name in signs:
            signs[name] = torch.cat([each.sign[j] for j, each in own])
    return Permutation(spec, indices, signs)


def _pair(
    spec: PermutationSpec, term: Term, name: str, rows: int, columns: int, current: Permutation
) -> _Pair:
    (row,), (column,) = spec.axes[name][rows], spec.axes[name][columns]
    assert row.group is not None
    own = current if term.signed else current.unsigned()
    rest = [d for d in range(term.other[name].dim()) if d not in (rows, columns)]
    reference, other = (
        value.unsqueeze(-1)
        .movedim((rows, columns), (0, 1))
        .flatten(2)
        .unflatten(0, (spec.groups[row.group].blocks, -1))
        for value in (term.reference[name], own.apply_along(name, term.other[name], rest))
    )
    return _Pair(row, column, term.signed, reference, other)


class _BlockSearch:
    """Search the orders of units that bring each old block nearest to one new block.

    Args:
        spec: of the network.
        children: groups whose units are in the blocks.
        linear: gain of each group from tensors that hold no other of them.
        pairs: tensors that hold two of them.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        children: list[str],
        linear: dict[str, Gain],
        pairs: list[_Pair],
    ) -> None:
        self._children, self._pairs = children, pairs
        self._signed = {name: spec.groups[name].signed for name in children}
        self._linear: dict[str, tuple[Tensor, Tensor]] = {}
        for name, gain in linear.items():
            blocks = spec.groups[name].blocks
            parts = (torch.zeros_like(gain.unsigned), gain.unsigned)
            if gain.signed is not None:
                parts = (gain.signed, gain.unsigned)
            signed, unsigned = (
                part.unflatten(0, (blocks, -1)).unflatten(2, (blocks, -1)).transpose(1, 2)
                for part in parts
            )
            self._linear[name] = signed, unsigned

    def solve(self, block: int) -> tuple[Tensor, dict[str, _Orders]]:
        """Return the best values that were found in the place of a block, (old block,); orders."""
        first = self._pairs[0].row.group
        assert first is not None
        value, orders = self._ascend({}, block)
        other_value, others = self._ascend({first: self._by_norms(first, block)}, block)
        is_better = (other_value > value)[:, None]
        return torch.maximum(value, other_value), {
            name: _Orders(
                torch.where(is_better, others[name].index, own.index),
                torch.where(is_better, others[name].sign, own.sign),
            )
            for name, own in orders.items()
        }

    def _ascend(self, orders: dict[str, _Orders], block: int) -> tuple[Tensor, dict[str, _Orders]]:
        for name in self._children:
            if name not in orders:
                orders = {**orders, name: self._best(name, *self._gain(name, orders, block))}
        value = self._value(orders, block)
        for _ in range(_ROUNDS):
            for name in self._children:
                orders = {**orders, name: self._best(name, *self._gain(name, orders, block))}
            before, value = value, self._value(orders, block)
            if bool((value - before <= _TOLERANCE * value.abs()).all()):
                break
        return value, orders

    def _gain(self, name: str, orders: dict[str, _Orders], block: int) -> tuple[Tensor, Tensor]:
        """Return the parts of a group's gain that a flip negates and leaves, (block, new, old)."""
        signed, unsigned = (part[block].clone() for part in self._linear[name])
        for pair in self._pairs:
            if name not in (pair.row.group, pair.column.group):
                continue
            own = pair if name == pair.row.group else pair.transposed()
            assert own.column.group is not None
            partner = orders.get(own.column.group)
            if partner is None:
                continue
            other = _take(own.other, partner.index, 2)
            if own.flips(own.column.group):
                other = other * partner.sign[:, None, :, None]
            product = own.reference[block].flatten(1) @ other.flatten(2).transpose(1, 2)
            (signed if own.flips(name) else unsigned).add_(product)
        return signed, unsigned

    def _best(self, name: str, signed: Tensor, unsigned: Tensor) -> _Orders:
        gains = (signed.abs() if self._signed[name] else signed) + unsigned
        columns = [
            scipy.optimize.linear_sum_assignment(gain, maximize=True)[1] for gain in gains.numpy()
        ]
        index = torch.from_numpy(np.stack(columns))
        sign = torch.ones_like(index)
        if self._signed[name]:
            sign = torch.where(signed.gather(2, index[..., None])[..., 0] < 0, -1, 1)
        return _Orders(index, sign)

    def _by_norms(self, name: str, block: int) -> _Orders:
        """Match the rows of tensors by the sorted norms of their entries."""
        signed, unsigned = self._gain(name, {}, block)
        for pair in self._pairs:
            if pair.row.group == name:
                first, second = (
                    values.norm(dim=-1).sort(-1).values for values in (pair.reference, pair.other)
                )
                unsigned += first[block] @ second.transpose(1, 2)
        return self._best(name, signed, unsigned)

    def _value(self, orders: dict[str, _Orders], block: int) -> Tensor:
        """Return the value of orders for each old block."""
        total = torch.zeros(len(self._pairs[0].other))
        for name, own in orders.items():
            signed, unsigned = (
                part[block].gather(2, own.index[..., None])[..., 0] for part in self._linear[name]
            )
            total += (signed * own.sign + unsigned).sum(1)
        for pair in self._pairs:
            assert pair.row.group is not None
            assert pair.column.group is not None
            rows, columns = orders[pair.row.group], orders[pair.column.group]
            other = _take(_take(pair.other, rows.index, 1), columns.index, 2)
            if pair.flips(pair.row.group):
                other = other * rows.sign[:, :, None, None]
            if pair.flips(pair.column.group):
                other = other * columns.sign[:, None, :, None]
            total += (pair.reference[block] * other).flatten(1).sum(1)
        return total


def _take(values: Tensor, index: Tensor, dim: int) -> Tensor:
    """Return the entries of each block along one axis, in the order of the block."""
    shape = [1] * values.dim()
    shape[0], shape[dim] = index.shape
    return values.take_along_dim(index.reshape(shape), dim)
