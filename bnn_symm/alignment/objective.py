"""Define the objective of alignment: inner products of a posterior and a permuted posterior.

For independent normals the squared Wasserstein-2 distance is a sum over weights, and permuting
leaves norms unchanged. Minimizing it is therefore maximizing a sum of bilinear assignments (Rossi
et al. 2023; Ainsworth et al. 2023):

    W2^2(q_A, P # q_B) = |m_A - P m_B|^2 + |s_A - P s_B|^2
                       = constant - 2 [ <m_A, P m_B> + <s_A, P s_B> ]

Signs act on means, not on standard deviations. `cost`:

- `w2`: means and standard deviations;
- `means`: means only;
- `precision`: |m_A - P m_B|^2 weighted by the precision of A; bilinear, because only the
  reference's precision is used.

Tensors are whole effective weights; fixed entries are the same in both and do not move.

References:
    Rossi, Singh and Hannagan (2023), arXiv:2310.10171; Ainsworth et al. (2023), arXiv:2209.04836,
    section 3.2.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnn_symm.alignment.solvers.gains import Gain, Gains, Occurrence, Term, occurrences
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, PermutationSpec

Cost = Literal["w2", "means", "precision"]

_SMALLEST_SD = 1e-9


@dataclass(frozen=True)
class Objective:
    """Represent the sum of all terms as a function of the permutation.

    Attributes:
        spec: of the network.
        terms: their sum is maximized.
        constant: such that `constant - 2 value` is the squared distance of the cost.
    """

    spec: PermutationSpec
    terms: tuple[Term, ...]
    constant: float

    def value(self, permutation: Permutation) -> float:
        """Return the sum of inner products, in float64.

        Args:
            permutation: of the spec.
        """
        return sum(self.values(permutation).values())

    def values(
        self, permutation: Permutation, groups: Collection[str] | None = None
    ) -> dict[str, float]:
        """Return the sum of inner products of each tensor, in float64.

        Args:
            permutation: of the spec.
            groups: only tensors with units of these groups; None for all.
        """
        names = [
            name
            for name in self.terms[0].reference
            if groups is None or self.spec.groups_of(name) & set(groups)
        ]
        totals = dict.fromkeys(names, 0.0)
        for term in self.terms:
            own = permutation if term.signed else permutation.unsigned()
            for name, moved in own.apply({name: term.other[name] for name in names}).items():
                totals[name] += float((term.reference[name].double() * moved.double()).sum())
        return totals

    def distance(self, permutation: Permutation) -> float:
        """Return the squared distance; it is negative only by rounding.

        Args:
            permutation: of the spec.
        """
        return self.constant - 2 * self.value(permutation)

    def gain(self, group: str, permutation: Permutation) -> Gain:
        """Return the value of every assignment of a group's units, with all other units fixed.

        Args:
            group: the group of units.
            permutation: determines the positions of the other units.
        """
        return self.gains().gain(group, permutation)

    def gains(self) -> Gains:
        """Return the gains of all groups, for a sequence of permutations."""
        return Gains(self.spec, self.terms)

    def is_quadratic(self, group: str) -> bool:
        """Return whether a tensor has the group on two axes, so that its gain is not linear.

        Args:
            group: the group of units.
        """
        return group in self.neighbors(group)

    def neighbors(self, group: str) -> set[str]:
        """Return the groups on which a group's gain depends: those on other axes of its tensors.

        Args:
            group: the group of units; it is its own neighbor if a tensor has it twice.
        """
        groups = {
            segment.group
            for name, dim, _, _ in self.occurrences(group)
            for d, axis in enumerate(self.spec.axes[name])
            if d != dim
            for segment in axis
        }
        return {name for name in groups if name is not None}

    def occurrences(self, group: str) -> Iterator[Occurrence]:
        """Yield the compared occurrences of a group's units (`PermutationSpec.occurrences`).

        Args:
            group: the group of units.
        """
        return occurrences(self.spec, self.terms, group)


@dataclass(frozen=True)
class Moments:
    """Hold the moments of a posterior that are compared: whole weights, in float32 on the CPU.

    Attributes:
        mean: tensor name -> (*shape).
        sd: tensor name -> (*shape), standard deviations; 0 where nothing varies.
    """

    mean: Mapping[str, Tensor]
    sd: Mapping[str, Tensor]


def moments(posterior: Posterior, spec: PermutationSpec) -> Moments:
    """Return means and standard deviations of a posterior, of the tensors in a spec.

    Args:
        posterior: the posterior.
        spec: of its network.
    """
    model = posterior.model
    scales = model.layer_scales(model.unflatten(posterior.standard_deviation()))
    mean = whole_weights(model, posterior.mean(), spec)
    return Moments(mean, {name: scales[name].detach().cpu().float() for name in mean})


def whole_weights(model: BayesianModel, flat: Tensor, spec: PermutationSpec) -> dict[str, Tensor]:
    """Return whole weights of a flat vector, or of a batch, in float32 on the CPU.

    Args:
        model: the model.
        flat: one flat vector, or a batch of them.
        spec: selects the tensors.

    Returns:
        Name -> whole weight.
    """
    values = model.layer_values(model.unflatten(flat.to(model.device)))
    return {
        name: value.detach().cpu().float() for name, value in values.items() if name in spec.axes
    }


def alignment_objective(
    reference: Posterior, other: Posterior, spec: PermutationSpec, cost: Cost = "w2"
) -> Objective:
    """Return the objective of aligning one posterior to another, by means and standard deviations.

    Args:
        reference: the posterior that is not changed.
        other: the posterior to be permuted.
        spec: of their network.
        cost: see the module.

    Returns:
        The objective.

    Raises:
        ConfigError: if the cost is `precision` and the reference is a point.
    """
    return moment_objective(moments(reference, spec), moments(other, spec), spec, cost)


def moment_objective(
    reference: Moments, other: Moments, spec: PermutationSpec, cost: Cost = "w2"
) -> Objective:
    """Return the same objective for moments, such as sums over several posteriors.

    Args:
        reference: moments that are not changed.
        other: moments to be permuted.
        spec: of their network.
        cost: see the module.

    Returns:
        The objective.

    Raises:
        ConfigError: if the cost is `precision` and the reference is a point.
    """
    mean_a, mean_b, sd_a, sd_b = reference.mean, other.mean, reference.sd, other.sd
    names = list(mean_a)
    if cost == "precision":
        # Entries that do not vary are fixed, or are those of a point: they have no precision and
        # get weight 0.
        weight = {
            name: torch.where(sd_a[name] > 0, sd_a[name].clamp(min=_SMALLEST_SD).pow(-2), 0.0)
            for name in names
        }
        if not any(bool((values > 0).any()) for values in weight.values()):
            raise ConfigError(
                "matching precision: the reference is a point, which has no precision; use means"
            )
        weighted = {name: weight[name] * mean_a[name] for name in names}
        halved = {name: -0.5 * weight[name] for name in names}
        squared = {name: mean_b[name].square() for name in names}
        constant = sum(float((weighted[name].double() * mean_a[name]).sum()) for name in names)
        return Objective(
            spec, (Term(weighted, mean_b, True), Term(halved, squared, False)), constant
        )
    terms = [Term(mean_a, mean_b, True)]
    scales = [*sd_a.values(), *sd_b.values()]
    if cost == "w2" and any(bool((sd != 0).any()) for sd in scales):
        terms.append(Term(sd_a, sd_b, False))
    constant = sum(
        float(tensors[name].double().square().sum())
        for term in terms
        for tensors in (term.reference, term.other)
        for name in names
    )
    return Objective(spec, tuple(terms), constant)
