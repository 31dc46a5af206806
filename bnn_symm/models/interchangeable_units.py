"""Find sets of hidden units whose order is free, and the weights that belong to each unit.

The `interchangeable` components of a `SymmetryGroup` are such sets. In an entangled component, so
are runs of consecutive units, each of which can swap with the next while all other units stay:
every order of the run is then in the group. Fixed entries belong to no unit; units that can swap
have their fixed entries in the same positions.

`check_invariant_prior` tests whether these units also have the same prior, which permuting a
posterior without loss requires.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bnn_symm.errors import IncompatiblePosteriors, SymmetryError
from bnn_symm.formatting import number
from bnn_symm.models.bayesian_model import BayesianModel
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import SymmetryGroup
from bnn_symm.symmetry.group.symmetry_group import Component

# Relative change of the log prior that counts as rounding error in float64.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class UnitOrbit:
    """Describe units of one group that can take any order, whatever other units do.

    Attributes:
        group: the group of units.
        units: their indices in the group.
        index: positions of each unit's weights in the flat vector; equal columns of two units are
            exchanged when the units are.
        signed: which of these weights change sign with their unit.
        orientation: signs that align the units: a unit that takes the position of another one of
            opposite sign flips.
        flips: whether each unit can also change its sign by itself.
        touched: coordinates of the flat vector that the order of the units changes.
        incomplete: whether some of these are not in `index`, because they belong to two units of
            the set at once.
    """

    group: str
    units: tuple[int, ...]
    index: Int[Tensor, "unit column"]
    signed: Bool[Tensor, " column"]
    orientation: Float[Tensor, " unit"]
    flips: bool
    touched: Bool[Tensor, " parameter"]
    incomplete: bool

    def oriented(
        self, flat: Float[Tensor, "*draw parameter"]
    ) -> Float[Tensor, "*draw unit column"]:
        """Return the weights of each unit, with the signs that align the units.

        Args:
            flat: one flat vector, or a batch of them.

        Returns:
            One row of weights per unit.
        """
        sign = torch.where(
            self.signed, self.orientation[:, None], torch.ones(()).to(self.orientation)
        )
        return flat[..., self.index] * sign


def interchangeable_units(
    model: BayesianModel, group: SymmetryGroup
) -> tuple[list[UnitOrbit], int]:
    """Find independent sets of units that can take any order.

    Args:
        model: the model whose flat vector is indexed.
        group: the symmetry group of its network.

    Returns:
        The sets, in the order of the network's layers, and the number of components of the group
        that are left out or split because their units only move together.
    """
    index = model.layer_entries()
    sets, left_out = [], 0
    for component in group.components:
        if component.kind == "entangled":
            left_out += 1
            sets += [
                _set_of(model, group, index, name, run) for name, run in _runs(group, component)
            ]
            continue
        ((name, units),) = component.units.items()
        sets.append(_set_of(model, group, index, name, units, component))
    names = list(group.spec.groups)
    return sorted(sets, key=lambda orbit: (names.index(orbit.group), orbit.units)), left_out


def unaffected_columns(units: UnitOrbit, others: Sequence[UnitOrbit]) -> Bool[Tensor, " column"]:
    """Return which columns of a set's `index` are unaffected by the order of other sets.

    Args:
        units: the set.
        others: the other sets.

    Returns:
        One boolean per column of `units.index`.
    """
    touched = torch.zeros_like(units.touched)
    for other in others:
        touched |= other.touched
    return ~touched[units.index].any(0)


def check_invariant_prior(model: BayesianModel, group: SymmetryGroup, *, seed: int = 0) -> None:
    """Check that random elements of a group leave the log prior density unchanged.

    Args:
        model: the model with the prior.
        group: the symmetry group of its network.
        seed: of the point and of the elements.

    Raises:
        SymmetryError: if the log prior density changes.
    """
    if group.is_trivial:
        return
    generator = torch_generator(seed, "invariant prior")
    flat = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64).to(
        model.device
    )
    with torch.inference_mode():
        before = float(model.log_prior(flat))
        for draw in range(3):
            permuted = model.permute(flat, group.random(seed, "invariant prior", draw))
            change = float(model.log_prior(permuted)) - before
            if abs(change) > _ROUNDING * max(1.0, abs(before)):
                raise SymmetryError(
                    "the prior differs between units that can be permuted: its log density "
                    f"changes by {number(change)} nats; use the same prior for all units of a layer"
                )


def _set_of(
    model: BayesianModel,
    group: SymmetryGroup,
    index: dict[str, Tensor],
    name: str,
    units: Sequence[int],
    component: Component | None = None,
) -> UnitOrbit:
    selected = torch.tensor(units)
    occurrences = [
        occurrence for occurrence in group.spec.occurrences(name) if occurrence[0] in index
    ]
    tensors = [tensor for tensor, _, _, _ in occurrences]
    touched = torch.zeros(model.num_parameters + 1, dtype=torch.bool)
    columns, signed, incomplete = [], [], False
    for tensor, dim, segment, start in occurrences:
        if segment.within:
            # Another axis determines the block of an entry: the whole tensor counts as touched,
            # and none of its entries is assigned to a unit.
            touched[index[tensor].flatten()] = True
            incomplete = True
            continue
        entries = segment.by_unit(index[tensor], dim, start)[selected]
        touched[entries.flatten()] = True
        if len({d for t, d, _, _ in occurrences if t == tensor}) > 1:
            incomplete = True
            continue
        kept = entries[:, (entries > 0).any(0)]
        assert bool((kept > 0).all()), (
            "units that can swap have their fixed entries in the same positions"
        )
        columns.append(kept - 1)
        signed.append(
            torch.full((kept.shape[1],), segment.signed and group.spec.groups[name].signed)
        )
    empty = torch.zeros(len(units), 0, dtype=torch.long)
    orientation = component.orientation if component is not None else ()
    return UnitOrbit(
        group=name,
        units=tuple(units),
        index=torch.cat([empty, *columns], 1),
        signed=torch.cat([torch.zeros(0, dtype=torch.bool), *signed]),
        orientation=torch.tensor(orientation or [1] * len(units), dtype=torch.float64),
        flips=component is not None and component.kind == "interchangeable, with signs",
        touched=touched[1:],
        incomplete=incomplete or not tensors,
    )


def _runs(group: SymmetryGroup, component: Component) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield runs of units of an entangled component, each of which can swap with the next."""
    for name, units in component.units.items():
        run = [units[0]]
        for unit, following in pairwise(units):
            if _can_swap(group, name, unit, following):
                run.append(following)
                continue
            if len(run) > 1:
                yield name, tuple(run)
            run = [following]
        if len(run) > 1:
            yield name, tuple(run)


def _can_swap(group: SymmetryGroup, name: str, first: int, second: int) -> bool:
    order = torch.arange(group.spec.groups[name].size)
    order[[first, second]] = order[[second, first]]
    try:
        return group.represents(group.spec.permutation({name: order}))
    except IncompatiblePosteriors:
        # The units are in two blocks, or are blocks whose own units would not move with them.
        return False
