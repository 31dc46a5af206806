"""Test linear connectivity modulo permutation for pairs, composed paths, cycles and sequences.

- Weak: for every pair some permutation, which may depend on the pair: `align_pairs`.
- Simultaneous: one permutation for a whole sequence of checkpoints: `align_sequences`.
- Strong: one permutation per posterior that serves all pairs: `synchronize`. Where it holds,
  permutations of pairs compose: B brought to A through X is as near as B brought to A directly
  (`composed_paths`), and the composition around a cycle is nearly the identity (`cycles`).

Distances are those of the cost. The barriers of the same pairs, paths and cycles come from
`diagnostics.barrier`, given the permuted posterior.

References:
    Sharma, Kwok, Denton, Roy, Rolnick and Dziugaite (2024), arXiv:2404.06498.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

from bnn_symm.alignment.align import align, check_same_function, check_same_parameters
from bnn_symm.alignment.objective import Objective, alignment_objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.synchronize import JointCost, digest
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import plain
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group

_RESTARTS = 4


def agreement(first: Permutation, second: Permutation) -> dict[str, float]:
    """Return the fraction of units that two permutations map to the same position and sign.

    Args:
        first: a permutation.
        second: another permutation of the same spec.

    Returns:
        Group -> fraction of its units.
    """
    same = first.inverse().compose(second).fixed_points()
    return {name: same[name] / group.size for name, group in first.spec.groups.items()}


@dataclass(frozen=True, kw_only=True)
class PairwiseAlignments:
    """Hold the alignments of every pair of posteriors.

    Attributes:
        permutations: (reference, other), by index, both ways -> permutation of the other.
        distances: (reference, other), both ways -> squared distance after alignment.
        cost: the moments that were compared.
        group: the group that was searched.
    """

    permutations: Mapping[tuple[int, int], Permutation]
    distances: Mapping[tuple[int, int], float]
    cost: JointCost
    group: SymmetryGroup


@dataclass(frozen=True, kw_only=True)
class ComposedPath:
    """Compare two ways to bring one posterior to another: through a third one, and directly.

    Attributes:
        reference: index of the posterior that is not changed.
        via: index of the one between.
        other: index of the one that is permuted.
        composed: `P_{reference <- via} P_{via <- other}`.
        direct: `P_{reference <- other}`.
        agreement: group -> fraction of units on which both agree.
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
    """Describe the composition of pairwise permutations around a cycle.

    Attributes:
        members: indices of the posteriors, each brought to the one before it, the first one to the
            last.
        permutation: of the first one to itself; the identity if pairs were aligned consistently.
        fixed_points: group -> units that return to their position, with their sign.
        share: group -> these as a fraction of the units of the group.
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
    """Align every pair independently (see `align`).

    Of each pair, the posterior with the smaller hash is the reference.

    Args:
        posteriors: two or more, of one network.
        cost: `w2`: means and standard deviations; `means`.
        group: of the network, if it is already known.
        restarts: of `align`.
        seed: of the restarts.

    Returns:
        The permutations and distances of all pairs.

    Raises:
        ConfigError: if there are fewer than two.
        IncompatiblePosteriors: if they have different parameters.
    """
    if len(posteriors) < 2:
        raise ConfigError(
            f"got {len(posteriors)} posteriors to align in pairs, expected two or more"
        )
    check_same_parameters(list(posteriors))
    group = group or symmetry_group(posteriors[0].model.net, move_statistics=True)
    digests = [digest(posterior) for posterior in posteriors]
    aligned: dict[tuple[int, int], Permutation] = {}
    distances: dict[tuple[int, int], float] = {}
    for pair in combinations(range(len(posteriors)), 2):
        reference, other = sorted(pair, key=lambda number: digests[number])
        result = align(
            posteriors[reference],
            posteriors[other],
            matching=cost,
            group=group,
            restarts=restarts,
            seed=seed,
        )
        aligned[reference, other] = result.permutation
        aligned[other, reference] = result.permutation.inverse()
        distances[reference, other] = distances[other, reference] = result.distance_after
    return PairwiseAlignments(permutations=aligned, distances=distances, cost=cost, group=group)


def composed_paths(
    posteriors: Sequence[Posterior], pairs: PairwiseAlignments | None = None
) -> list[ComposedPath]:
    """Compare composed and direct alignments for every ordered triple of posteriors.

    Args:
        posteriors: three or more, of one network.
        pairs: the result of `align_pairs` for them, if it is already known.

    Returns:
        One path per ordered triple.

    Raises:
        ConfigError: if there are fewer than three.
    """
    if len(posteriors) < 3:
        raise ConfigError(
            f"got {len(posteriors)} posteriors, expected three or more for composed paths"
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
    """Compose pairwise permutations around every cycle of `length` posteriors.

    Each cycle occurs once: its direction and first member do not change the number of fixed points.

    Args:
        posteriors: at least `length`, of one network.
        pairs: the result of `align_pairs` for them, if it is already known.
        length: 3 or more; with 2 the way back is the inverse.

    Returns:
        One result per cycle.

    Raises:
        ConfigError: if `length` is below 3 or there are too few posteriors.
    """
    if not 3 <= length <= len(posteriors):
        raise ConfigError(
            f"got cycles of length {length} and {len(posteriors)} posteriors, expected a length "
            "from 3 to the number of posteriors"
        )
    pairs = pairs or align_pairs(posteriors)
    results = []
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
            results.append(
                Cycle(
                    members=members,
                    permutation=total,
                    fixed_points=fixed,
                    share={
                        name: fixed[name] / units.size for name, units in total.spec.groups.items()
                    },
                    distance=alignment_objective(
                        first, first, pairs.group.spec, pairs.cost
                    ).distance(total),
                )
            )
    return results


@dataclass(frozen=True, kw_only=True)
class SequenceAlignment:
    """Hold one permutation for a whole sequence of checkpoints.

    Attributes:
        permutation: to be applied to every posterior of the other sequence.
        cost: the moments that were compared.
        point: index of the only point whose distance was minimized; None for all together.
        solver: the solver with the best result.
        starts: of each solver.
        distances_before: squared distance at each position of the sequence, at the identity.
        distances_after: with the permutation.
        num_moved: units that change position or sign.
        function_difference: largest relative change of the outputs at the means, over the sequence,
            in float64; checked to be below 1e-6.
        group: the group that was searched.
    """

    permutation: Permutation
    cost: JointCost
    point: int | None
    solver: str
    starts: int
    distances_before: tuple[float, ...]
    distances_after: tuple[float, ...]
    num_moved: int
    function_difference: float
    group: SymmetryGroup

    def to_dict(self) -> dict[str, Any]:
        """Return the alignment as JSON types; see `Alignment.to_dict` for the permutation."""
        content = {key: plain(value) for key, value in vars(self).items() if key != "group"}
        return content | {
            **self.permutation.to_dict(),
            "fixed_points": self.permutation.fixed_points(),
        }


@checked
def align_sequences(
    reference: Sequence[Posterior],
    other: Sequence[Posterior],
    *,
    cost: JointCost = "w2",
    group: SymmetryGroup | None = None,
    restarts: int = _RESTARTS,
    seed: int = 0,
    point: int | None = None,
) -> SequenceAlignment:
    """Find the one permutation that minimizes the summed distance of two sequences.

    ``max_P  sum_t <m_t, P m'_t> + <s_t, |P| s'_t>``

    Args:
        reference: checkpoints of one fit, in order; they are not changed.
        other: those of another fit, at the same times.
        cost: `w2`: means and standard deviations; `means`.
        group: of the network, if it is already known.
        restarts: random starts of each solver beside the identity.
        seed: of the starts.
        point: index of the only point whose distance is minimized; None for the sum of all.

    Returns:
        The permutation, with distances before and after at all points.

    Raises:
        ConfigError: if the sequences are empty or differ in length, or have no such point.
        IncompatiblePosteriors: if they have different parameters.
        SymmetryError: if the network's symmetries cannot be derived, or a permuted network computes
            another function.
    """
    if not reference or len(reference) != len(other):
        raise ConfigError(
            f"got sequences of {len(reference)} and {len(other)} posteriors, expected equal "
            "lengths, at the same times"
        )
    if point is not None and not 0 <= point < len(reference):
        raise ConfigError(f"point={point}: expected an index from 0 to {len(reference) - 1}")
    check_same_parameters([*reference, *other])
    group = group or symmetry_group(reference[0].model.net, move_statistics=True)
    parts = [
        alignment_objective(first, second, group.spec, cost)
        for first, second in zip(reference, other, strict=True)
    ]
    minimized = parts if point is None else [parts[point]]
    objective = Objective(
        group.spec,
        tuple(term for part in minimized for term in part.terms),
        sum(part.constant for part in minimized),
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
        point=point,
        solver="none" if group.is_trivial else solver,
        starts=len(starts),
        distances_before=tuple(part.distance(identity) for part in parts),
        distances_after=tuple(part.distance(best) for part in parts),
        num_moved=best.num_moved,
        function_difference=max(check_same_function(posterior, best) for posterior in other),
        group=group,
    )
