"""Find the symmetry group that masks, fixed values and gates leave, with a proof.

    symmetry_group(net) -> SymmetryGroup

A permutation of hidden units is a symmetry of a network with fixed entries only if it maps the
masks and the fixed values to themselves: it is then *representable*. These permutations are the
automorphisms of a structure (`relations`). Color refinement distinguishes most units at once. Where
cells of units remain that nothing ties to one another, the group is the product of their symmetric
groups. Only entangled cells need a graph automorphism program.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from bnn_symm.arguments import checked
from bnn_symm.errors import NotRepresentable
from bnn_symm.randomness import numpy_generator
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry.derive import permutation_spec
from bnn_symm.symmetry.group.automorphisms import automorphisms
from bnn_symm.symmetry.group.fixed_values import (
    FixedTensor,
    fixed_entries,
    moved_tensors,
    unit_statistics,
)
from bnn_symm.symmetry.group.permutation_spec import Permutation, PermutationSpec
from bnn_symm.symmetry.group.refinement import entangled_cells, refine, restrict
from bnn_symm.symmetry.group.relations import Structure, build_structure

Kind = Literal["interchangeable", "interchangeable, with signs", "entangled"]

# Products of generators behind a random element of an entangled component.
_RANDOM_PRODUCTS = 40


@dataclass(frozen=True)
class Component:
    """A part of the group that is independent of all others.

    Attributes:
        units: group -> units that it moves, ascending.
        kind: `interchangeable`: any order of the units of one group; `interchangeable, with signs`:
            each may flip too; `entangled`: units that only move together.
        order: number of elements.
        orientation: for interchangeable units that may flip, but not each by itself: a sign for
            each of `units`; a unit that moves to the position of one with the other sign is
            flipped.
        moves: generators of an entangled component: group -> (index, sign) of each of `units`.
    """

    units: Mapping[str, tuple[int, ...]]
    kind: Kind
    order: int
    orientation: tuple[int, ...] = ()
    moves: tuple[Mapping[str, tuple[np.ndarray, np.ndarray]], ...] = ()

    def signs(self, order: np.ndarray) -> np.ndarray:
        """Return the signs of the units of an interchangeable component for an order of them."""
        orientation = np.asarray(self.orientation or [1] * len(order))
        return orientation * orientation[order]


@dataclass(frozen=True, repr=False)
class SymmetryGroup(Summarized):
    """The representable permutations of a network.

    Attributes:
        spec: all permutations, as if nothing were fixed.
        fixed: fixed entries by tensor, for the tensors of the spec.
        components: the factors of the group, which is their direct product.
        rounds: number of rounds of color refinement.
        num_searched: number of components that color refinement left entangled, decided by BLISS.

    Example:
        >>> from torch import nn
        >>> symmetry_group(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))).order
        6
    """

    spec: PermutationSpec
    fixed: Mapping[str, FixedTensor]
    components: tuple[Component, ...]
    rounds: int
    num_searched: int = 0

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {"log10_order": self.log10_order, "components": len(self.components)}

    @cached_property
    def order(self) -> int:
        """Return the exact number of elements."""
        return math.prod(component.order for component in self.components)

    @property
    def log10_order(self) -> float:
        """Return the base-10 logarithm of the number of equivalent modes."""
        return math.fsum(_log10(component.order) for component in self.components)

    @property
    def is_trivial(self) -> bool:
        """Return whether only the identity is left."""
        return not self.components

    @property
    def num_unsearched_flips(self) -> int:
        """Return the number of units of which some flips are neither searched nor excluded.

        The flip of all units before a norm is excluded where every weight into these units has a
        nonzero fixed entry in each row, which the flip would change.
        """
        excluded = 0
        for name in self.spec.flips_before_norms:
            makers = [
                (tensor, dim)
                for tensor, dim, _, _ in self.spec.occurrences(name)
                if dim == 0 < len(self.spec.axes[tensor]) - 1
            ]
            if makers and all(
                tensor in self.fixed and self._all_rows_fixed(tensor) for tensor, _ in makers
            ):
                excluded += self.spec.groups[name].size
        return self.spec.num_unsearched_flips - excluded

    def _all_rows_fixed(self, tensor: str) -> bool:
        return bool((self.fixed[tensor].values != 0).flatten(1).any(1).all())

    @property
    def certificate(self) -> str:
        """Return a sentence that states what is proved of the group, and how."""
        owners = {group.parent for group in self.spec.groups.values()}
        units = sum(
            group.size for name, group in self.spec.groups.items() if name not in owners
        )  # heads do not count as units
        if not units:
            return f"trivial: {self._unsearched or 'proved, there are no hidden units'}"
        return self._proof(units, owners) + (f"; {self._unsearched}" if self._unsearched else "")

    def _proof(self, units: int, owners: Collection[str | None]) -> str:
        """Return what is proved of the units that were searched."""
        rounds = _count(self.rounds, "round")
        if self.is_trivial:
            how = "by their own fixed entries" if self.rounds == 0 else f"in {rounds}"
            share, rest = (
                ("all", "") if not self.num_searched else ("most of", ", and by BLISS for the rest")
            )
            counted = _count(units, "hidden unit")
            among = f" among {counted}" if self._unsearched else ""
            return (
                f"trivial{among}: proved by color refinement, which distinguishes {share} "
                f"{counted} {how}{rest}"
            )
        if all(bool(entry.free.all()) for entry in self.fixed.values()):
            flips = any(group.signed for group in self.spec.groups.values())
            return (
                "full: nothing is fixed, so every derived permutation of the "
                f"{_count(units, 'hidden unit')}{', with sign flips,' if flips else ''} is a "
                "symmetry"
            )
        moved = sum(
            len(o) for c in self.components for name, o in c.units.items() if name not in owners
        )
        how = f"proved by color refinement in {rounds}"
        how += (
            f" and by BLISS for {_count(self.num_searched, 'entangled component')}"
            if self.num_searched
            else ""
        )
        return (
            f"not trivial: {moved} of {units} hidden units can move, in "
            f"{_count(len(self.components), 'independent component')}; {how}"
        )

    @property
    def _unsearched(self) -> str:
        """Return what the derivation did not search, so that it is not mistaken for proved."""
        num_frozen, flips, caveats = self.spec.num_frozen_units, self.num_unsearched_flips, []
        if num_frozen:
            at = f" (first at {self.spec.frozen_at})" if self.spec.frozen_at else ""
            are = "unit is" if num_frozen == 1 else "units are"
            by = "a constant or an index in the code"
            if self.spec.unknown_operations:
                names = ", ".join(map(repr, self.spec.unknown_operations))
                by = f"an operation without a rule ({names}), or by {by}"
            caveats.append(
                f"{num_frozen} {'more ' if self.spec.groups else ''}{are} kept in place by {by}"
                f"{at}, no symmetry was searched among them"
            )
        if flips:
            caveats.append(f"some flips of {_count(flips, 'unit')} were not searched")
        return "; ".join(caveats)

    def log10_order_of(self, group: str) -> float:
        """Return the base-10 logarithm of the order of the components that move one group."""
        return math.fsum(
            _log10(component.order) for component in self.components if group in component.units
        )

    def represents(self, permutation: Permutation) -> bool:
        """Return whether a permutation of the spec maps masks and fixed values to themselves."""
        return next(moved_tensors(permutation, self.fixed), None) is None

    def check(self, permutation: Permutation) -> None:
        """Check that a permutation is in the group.

        Raises:
            NotRepresentable: if it is not; the message names the tensor.
        """
        name = next(moved_tensors(permutation, self.fixed), None)
        if name is not None:
            raise NotRepresentable(
                f"the permutation moves fixed entries of {name}: the permuted weights are not in "
                f"the parameter space of this network; {self.certificate}"
            )

    def random(self, *key: int | str) -> Permutation:
        """Return a random element for a key.

        It is uniform, except in entangled components, where it is a random product of generators.
        """
        generator = numpy_generator(*key, "element")
        element = self.spec.identity()
        for component in self.components:
            if component.kind == "entangled":
                moves = (
                    generator.integers(len(component.moves), size=_RANDOM_PRODUCTS)
                    if component.moves
                    else []
                )
                for number in moves:
                    element = self._move(component, component.moves[number]).compose(element)
                continue
            ((group, units),) = component.units.items()
            order = generator.permutation(len(units))
            signs = component.signs(order)
            if component.kind == "interchangeable, with signs":
                signs = generator.integers(2, size=len(units)) * 2 - 1
            element = self._move(component, {group: (np.asarray(units)[order], signs)}).compose(
                element
            )
        return element

    def generators(self) -> Iterator[Permutation]:
        """Yield permutations that generate the whole group.

        These are swaps of neighbors, single flips, and the moves of entangled components.
        """
        for component in self.components:
            yield from self.generators_of(component)

    def generators_of(self, component: Component) -> Iterator[Permutation]:
        """Yield permutations that generate one component."""
        for move in component.moves:
            yield self._move(component, move)
        if component.kind != "entangled":
            ((group, units),) = component.units.items()
            for i in range(len(units) - 1):
                order = np.arange(len(units))
                order[[i, i + 1]] = i + 1, i
                yield self._move(
                    component, {group: (np.asarray(units)[order], component.signs(order))}
                )
            if component.kind == "interchangeable, with signs":
                flipped = np.ones(len(units), dtype=np.int64)
                flipped[0] = -1
                yield self._move(component, {group: (np.asarray(units), flipped)})

    def _move(
        self, component: Component, move: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> Permutation:
        identity = self.spec.identity()
        for group, (index, sign) in move.items():
            units = torch.tensor(component.units[group])
            identity.indices[group][units] = torch.from_numpy(np.array(index, dtype=np.int64))
            if group in identity.signs:
                identity.signs[group][units] = torch.from_numpy(np.array(sign, dtype=np.int64))
        return identity


@checked
def symmetry_group(
    net: nn.Module,
    spec: PermutationSpec | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    hold: bool = False,
    move_statistics: bool = False,
) -> SymmetryGroup:
    """Find the permutations of hidden units that preserve a network's function and fixed entries.

    Args:
        net: any module with a derivable spec.
        spec: the spec of the network, if it has been derived already.
        input_shape: see `permutation_spec`.
        hold: see `permutation_spec`.
        move_statistics: whether the statistics of frozen batch norm move with their units. The
            group then maps a network to others that compute the same with permuted statistics. It
            is the one to align two networks. The symmetries of one posterior, whose statistics are
            constants, are those of the default.

    Returns:
        The group, with its order and a proof.

    Raises:
        SymmetryError: if the spec cannot be derived.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> symmetry_group(net).order
        6
    """
    spec = spec or permutation_spec(net, input_shape, hold=hold)
    moving = unit_statistics(net) if move_statistics else {}
    fixed = {
        name: entry
        for name, entry in fixed_entries(net).items()
        if name in spec.axes and name not in moving
    }
    return representable_group(spec, fixed)


def representable_group(spec: PermutationSpec, fixed: Mapping[str, FixedTensor]) -> SymmetryGroup:
    """Return the subgroup of a spec's group that maps fixed entries to themselves.

    Args:
        spec: the spec of the network.
        fixed: tensor name -> its fixed entries, for tensors of the spec.
    """
    structure = build_structure(spec, fixed)
    coloring = refine(structure)
    cells = list(coloring.cells())
    cell_of = np.full(len(structure.unit), -1)
    for number, cell in enumerate(cells):
        cell_of[cell] = number
    components = []
    for numbers in _connected(structure, cell_of, len(cells)):
        components.append(
            _component(structure, list(spec.groups), [cells[i] for i in numbers], cell_of)
        )
    names = list(spec.groups)
    components.sort(
        key=lambda c: min((names.index(name), units[0]) for name, units in c.units.items())
    )
    num_searched = sum(component.kind == "entangled" for component in components)
    return SymmetryGroup(
        spec,
        dict(fixed),
        tuple(c for c in components if c.order > 1),
        coloring.rounds,
        num_searched,
    )


def _connected(structure: Structure, cell_of: np.ndarray, count: int) -> list[list[int]]:
    """Return the cells of each component, which entangled pairs of cells connect."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for relation in structure.relations:
        for a, b in entangled_cells(relation, cell_of):
            parent[root(a)] = root(b)
    components: dict[int, list[int]] = {}
    for i in range(count):
        components.setdefault(root(i), []).append(i)
    return list(components.values())


def _component(
    structure: Structure, names: list[str], cells: Sequence[np.ndarray], cell_of: np.ndarray
) -> Component:
    vertices = np.sort(np.concatenate(cells))
    relations = [restrict(relation, vertices) for relation in structure.relations]
    tied = [relation for relation in relations if entangled_cells(relation, cell_of)]
    positive = vertices[structure.sign[vertices] > 0]
    units = {
        names[number]: tuple(structure.unit[positive[structure.group[positive] == number]].tolist())
        for number in np.unique(structure.group[vertices])
    }
    size = len(positive)
    only_signs = all(relation.name.startswith("signs of ") for relation in tied)
    if only_signs and len(units) == 1 and len(cells) <= 2:
        if len(cells) == 1 and len(vertices) == 2 * size:
            return Component(units, "interchangeable, with signs", math.factorial(size) * 2**size)
        one_each = cells[0][np.argsort(structure.unit[cells[0]])]
        return Component(
            units, "interchangeable", math.factorial(size), tuple(structure.sign[one_each].tolist())
        )
    order, generators = automorphisms(vertices, cell_of[vertices], tied)
    moves = tuple(
        _unit_move(structure, names, vertices, positive, generator) for generator in generators
    )
    return Component(units, "entangled", order, moves=moves)


def _unit_move(
    structure: Structure,
    names: list[str],
    vertices: np.ndarray,
    positive: np.ndarray,
    generator: np.ndarray,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the units and signs that a permutation of vertices maps each unit from."""
    image = vertices[generator[np.searchsorted(vertices, positive)]]
    move = {}
    for number in np.unique(structure.group[positive]):
        sources = image[structure.group[positive] == number]
        move[names[number]] = (structure.unit[sources], structure.sign[sources])
    return move


def _log10(order: int) -> float:
    """Return the base-10 logarithm of an integer of any size."""
    return math.log10(order)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
