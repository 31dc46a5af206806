"""What aligning maximises: inner products between the tensors of one posterior and the permuted tensors of another.

For independent normals the squared Wasserstein-2 distance is a sum over weights, and permuting leaves norms as they
are, so that minimising it is maximising a sum of bilinear assignments (Rossi et al. 2023; Ainsworth et al. 2023):

    W2^2(q_A, P # q_B) = |m_A - P m_B|^2 + |s_A - P s_B|^2
                       = constant - 2 [ <m_A, P m_B> + <s_A, P s_B> ]

Means take signs, standard deviations do not. `cost`:

- `w2`: means and standard deviations;
- `means`: means only;
- `precision`: |m_A - P m_B|^2 weighted by the precision of A, still bilinear since only the reference's is taken.

Tensors are whole effective weights; entries that are fixed are the same in both and stay where they are.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; Ainsworth et al. (2023), arXiv:2209.04836, section 3.2.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, PermutationSpec
from bnn_symm.symmetry.spec import Segment, block_owner

Cost = Literal["w2", "means", "precision"]

_SMALLEST_SD = 1e-9


@dataclass(frozen=True)
class Term:
    """One sum of inner products, over the tensors of a spec.

    Attributes:
        reference: tensor name -> (*shape).
        other: the same of what is permuted.
        signed: whether signs of units act on it.
    """

    reference: Mapping[str, Tensor]
    other: Mapping[str, Tensor]
    signed: bool


@dataclass(frozen=True)
class Gain:
    """What each assignment of units would add: (new unit, old unit), the part that a flip negates, and the rest."""

    signed: Tensor
    unsigned: Tensor

    def at(self, permutation: Permutation, group: str) -> float:
        """What the assignment of a permutation gives, in float64."""
        index = permutation.indices[group]
        signed, unsigned = (part.gather(1, index[:, None])[:, 0].double() for part in (self.signed, self.unsigned))
        sign = permutation.signs.get(group)
        return float((signed if sign is None else signed * sign).sum() + unsigned.sum())

    def best(self) -> Tensor:
        """Of either sign, the larger."""
        return self.signed.abs() + self.unsigned


@dataclass(frozen=True)
class Objective:
    """The sum of all terms as a function of the permutation.

    Attributes:
        spec: of the network.
        terms: whose sum is maximised.
        constant: such that `constant - 2 value` is the squared distance that the cost names.
    """

    spec: PermutationSpec
    terms: tuple[Term, ...]
    constant: float

    def value(self, permutation: Permutation) -> float:
        """The sum of inner products, in float64."""
        total = 0.0
        for term in self.terms:
            moved = (permutation if term.signed else permutation.unsigned()).apply(term.other)
            total += sum(float((term.reference[name].double() * moved[name].double()).sum()) for name in moved)
        return total

    def distance(self, permutation: Permutation) -> float:
        """The squared distance, never below zero but for rounding."""
        return self.constant - 2 * self.value(permutation)

    def gain(self, group: str, permutation: Permutation) -> Gain:
        """What every assignment of a group's units would give, with all other units where the permutation puts them."""
        size = self.spec.groups[group].size
        gains: dict[bool, Tensor] = {}
        for term in self.terms:
            acting = permutation if term.signed else permutation.unsigned()
            for name, dim, segment, start in self.places(group):
                moved = acting.apply_along(name, term.other[name], all_but(term.other[name], dim))
                if segment.within:
                    own = self._within(name, term.reference[name], moved, dim, segment)
                else:
                    own = product(term.reference[name], moved, dim, start, segment)
                # An axis that does not flip with its unit belongs to the part that a flip leaves.
                flips = term.signed and segment.signed
                gains[flips] = gains.get(flips, torch.zeros(size, size)) + own
        return Gain(gains.get(True, torch.zeros(size, size)), gains.get(False, torch.zeros(size, size)))

    def _within(self, name: str, reference: Tensor, other: Tensor, dim: int, segment: Segment) -> Tensor:
        """(unit, unit), of an axis that holds one block, which another axis names: 0 between units of two blocks."""
        assert segment.group is not None
        group = self.spec.groups[segment.group]
        owner = block_owner(self.spec, self.spec.axes[name], segment)
        own = torch.zeros(group.size, group.size)
        by_block = [a.movedim((owner, dim), (0, 1)).chunk(group.blocks) for a in (reference, other)]
        for block, (a, b) in enumerate(zip(*by_block, strict=True)):
            units = slice(block * segment.size, (block + 1) * segment.size)
            own[units, units] = a.transpose(0, 1).flatten(1) @ b.transpose(0, 1).flatten(1).T
        return own

    def is_twice(self, group: str) -> bool:
        """Whether a tensor has the group's units on two axes, so that it is quadratic in their order."""
        axes = {(name, dim) for name, dim, _, _ in self.places(group)}
        return len({name for name, _ in axes}) < len(axes)

    def places(self, group: str) -> Iterator[tuple[str, int, Segment, int]]:
        """Those places of a group's units (`PermutationSpec.places`) that are compared."""
        return (place for place in self.spec.places(group) if place[0] in self.terms[0].other)


def all_but(tensor: Tensor, dim: int) -> list[int]:
    """All dimensions of a tensor but one."""
    return [d for d in range(tensor.dim()) if d != dim]


def product(reference: Tensor, other: Tensor, dim: int, start: int, segment: Segment) -> Tensor:
    """(unit, unit): inner products of the stretches of one tensor that belong to units, with those of another's."""
    return segment.by_unit(reference, dim, start) @ segment.by_unit(other, dim, start).T


@dataclass(frozen=True)
class Moments:
    """What is compared of a posterior: its whole weights, in float32 on the CPU.

    Attributes:
        mean: tensor name -> (*shape).
        sd: tensor name -> (*shape), standard deviations; 0 where nothing varies.
    """

    mean: Mapping[str, Tensor]
    sd: Mapping[str, Tensor]


def moments(posterior: Posterior, spec: PermutationSpec) -> Moments:
    """Means and standard deviations of a posterior, of the tensors that a spec has."""
    model = posterior.model
    mean = model.layer_values(model.unflatten(posterior.mean()))
    sd = model.layer_scales(model.unflatten(posterior.standard_deviation()))

    def chosen(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: values[name].detach().cpu().float() for name in mean if name in spec.axes}

    return Moments(chosen(mean), chosen(sd))


def objective(reference: Posterior, other: Posterior, spec: PermutationSpec, cost: Cost = "w2") -> Objective:
    """The objective of aligning one posterior to another, by their means and standard deviations.

    Args:
        reference: stays as it is.
        other: is to be permuted.
        spec: of their network.
        cost: see the module.
    """
    return objective_of(moments(reference, spec), moments(other, spec), spec, cost)


def objective_of(reference: Moments, other: Moments, spec: PermutationSpec, cost: Cost = "w2") -> Objective:
    """The same for moments that no posterior has, such as sums over several.

    Raises:
        ConfigError: if precisions are wanted of a point.

    Args:
        reference: stay as they are.
        other: are to be permuted.
        spec: of their network.
        cost: see the module.
    """
    mean_a, mean_b, sd_a, sd_b = reference.mean, other.mean, reference.sd, other.sd
    names = list(mean_a)
    if cost == "precision":
        # Entries that do not vary are fixed, or those of a point: they have no precision, and no say.
        weight = {name: torch.where(sd_a[name] > 0, sd_a[name].clamp(min=_SMALLEST_SD).pow(-2), 0.0) for name in names}
        if not any(bool((own > 0).any()) for own in weight.values()):
            raise ConfigError("precision: the reference is a point, which has no precision; match `means`")
        weighted = {name: weight[name] * mean_a[name] for name in names}
        halved = {name: -0.5 * weight[name] for name in names}
        squared = {name: mean_b[name].square() for name in names}
        constant = sum(float((weighted[name].double() * mean_a[name]).sum()) for name in names)
        return Objective(spec, (Term(weighted, mean_b, True), Term(halved, squared, False)), constant)
    terms = [Term(mean_a, mean_b, True)]
    if cost == "w2" and any(bool((sd != 0).any()) for own in (sd_a, sd_b) for sd in own.values()):
        terms.append(Term(sd_a, sd_b, False))
    constant = sum(
        float(own[name].double().square().sum())
        for term in terms
        for own in (term.reference, term.other)
        for name in names
    )
    return Objective(spec, tuple(terms), constant)
