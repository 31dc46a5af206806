"""Assign the channels of depthwise convolutions: blocks of one unit of each of several layers.

The units of a channel move together, and may flip. A filter has the flips of two layers, its own
and the one that it reads, so the best signs of a channel are a maximum over all layers together.
Layers that share a filter are neighbors in a tree, on which the maximum is found exactly, as the
most likely states of a tree of binary variables are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import scipy
import torch
from torch import Tensor

from bnn_symm.alignment.objective import Objective
from bnn_symm.symmetry import Permutation
from bnn_symm.symmetry.group.permutation_spec import block_owner


@dataclass
class SignGains:
    """The gain of each pair of channels, (new, old), as a function of the units' signs.

    Attributes:
        constant: the part without signs.
        linear: group -> factor of the sign of its unit.
        pairs: two groups -> factor of the product of their signs.
    """

    constant: Tensor
    linear: dict[str, Tensor]
    pairs: dict[tuple[str, str], Tensor]

    def gather(self, index: Tensor) -> "SignGains":
        """Return the gains of one order, (new channel,) each.

        Args:
            index: (new channel,), the old channels.
        """

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


def assign_channels(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> Permutation:
    """Return the best order of channels and the signs of their units, with everything else fixed.

    Args:
        objective: to be maximized.
        owner: group of the channels.
        children: groups with one unit in each channel.
        current: the permutation.
    """
    gains = _sign_gains(objective, owner, children, current)
    _, chosen = scipy.optimize.linear_sum_assignment(gains.best()[0].numpy(), maximize=True)
    order = torch.from_numpy(chosen)
    indices = {**current.indices, **dict.fromkeys([owner, *children], order)}
    signs = {**current.signs, **gains.gather(order).best()[1]}
    return Permutation(objective.spec, indices, signs)


def _sign_gains(
    objective: Objective, owner: str, children: list[str], current: Permutation
) -> SignGains:
    """Return the gains of pairs of channels, all other units fixed.

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
            (row,) = axes[rows]
            assert row.group is not None
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
