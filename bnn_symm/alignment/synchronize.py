"""Align many posteriors jointly through a common frame, independent of their order.

    synchronize(posteriors) -> Synchronization

Each posterior p gets one permutation P_p into a common frame, the universe. The permutation that
brings q to p is their composition,

    P_{p<-q} = P_p^-1 P_q

so that the composition around any cycle is the identity by construction. The sum over all pairs is
maximized,

    F(P) = sum_{p<q} <P_p m_p, P_q m_q> + <|P_p| s_p, |P_q| s_q>
         = sum_p  <P_p m_p, sum_{q != p} P_q m_q> + ...   over 2

with means m, on which signs act, and standard deviations s, on which they do not. As a function of
one P_p it is the objective of aligning p to the mean of the others, which the two solvers of pairs
maximize. Posteriors are aligned one after another, in random order, until none gains: F never
decreases, so this converges. Starts: all at the identity, and posteriors inserted one by one, each
aligned to those before it, in several random orders.

Random numbers are keyed by the position of a posterior in the order of hashes of its moments, never
by its position among the arguments. Only products P_p^-1 P_q are identified; the frame is that of
the first in that order.

References:
    Ainsworth et al. (2023), arXiv:2209.04836, appendix A.11 (MergeMany); Crisostomi et al. (2024),
    C2M3, arXiv:2405.17897.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bnn_symm.alignment.align import check_same_function, check_same_parameters
from bnn_symm.alignment.objective import Moments, moment_objective, moments
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.arguments import check_at_least, checked
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group

JointCost = Literal["w2", "means"]
"""Moments that are compared; `precision` needs a reference, which joint alignment does not have."""

_MAX_SWEEPS = 100
# Relative improvement below which a realignment is ignored: sums are of float32 numbers.
_TOLERANCE = 1e-8
# Number of units in a group above which a start takes seconds, so that there are fewer starts.
_LARGE = 300
_RESTARTS, _RESTARTS_LARGE = 4, 1


@dataclass(frozen=True, kw_only=True)
class Synchronization:
    """Hold the result of aligning many posteriors jointly.

    Attributes:
        permutations: one per posterior, in the order of the arguments, into the universe.
        cost: the moments that were compared.
        starts: number of starts.
        start: index of the best start; 0 is the identity for all.
        sweeps: over all posteriors, of the best start.
        objective_before: sum over pairs of inner products, at the identity.
        objective_after: the same with the permutations.
        objective_random: the same at random elements of the group, a baseline beside the identity.
        constant: such that `constant - 2 objective` is the sum over pairs of squared distances.
        num_moved: units that change position or sign, per posterior.
        num_movable: units of one posterior that the group can move.
        function_differences: largest relative change of the outputs at each posterior's mean, in
            float64; checked to be below 1e-6.
        group: the group that was searched.
    """

    permutations: tuple[Permutation, ...]
    cost: JointCost
    starts: int
    start: int
    sweeps: int
    objective_before: float
    objective_after: float
    objective_random: float
    constant: float
    num_moved: tuple[int, ...]
    num_movable: int
    function_differences: tuple[float, ...]
    group: SymmetryGroup

    @property
    def distance_before(self) -> float:
        """Return the sum over pairs of squared distances, at the identity."""
        return self.constant - 2 * self.objective_before

    @property
    def distance_after(self) -> float:
        """Return the sum over pairs of squared distances, with the permutations."""
        return self.constant - 2 * self.objective_after

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON types, without the permutations."""
        content = vars(self) | {
            "num_moved": list(self.num_moved),
            "function_differences": list(self.function_differences),
            "distance_before": self.distance_before,
            "distance_after": self.distance_after,
        }
        del content["permutations"], content["group"]
        return content

    def between(self, reference: int, other: int) -> Permutation:
        """Return `P_reference^-1 P_other`, which brings one posterior to another.

        Args:
            reference: index of the posterior that is not changed.
            other: index of the posterior that is permuted.

        Returns:
            The composed permutation.
        """
        return self.permutations[reference].inverse().compose(self.permutations[other])

    def apply(self, posteriors: Sequence[Posterior]) -> list[Posterior]:
        """Return the posteriors, each permuted into the universe.

        Args:
            posteriors: in the order of the arguments of `synchronize`.

        Returns:
            The permuted posteriors, in the same order.
        """
        return [
            posterior.permute(permutation)
            for posterior, permutation in zip(posteriors, self.permutations, strict=True)
        ]


@checked
def synchronize(
    posteriors: Sequence[Posterior],
    *,
    cost: JointCost = "w2",
    group: SymmetryGroup | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> Synchronization:
    """Find one permutation per posterior that minimizes the distances between all of them.

    Args:
        posteriors: two or more, of one network, in any order.
        cost: `w2`: means and standard deviations; `means`.
        group: of the network, if it is already known.
        restarts: random starts besides the identity; default 4, or 1 above 300 units a layer.
        seed: of the starts.

    Returns:
        The permutations into a common frame.

    Raises:
        ConfigError: if there are fewer than two, or `restarts` is negative.
        IncompatiblePosteriors: if they have different parameters.
        SymmetryError: if the network's symmetries cannot be derived, or a permuted network computes
            another function.

    Example:
        >>> import torch, bnn_symm
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(net, bnn_symm.Prior(), likelihood)
        >>> flat = [model.initial(seed=i)[None, None] for i in range(3)]
        >>> posteriors = [bnn_symm.SamplePosterior.from_draws(model, draw) for draw in flat]
        >>> len(bnn_symm.synchronize(posteriors, restarts=0).permutations)
        3
    """
    if len(posteriors) < 2:
        raise ConfigError(
            f"got {len(posteriors)} posteriors to align jointly, expected two or more"
        )
    check_at_least("restarts", restarts or 0, 0)
    check_same_parameters(list(posteriors))
    group = group or symmetry_group(posteriors[0].model.net, move_statistics=True)
    digests = [digest(posterior) for posterior in posteriors]
    order = sorted(set(digests))
    members = [posteriors[digests.index(key)] for key in order]
    universe = _Universe(
        group, cost, [moments(p, group.spec) for p in members], [digests.count(d) for d in order]
    )
    if group.is_trivial or len(members) == 1:
        restarts = 0
    elif restarts is None:
        largest = max(units.size for units in group.spec.groups.values())
        restarts = _RESTARTS if largest <= _LARGE else _RESTARTS_LARGE
    starts = [universe.sequential_start(seed, start + 1) for start in range(restarts)]
    starts.insert(0, universe.identities())
    candidates = [universe.ascend(start, seed, i) for i, start in enumerate(starts)]
    values = [universe.value(permutations) for permutations, _ in candidates]
    winner = values.index(max(values))
    in_universe, sweeps = candidates[winner]
    frame = in_universe[0].inverse()
    in_frame = [frame.compose(permutation) for permutation in in_universe]
    differences = [
        check_same_function(p, permutation)
        for p, permutation in zip(members, in_frame, strict=True)
    ]
    positions = [order.index(key) for key in digests]
    permutations = tuple(in_frame[position] for position in positions)
    return Synchronization(
        permutations=permutations,
        cost=cost,
        starts=len(starts),
        start=winner,
        sweeps=sweeps,
        objective_before=universe.value(universe.identities()),
        objective_after=values[winner],
        objective_random=universe.value(
            [group.random("baseline", place) for place in range(len(members))]
        ),
        constant=universe.constant(),
        num_moved=tuple(permutation.num_moved for permutation in permutations),
        num_movable=sum(
            len(units) for component in group.components for units in component.units.values()
        ),
        function_differences=tuple(differences[position] for position in positions),
        group=group,
    )


def digest(posterior: Posterior) -> str:
    """Return the SHA-256 of means and standard deviations, for an order independent of the caller.

    Args:
        posterior: the posterior.
    """
    both = torch.stack([posterior.mean(), posterior.standard_deviation()]).detach().cpu().double()
    return hashlib.sha256(both.numpy().tobytes()).hexdigest()


class _Universe:
    """Evaluate the sum over pairs as a function of one permutation per member.

    Bitwise identical posteriors are one member with a multiplicity: the best permutations of copies
    are equal, so their order among the arguments cannot matter.
    """

    def __init__(
        self,
        group: SymmetryGroup,
        cost: JointCost,
        members: Sequence[Moments],
        copies: Sequence[int],
    ):
        self._group, self._members, self._copies = group, members, copies
        self._cost: JointCost = cost

    def identities(self) -> list[Permutation]:
        return [self._group.spec.identity()] * len(self._members)

    def value(self, permutations: Sequence[Permutation]) -> float:
        """Return `F`, from the norm of the sum: |sum_p x_p|^2 = sum_p |x_p|^2 + 2 F.

        Args:
            permutations: one per member.
        """
        moved = [self._moved(place, permutation) for place, permutation in enumerate(permutations)]
        total = self._sum(moved, range(len(moved)))
        return (self._square(total) - self._squares()) / 2

    def constant(self) -> float:
        """Return the sum over pairs of the squares of both."""
        return (sum(self._copies) - 1) * self._squares()

    def sequential_start(self, seed: int, start: int) -> list[Permutation]:
        """Insert members in random order, each random first and then aligned to those before it.

        Args:
            seed: of the order and the random elements.
            start: index of the start.

        Returns:
            One permutation per member.
        """
        order = torch.randperm(
            len(self._members), generator=torch_generator(seed, "order of members", start)
        ).tolist()
        permutations = self.identities()
        moved: list[Moments | None] = [None] * len(self._members)
        for count, place in enumerate(order):
            if count:
                first = self._group.random(seed, "start", start, place)
                objective = moment_objective(
                    self._sum(moved, order[:count]),
                    self._members[place],
                    self._group.spec,
                    self._cost,
                )
                candidates = [
                    solver(objective, self._group, first, seed, "one by one", start, place)
                    for solver in (coordinate, frank_wolfe)
                ]
                permutations[place] = max(candidates, key=lambda entry: entry[1])[0]
            moved[place] = self._moved(place, permutations[place])
        return permutations

    def ascend(
        self, permutations: Sequence[Permutation], seed: int, start: int
    ) -> tuple[list[Permutation], int]:
        """Align each member to the sum of all others, in random order, until nothing improves.

        Args:
            permutations: one per member, where to begin.
            seed: of the orders.
            start: index of the start.

        Returns:
            One permutation per member, and the number of sweeps.
        """
        permutations = list(permutations)
        count = len(permutations)
        moved: list[Moments | None] = [
            self._moved(place, permutation) for place, permutation in enumerate(permutations)
        ]
        if count == 1:
            return permutations, 0
        for sweep in range(_MAX_SWEEPS):
            gained = False
            key = (seed, "sweep of members", start, sweep)
            for place in torch.randperm(count, generator=torch_generator(*key)).tolist():
                others = [other for other in range(count) if other != place]
                objective = moment_objective(
                    self._sum(moved, others), self._members[place], self._group.spec, self._cost
                )
                before = objective.value(permutations[place])
                # Frank-Wolfe costs more, and runs only when coordinate matching gains nothing.
                for solver in (coordinate, frank_wolfe):
                    better, new_value = solver(
                        objective, self._group, permutations[place], *key, place
                    )
                    if new_value > before + _TOLERANCE * abs(before):
                        permutations[place], gained = better, True
                        moved[place] = self._moved(place, better)
                        break
            if not gained:
                return permutations, sweep + 1
        return permutations, _MAX_SWEEPS

    def _moved(self, place: int, permutation: Permutation) -> Moments:
        member = self._members[place]
        return Moments(permutation.apply(member.mean), permutation.unsigned().apply(member.sd))

    def _sum(self, moved: Sequence[Moments | None], places: Sequence[int]) -> Moments:
        """Return the sum of permuted members with multiplicity, always in the canonical order."""
        parts = [
            (self._copies[place], member)
            for place in sorted(places)
            if (member := moved[place]) is not None
        ]

        def added(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            copies = [number for number, _ in parts]
            return {
                name: sum(
                    (n * value[name] for n, value in zip(copies, values, strict=True)),
                    torch.zeros(()),
                )
                for name in values[0]
            }

        return Moments(
            added([part.mean for _, part in parts]), added([part.sd for _, part in parts])
        )

    def _square(self, member: Moments) -> float:
        compared = [member.mean, member.sd] if self._cost == "w2" else [member.mean]
        return sum(
            float(value.double().square().sum()) for values in compared for value in values.values()
        )

    def _squares(self) -> float:
        """Return the sum of the squares of every posterior."""
        return sum(
            n * self._square(member) for n, member in zip(self._copies, self._members, strict=True)
        )
