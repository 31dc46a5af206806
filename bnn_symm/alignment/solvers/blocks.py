"""Assign units that move in blocks: heads of attention, with the units of each head inside.

Heads exchange positions as a whole, and so do the units within a head. The best order of heads is
one assignment whose gains are themselves the values of assignments, one for each pair of heads and
each kind of unit.

Blocks of one unit of each group are the channels of depthwise convolutions (`channels`), and those
of several units the channels of grouped convolutions (`grouped`).
"""

import math

import numpy as np
import scipy
import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.channels import assign_channels
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.alignment.solvers.grouped import assign_grouped, double_tensors
from bnn_symm.symmetry import Component, Permutation, PermutationSpec, SymmetryGroup


def nested_components(group: SymmetryGroup) -> list[tuple[str, list[str]]]:
    """Return the components that are free to take any order of blocks and of units in blocks.

    Components that fixed entries restrict are left to the search by generators.

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

    It finds the best element of a nested component, the rest fixed, if no tensor holds its groups
    on two axes. Axes that hold a single block do not count: those of blocks of one unit are exact,
    and those of several units have a search of their own.

    Args:
        spec: of the network.
        component: an entangled component.
    """
    family = _family(spec, component)
    if family is None:
        return False
    return all(
        sum(any(s.group in component.units and not s.within for s in axis) for axis in axes) <= 1
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
        return None if double_tensors(spec, owner, children) is None else (owner, children)
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
        return assign_channels(objective, owner, children, current)
    if double_tensors(spec, owner, children):
        return assign_grouped(objective, owner, children, current)
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
