"""Linear connectivity modulo permutation: what pairs, paths of pairs, cycles and sequences of
checkpoints say.

- Weak: for every pair some permutation, which may depend on the pair: `align_pairs`.
- Simultaneous: one permutation for a whole sequence of checkpoints: `align_sequences`.
- Strong: one permutation a posterior that serves all pairs: `universe.synchronize`. Where it holds,
  permutations of pairs compose: B brought to A over X is as near as B brought to A directly
  (`composed_paths`), and going round a cycle is nearly the identity (`cycles`).

Distances are those of the cost. The barriers of the same pairs, paths and cycles come from
`diagnostics.barrier`, given the posterior that a permutation was applied to.

References:
    Sharma, Kwok, Denton, Roy, Rolnick and Dziugaite (2024), arXiv:2404.06498.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from bnn_symm.alignment.align import align, check_same_function, check_same_parameters
from bnn_symm.alignment.objective import Objective, alignment_objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.synchronize import JointCost, digest
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group

_RESTARTS = 4


def agreement(first: Permutation, second: Permutation) -> dict[str, float]:
    """Group -> share of its units that two permutations put in the same place, with the same
    sign.
    """
    same = first.inverse().compose(second).fixed_points()
    return {name: same[name] / group.size for name, group in first.spec.groups.items()}


@dataclass(frozen=True, kw_only=True)
class PairwiseAlignments:
    """Every pair of posteriors, aligned by itself.

    Attributes:
        permutations: (reference, other), by number, both ways -> what brings the other to the
            reference.
        distances: (reference, other), both ways -> squared distance then.
        cost: what was compared.
        group: that was searched.
    """

    permutations: Mapping[tuple[int, int], Permutation]
    distances: Mapping[tuple[int, int], float]
    cost: JointCost
    group: SymmetryGroup


@dataclass(frozen=True, kw_only=True)
class ComposedPath:
    """One posterior brought to another over a third, against directly.

    Attributes:
        reference: number of the posterior that stays.
        via: number of the one between.
        other: number of the one that is brought.
        composed: `P_{reference <- via} P_{via <- other}`.
        direct: `P_{reference <- other}`.
        agreement: group -> share of units on which both agree.
        distance_composed: squared distance to the reference with the composed permutation.
        distance_direct: with the direct one.
        distance_before: with none.
    """

    reference: int
    via: int
    other: int
    composed: Permutation
    direct: Permutation
    agreement: Mapping[str, float]
    distance_composed: float
    distance_direct: float
    distance_before: float


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """Permutations of pairs composed until they are back where they began.

    Attributes:
        members: numbers of the posteriors, each brought to the one before it, the first one to the
            last.
        permutation: of the first one to itself; the identity if pairs were aligned consistently.
        fixed_points: group -> units that come back to their place, with their sign.
        share: group -> these over the units of the group.
        distance: squared distance of the first one from itself, permuted.
    """

    members: tuple[int, ...]
    permutation: Permutation
    fixed_points: Mapping[str, int]
    share: Mapping[str, float]
    distance: float


def align_pairs(
    posteriors: Sequence[Posterior],
    *,
    cost: JointCost = "w2",
    group: SymmetryGroup | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> PairwiseAlignments:
    """Aligns every pair by itself (see `align`); of each, the one with the smaller hash is the
    reference.

    Args:
        posteriors: two or more, of one network.
        cost: `w2`: means and standard deviations; `means`.
        group: of the network, if it is known already.
        restarts: of `align`.
        seed: of these.

    Raises:
        ConfigError: if there are fewer than two.
        IncompatiblePosteriors: if they have other parameters.
    """
    if len(posteriors) < 2:
        raise ConfigError(f"got {len(posteriors)} posteriors to align in pairs, wanted two or more")
    check_same_parameters(list(posteriors))
    group = group or symmetry_group(posteriors[0].model.net)
    digests = [digest(posterior) for posterior in posteriors]
    found: dict[tuple[int, int], Permutation] = {}
    distances: dict[tuple[int, int], float] = {}
    for pair in combinations(range(len(posteriors)), 2):
        reference, other = sorted(pair, key=lambda number: digests[number])
        own = align(
            posteriors[reference],
            posteriors[other],
            matching=cost,
            group=group,
            restarts=restarts,
            seed=seed,
        )
        found[reference, other], found[other, reference] = (
            own.permutation,
            own.permutation.inverse(),
        )
        distances[reference, other] = distances[other, reference] = own.distance_after
    return PairwiseAlignments(permutations=found, distances=distances, cost=cost, group=group)


def composed_paths(
    posteriors: Sequence[Posterior], pairs: PairwiseAlignments | None = None
) -> list[ComposedPath]:
    """Every posterior brought to every other one over every third.

    Args:
        posteriors: three or more, of one network.
        pairs: the result of `align_pairs` for them, if it is there already.

    Raises:
        ConfigError: if there are fewer than three.
    """
    if len(posteriors) < 3:
        raise ConfigError(
            f"a path over another posterior needs three, got {len(posteriors)}; give more"
        )
    pairs = pairs or align_pairs(posteriors)
    paths = []
    for reference, via, other in permutations(range(len(posteriors)), 3):
        objective = alignment_objective(
            posteriors[reference], posteriors[other], pairs.group.spec, pairs.cost
        )
        composed = pairs.permutations[reference, via].compose(pairs.permutations[via, other])
        direct = pairs.permutations[reference, other]
        paths.append(
            ComposedPath(
                reference=reference,
                via=via,
                other=other,
                composed=composed,
                direct=direct,
                agreement=agreement(composed, direct),
                distance_composed=objective.distance(composed),
                distance_direct=objective.distance(direct),
                distance_before=objective.distance(pairs.group.spec.identity()),
            )
        )
    return paths


def cycles(
    posteriors: Sequence[Posterior], pairs: PairwiseAlignments | None = None, *, length: int = 3
) -> list[Cycle]:
    """Every cycle through `length` posteriors, once: its direction and where it begins change no
    fixed point's number.

    Args:
        posteriors: at least `length`, of one network.
        pairs: the result of `align_pairs` for them, if it is there already.
        length: 3 or more; with 2 the way back is the inverse.

    Raises:
        ConfigError: if `length` is below 3 or there are too few posteriors.
    """
    if not 3 <= length <= len(posteriors):
        raise ConfigError(
            f"got cycles of length {length} and {len(posteriors)} posteriors, wanted a length from "
            "3 to that"
        )
    pairs = pairs or align_pairs(posteriors)
    found = []
    for chosen in combinations(range(len(posteriors)), length):
        for rest in permutations(chosen[1:]):
            if rest[0] > rest[-1]:
                continue  # the same cycle, backwards
            members = (chosen[0], *rest)
            total = pairs.group.spec.identity()
            for step in range(length):
                total = total.compose(
                    pairs.permutations[members[step], members[(step + 1) % length]]
                )
            fixed = total.fixed_points()
            first = posteriors[members[0]]
            found.append(
                Cycle(
                    members=members,
                    permutation=total,
                    fixed_points=fixed,
                    share={name: fixed[name] / own.size for name, own in total.spec.groups.items()},
                    distance=alignment_objective(
                        first, first, pairs.group.spec, pairs.cost
                    ).distance(total),
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class SequenceAlignment:
    """One permutation for a whole sequence of checkpoints.

    Attributes:
        permutation: to be applied to every posterior of the other sequence.
        cost: what was compared.
        solver: whose result won.
        starts: of each solver.
        distances_before: squared distance at each place of the sequence, at the identity.
        distances_after: with the permutation.
        num_moved: units that change place or sign.
        function_difference: largest relative change of the outputs at the means, over the sequence,
            in float64; checked to be below 1e-6.
        group: that was searched.
    """

    permutation: Permutation
    cost: JointCost
    solver: str
    starts: int
    distances_before: tuple[float, ...]
    distances_after: tuple[float, ...]
    num_moved: int
    function_difference: float
    group: SymmetryGroup


@checked
def align_sequences(
    reference: Sequence[Posterior],
    other: Sequence[Posterior],
    *,
    cost: JointCost = "w2",
    group: SymmetryGroup | None = None,
    restarts: int = _RESTARTS,
    seed: int = 0,
) -> SequenceAlignment:
    """Finds the one permutation that brings a sequence nearest to another, summed over its places.

    ``max_P  sum_t <m_t, P m'_t> + <s_t, |P| s'_t>``

    Args:
        reference: checkpoints of one fit, in order; they stay as they are.
        other: those of another, at the same times.
        cost: `w2`: means and standard deviations; `means`.
        group: of the network, if it is known already.
        restarts: random starts of each solver beside the identity.
        seed: of these.

    Raises:
        ConfigError: if the sequences are empty or differ in length.
        IncompatiblePosteriors: if they have other parameters.
        SymmetryError: if the network's symmetries cannot be derived, or a permuted network is
            another function.
    """
    if not reference or len(reference) != len(other):
        raise ConfigError(
            f"got sequences of {len(reference)} and {len(other)} posteriors, wanted equally many, "
            "at the same times"
        )
    check_same_parameters([*reference, *other])
    group = group or symmetry_group(reference[0].model.net)
    places = [
        alignment_objective(first, second, group.spec, cost)
        for first, second in zip(reference, other, strict=True)
    ]
    objective = Objective(
        group.spec,
        tuple(term for own in places for term in own.terms),
        sum(own.constant for own in places),
    )
    identity = group.spec.identity()
    starts = (
        [identity]
        if group.is_trivial
        else [identity, *(group.random(seed, "start", i) for i in range(restarts))]
    )
    candidates = []
    for number, start in enumerate(starts):
        candidates.append(
            (*coordinate(objective, group, start, seed, "coordinate", number), "coordinate")
        )
        candidates.append(
            (*frank_wolfe(objective, group, start, seed, "frank_wolfe", number), "frank_wolfe")
        )
    best, _, solver = max(candidates, key=lambda entry: entry[1])
    return SequenceAlignment(
        permutation=best,
        cost=cost,
        solver="none" if group.is_trivial else solver,
        starts=len(starts),
        distances_before=tuple(own.distance(identity) for own in places),
        distances_after=tuple(own.distance(best) for own in places),
        num_moved=best.num_moved,
        function_difference=max(check_same_function(own, best) for own in other),
        group=group,
    )
