"""Sets of hidden units that may take any order, and the weights that each unit of a set brings with
it.

The components of a `SymmetryGroup` that are `interchangeable` are such sets. Of an entangled one,
those runs of units are, each of which may change places with the next while everything else stays:
then any order of the run is in the group. Fixed entries are nobody's; units that may change places
have theirs in the same places.

Whether their prior is the same, which permuting a posterior without loss needs,
`check_invariant_prior` tries out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bnn_symm.errors import IncompatiblePosteriors, SymmetryError
from bnn_symm.models.bayesian_model import BayesianModel
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import SymmetryGroup
from bnn_symm.symmetry.group.symmetry_group import Component

# Relative change of the log prior under a permutation that is rounding in float64.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class UnitOrbit:
    """Units of one group that may take any order, whatever other units do.

    Attributes:
        group: whose units they are.
        units: their numbers in it.
        index: where in the flat vector each unit's weights lie; equal columns of two units change
            places.
        signed: which of them change sign with their unit.
        orientation: signs that make the units alike: one that takes the place of another of the
            other sign flips.
        flips: whether each unit may also change its sign by itself.
        touched: coordinates of the flat vector that the order of the units changes.
        incomplete: whether some of these are not in `index`, since they are of two units of the set
            at once.
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
        """What of a flat vector (or of a batch of them) each unit has, with the signs that make the
        units alike.
        """
        sign = torch.where(
            self.signed, self.orientation[:, None], torch.ones(()).to(self.orientation)
        )
        return flat[..., self.index] * sign


def interchangeable_units(
    model: BayesianModel, group: SymmetryGroup
) -> tuple[list[UnitOrbit], int]:
    """Independent sets of units that may take any order.

    Args:
        model: whose flat vector is meant.
        group: of its network.

    Returns:
        The sets, in the order of the network's layers, and how many components of the group are
        left out or split since their units only move together.
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
    return sorted(sets, key=lambda one: (names.index(one.group), one.units)), left_out


def unaffected_columns(units: UnitOrbit, others: Sequence[UnitOrbit]) -> Bool[Tensor, " column"]:
    """Which columns of a set's `index` the order of other sets leaves alone."""
    touched = torch.zeros_like(units.touched)
    for other in others:
        touched |= other.touched
    return ~touched[units.index].any(0)


def check_invariant_prior(model: BayesianModel, group: SymmetryGroup, *, seed: int = 0) -> None:
    """Raises SymmetryError if random elements of the group change the log prior density of a random
    point.
    """
    if group.is_trivial:
        return
    generator = torch_generator(seed, "invariant prior")
    flat = torch.randn(model.num_parameters, generator=generator, dtype=torch.float64).to(
        model.device
    )
    with torch.inference_mode():
        before = float(model.log_prior(flat))
        for number in range(3):
            permuted = model.permute(flat, group.random(seed, "invariant prior", number))
            change = float(model.log_prior(permuted)) - before
            if abs(change) > _ROUNDING * max(1.0, abs(before)):
                raise SymmetryError(
                    "the prior is not the same for units that can be permuted: its log density "
                    "changes by "
                    f"{change:.3g} nats; symmetrizing wants one prior for all units of a layer"
                )


def _set_of(
    model: BayesianModel,
    group: SymmetryGroup,
    index: dict[str, Tensor],
    name: str,
    units: Sequence[int],
    component: Component | None = None,
) -> UnitOrbit:
    own = torch.tensor(units)
    places = [place for place in group.spec.occurrences(name) if place[0] in index]
    tensors = [tensor for tensor, _, _, _ in places]
    touched = torch.zeros(model.num_parameters + 1, dtype=torch.bool)
    columns, signed, incomplete = [], [], False
    for tensor, dim, segment, start in places:
        if segment.within:
            # Which block an entry is of, another axis says: all of the tensor counts as touched,
            # and tells nothing.
            touched[index[tensor].flatten()] = True
            incomplete = True
            continue
        entries = segment.by_unit(index[tensor], dim, start)[own]
        touched[entries.flatten()] = True
        if len({d for t, d, _, _ in places if t == tensor}) > 1:
            incomplete = True
            continue
        kept = entries[:, (entries > 0).any(0)]
        assert bool((kept > 0).all()), (
            "units that may change places have their fixed entries in the same places"
        )
        columns.append(kept - 1)
        signed.append(
            torch.full((kept.shape[1],), segment.signed and group.spec.groups[name].signed)
        )
    empty = torch.zeros(len(own), 0, dtype=torch.long)
    orientation = component.orientation if component is not None else ()
    return UnitOrbit(
        group=name,
        units=tuple(units),
        index=torch.cat([empty, *columns], 1),
        signed=torch.cat([torch.zeros(0, dtype=torch.bool), *signed]),
        orientation=torch.tensor(orientation or [1] * len(own), dtype=torch.float64),
        flips=component is not None and component.kind == "interchangeable, with signs",
        touched=touched[1:],
        incomplete=incomplete or not tensors,
    )


def _runs(group: SymmetryGroup, component: Component) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Consecutive units of an entangled component, each of which may change places with the
    next.
    """
    for name, units in component.units.items():
        run = [units[0]]
        for one, other in pairwise(units):
            if _may_swap(group, name, one, other):
                run.append(other)
                continue
            if len(run) > 1:
                yield name, tuple(run)
            run = [other]
        if len(run) > 1:
            yield name, tuple(run)


def _may_swap(group: SymmetryGroup, name: str, one: int, other: int) -> bool:
    order = torch.arange(group.spec.groups[name].size)
    order[[one, other]] = order[[other, one]]
    try:
        return group.represents(group.spec.permutation({name: order}))
    except IncompatiblePosteriors:
        # Units of two blocks, or blocks without what they own.
        return False
