"""What aligning maximizes: inner products between the tensors of one posterior and the permuted
tensors of another.

For independent normals the squared Wasserstein-2 distance is a sum over weights, and permuting
leaves norms as they are, so that minimizing it is maximizing a sum of bilinear assignments (Rossi
et al. 2023; Ainsworth et al. 2023):

    W2^2(q_A, P # q_B) = |m_A - P m_B|^2 + |s_A - P s_B|^2
                       = constant - 2 [ <m_A, P m_B> + <s_A, P s_B> ]

Means take signs, standard deviations do not. `cost`:

- `w2`: means and standard deviations;
- `means`: means only;
- `precision`: |m_A - P m_B|^2 weighted by the precision of A, still bilinear since only the reference's is taken.

Tensors are whole effective weights; entries that are fixed are the same in both and stay where they
are.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; Ainsworth et al. (2023), arXiv:2209.04836,
    section 3.2.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnn_symm.alignment.solvers.gains import Gain, Gains, Occurrence, Term, places
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, PermutationSpec

Cost = Literal["w2", "means", "precision"]

_SMALLEST_SD = 1e-9


@dataclass(frozen=True)
class Objective:
    """The sum of all terms as a function of the permutation.

    Attributes:
        spec: of the network.
        terms: whose sum is maximized.
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
            total += sum(
                float((term.reference[name].double() * moved[name].double()).sum())
                for name in moved
            )
        return total

    def distance(self, permutation: Permutation) -> float:
        """The squared distance, never below zero but for rounding."""
        return self.constant - 2 * self.value(permutation)

    def gain(self, group: str, permutation: Permutation) -> Gain:
        """What every assignment of a group's units would give, with all other units where the
        permutation puts them.
        """
        return self.gains().gain(group, permutation)

    def gains(self) -> Gains:
        """The same for all groups, for permutations that follow one another."""
        return Gains(self.spec, self.terms)

    def is_quadratic(self, group: str) -> bool:
        """Whether a tensor has the group's units on two axes, so that it is quadratic in their
        order.
        """
        return group in self.neighbors(group)

    def neighbors(self, group: str) -> set[str]:
        """Groups on other axes of a group's tensors: what it gains depends on them. Itself, if it
        is there twice.
        """
        found = {
            segment.group
            for name, dim, _, _ in self.places(group)
            for d, axis in enumerate(self.spec.axes[name])
            if d != dim
            for segment in axis
        }
        return {name for name in found if name is not None}

    def places(self, group: str) -> Iterator[Occurrence]:
        """Those places of a group's units (`PermutationSpec.places`) that are compared."""
        return places(self.spec, self.terms, group)


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
    scales = model.layer_scales(model.unflatten(posterior.standard_deviation()))
    mean = whole_weights(model, posterior.mean(), spec)
    return Moments(mean, {name: scales[name].detach().cpu().float() for name in mean})


def whole_weights(model: BayesianModel, flat: Tensor, spec: PermutationSpec) -> dict[str, Tensor]:
    """Whole weights of a flat vector, or of a batch of them, in float32 on the CPU, of the tensors
    that a spec has.
    """
    values = model.layer_values(model.unflatten(flat.to(model.device)))
    return {
        name: value.detach().cpu().float() for name, value in values.items() if name in spec.axes
    }


def alignment_objective(
    reference: Posterior, other: Posterior, spec: PermutationSpec, cost: Cost = "w2"
) -> Objective:
    """The objective of aligning one posterior to another, by their means and standard deviations.

    Args:
        reference: stays as it is.
        other: is to be permuted.
        spec: of their network.
        cost: see the module.
    """
    return moment_objective(moments(reference, spec), moments(other, spec), spec, cost)


def moment_objective(
    reference: Moments, other: Moments, spec: PermutationSpec, cost: Cost = "w2"
) -> Objective:
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
        # Entries that do not vary are fixed, or those of a point: they have no precision, and no
        # say.
        weight = {
            name: torch.where(sd_a[name] > 0, sd_a[name].clamp(min=_SMALLEST_SD).pow(-2), 0.0)
            for name in names
        }
        if not any(bool((own > 0).any()) for own in weight.values()):
            raise ConfigError(
                "precision: the reference is a point, which has no precision; match `means`"
            )
        weighted = {name: weight[name] * mean_a[name] for name in names}
        halved = {name: -0.5 * weight[name] for name in names}
        squared = {name: mean_b[name].square() for name in names}
        constant = sum(float((weighted[name].double() * mean_a[name]).sum()) for name in names)
        return Objective(
            spec, (Term(weighted, mean_b, True), Term(halved, squared, False)), constant
        )
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
