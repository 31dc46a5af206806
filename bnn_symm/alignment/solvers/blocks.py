"""Assign units that move in blocks: heads of attention, with the units of each head inside.

Heads exchange positions as a whole, and so do the units within a head. The best order of heads is
one assignment whose gains are themselves the values of assignments, one for each pair of heads and
each kind of unit.

The channels of depthwise convolutions are blocks of one unit of each layer, which may flip. A
filter has the flips of two layers, so the best signs of the units of a block are a maximum over the
layers together. Layers that share a filter form a tree, on which it is found exactly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.symmetry import Component, Permutation, PermutationSpec, SymmetryGroup
from bnn_symm.symmetry.group.permutation_spec import block_owner


def nested_components(group: SymmetryGroup) -> list[tuple[str, list[str]]]:
    """Return the components that are free to take any order of blocks and of units in blocks.

    Groups of which a tensor holds one block of several units (grouped convolutions) are left to the
    search by generators, and so are components that fixed entries restrict.

    Args:
        group: the symmetry group.

    Returns:
        (owner of blocks, groups whose blocks it owns) of each component.
    """
    families = []
    for component in group.components:
        family = _family(group.spec, component)
        if family is not None:
            families.append(family)
    return families


def is_one_assignment(spec: PermutationSpec, component: Component) -> bool:
    """Return whether `assign_blocks` makes a search by generators superfluous.

    It finds the best element, the rest fixed, of a nested component with blocks of one unit, or
    whose groups no tensor holds on two axes.

    Args:
        spec: of the network.
        component: an entangled component.
    """
    family = _family(spec, component)
    if family is None:
        return False
    return has_single_units(spec, *family) or all(
        sum(any(s.group in component.units for s in axis) for axis in axes) <= 1
        for axes in spec.axes.values()
    )


def has_single_units(spec: PermutationSpec, owner: str, children: list[str]) -> bool:
    """Return whether all blocks have one unit of each group.

    Args:
        spec: of the network.
        owner: group of blocks.
        children: groups whose units are in the blocks.
    """
    return all(spec.groups[name].size == spec.groups[owner].size for name in children)


def _family(spec: PermutationSpec, component: Component) -> tuple[str, list[str]] | None:
    owners = [name for name in component.units if spec.groups[name].parent is None]
    if component.kind != "entangled" or len(owners) != 1:
        return None
    owner = owners[0]
    children = [name for name in component.units if name != owner]
    if any(spec.groups[name].parent != owner for name in children):
        return None
    if component.order != math.prod(spec.groups[name].order for name in component.units):
        return None
    parts = [
        s
        for axes in spec.axes.values()
        for axis in axes
        for s in axis
        if s.group in component.units
    ]
    if any(s.within for s in parts) and not has_single_units(spec, owner, children):
        return None
    return owner, children


def assign_blocks(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> Permutation:
    """Return the best order of blocks and of the units within each, with everything else fixed.

    Args:
        objective: to be maximized.
        owner: group of blocks.
        children: groups whose units are in the blocks.
        current: the permutation.
    """
    spec = objective.spec
    if has_single_units(spec, owner, children):
        return _assign_single_units(objective, owner, children, current)
    blocks = spec.groups[owner].size
    total = objective.gain(owner, current).best().numpy().astype(np.float64)
    inner: dict[str, dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]] = {}
    for name in children:
        gain, inner[name] = objective.gain(name, current), {}
        for i in range(blocks):
            for j in range(blocks):
                value, columns, flips = _best(
                    gain, spec.groups[name].signed, i, j, spec.groups[name].size // blocks
                )
                inner[name][i, j] = columns, flips
                total[i, j] += value
    _, chosen = scipy.optimize.linear_sum_assignment(total, maximize=True)
    indices: dict[str, Tensor] = {**current.indices, owner: torch.from_numpy(chosen)}
    signs: dict[str, Tensor] = dict(current.signs)
    for name in children:
        units = spec.groups[name].size // blocks
        parts = [inner[name][i, int(j)] for i, j in enumerate(chosen)]
        index = [int(j) * units + columns for j, (columns, _) in zip(chosen, parts, strict=True)]
        indices[name] = torch.from_numpy(np.concatenate(index))
        if name in signs:
            signs[name] = torch.from_numpy(np.concatenate([flips for _, flips in parts]))
    return Permutation(spec, indices, signs)


@dataclass
class SignGains:
    """The gain of each pair of blocks, (new block, old block), as a function of the units' signs.

    Attributes:
        constant: the part without signs.
        linear: group -> factor of the sign of its unit.
        pairs: two groups -> factor of the product of their signs.
    """

    constant: Tensor
    linear: dict[str, Tensor]
    pairs: dict[tuple[str, str], Tensor]

    def gather(self, index: Tensor) -> "SignGains":
        """Return the gains of one order, (new block,) each."""

        def along(values: Tensor) -> Tensor:
            return values.gather(1, index[:, None])[:, 0]

        linear = {name: along(values) for name, values in self.linear.items()}
        pairs = {names: along(values) for names, values in self.pairs.items()}
        return SignGains(along(self.constant), linear, pairs)

    def best(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the maximum over signs, and the signs of each group at the maximum."""
        total, signs = self.constant.clone(), {}
        sums = {name: [value.clone(), -value] for name, value in self.linear.items()}
        choices: dict[str, list[Tensor]] = {}
        edges = _spanning_forest(list(self.linear), self.pairs)
        for name, parent in reversed(edges.items()):
            positive, negative = sums[name]
            if parent is None:
                total += torch.maximum(positive, negative)
                choices[name] = [positive >= negative]
                continue
            factor = self.pairs[_key(name, parent)]
            choices[name] = []
            for state, sign in enumerate((1, -1)):  # of the parent
                same, other = positive + sign * factor, negative - sign * factor
                sums[parent][state] += torch.maximum(same, other)
                choices[name].append(same >= other)
        for name, parent in edges.items():
            chosen = choices[name][0]
            if parent is not None:
                chosen = torch.where(signs[parent] > 0, *choices[name])
            signs[name] = torch.where(chosen, 1, -1)
        return total, signs


def _key(a: str, b: str) -> tuple[str, str]:
    return min(a, b), max(a, b)


def _spanning_forest(
    names: list[str], pairs: Mapping[tuple[str, str], Tensor]
) -> dict[str, str | None]:
    """Return group -> parent, None for a root; parents come first.

    Pairs that close a cycle are left out, so that the maximum is then not exact.
    """
    parents: dict[str, str | None] = {}
    for root in names:
        waiting: list[tuple[str, str | None]] = [(root, None)]
        while waiting:
            name, parent = waiting.pop(0)
            if name not in parents:
                parents[name] = parent
                waiting += [
                    (b if a == name else a, name) for a, b in pairs if name in (a, b) and a != b
                ]
    return parents


def _assign_single_units(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> Permutation:
    """Return the best order of blocks of one unit of each group, and the signs of the units."""
    gains = _sign_gains(objective, owner, children, current)
    _, chosen = scipy.optimize.linear_sum_assignment(gains.best()[0].numpy(), maximize=True)
    order = torch.from_numpy(chosen)
    indices = {**current.indices, **dict.fromkeys([owner, *children], order)}
    signs = {**current.signs, **gains.gather(order).best()[1]}
    return Permutation(objective.spec, indices, signs)


def _sign_gains(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> SignGains:
    """Return the gains of pairs of blocks of one unit, all other units fixed.

    The gain of a group has the filters of its rows with the current signs of the layer before,
    which are replaced by a factor of both signs.
    """
    spec, gains = objective.spec, {name: objective.gain(name, current) for name in children}
    constant = objective.gain(owner, current).best().clone()
    linear: dict[str, Tensor] = {}
    for name, gain in gains.items():
        constant += gain.unsigned
        if gain.signed is not None and name in current.signs and spec.groups[name].signed:
            linear[name] = gain.signed.clone()
        elif gain.signed is not None:
            constant += gain.signed
    pairs: dict[tuple[str, str], Tensor] = {}
    for name in children:
        for tensor, dim, segment, _ in objective.occurrences(name):
            if not segment.within:
                continue
            axes = spec.axes[tensor]
            rows = block_owner(spec, axes, segment)
            ((row,),) = (axes[rows],)
            for term in objective.terms:
                own = current if term.signed else current.unsigned()
                rest = [d for d in range(len(axes)) if d not in (rows, dim)]
                other = own.apply_along(tensor, term.other[tensor], rest)
                first, second = (
                    row.by_unit(value, rows, 0) for value in (term.reference[tensor], other)
                )
                product = first @ second.T
                flips = term.signed and segment.signed and name in linear
                row_flips = term.signed and row.signed and row.group in linear
                inner = own.signs[name] if flips else torch.ones(len(product))
                outer = own.signs[row.group] if row_flips else torch.ones(len(product))
                # Both gains have the filters: one in the current order, one with current signs.
                entries = product.gather(1, current.indices[owner][:, None])[:, 0] * outer
                (linear[name] if flips else constant).diagonal().sub_(entries)
                (linear[row.group] if row_flips else constant).sub_(product * inner[:, None])
                if flips and row_flips:
                    key = _key(row.group, name)
                    pairs[key] = pairs.get(key, 0) + product
                elif flips or row_flips:
                    linear[name if flips else row.group].add_(product)
                else:
                    constant.add_(product)
    return SignGains(constant, linear, pairs)


def _best(
    gain: Gain, signed: bool, i: int, j: int, units: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return value, order and signs of the best assignment of block j's units to block i."""
    square = (slice(i * units, (i + 1) * units), slice(j * units, (j + 1) * units))
    values = (gain.best() if signed else gain.unflipped())[square].numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(values, maximize=True)
    flips = np.ones(units, dtype=np.int64)
    if signed and gain.signed is not None:
        flips = np.where(gain.signed[square].numpy()[rows, columns] < 0, -1, 1)
    return float(values[rows, columns].sum()), columns, flips
