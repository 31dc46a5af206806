"""Align two posteriors: find the element of the symmetry group that minimizes their distance.

    align(reference, other) -> Alignment

The search stays inside the group that fixed entries leave (`symmetry_group`): in an asymmetric
network the group is trivial, and the result records that. The problem is NP-hard: solvers run from
the identity and from random elements, the best objective wins, and the permuted network is checked
to compute the same function.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch

from bnn_symm.alignment.activations import activation_alignment
from bnn_symm.alignment.objective import Cost, Objective, alignment_objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.solvers.sinkhorn import sinkhorn
from bnn_symm.alignment.solvers.straight_through import straight_through
from bnn_symm.alignment.transport import Transport
from bnn_symm.architectures import fingerprint, short_fingerprint
from bnn_symm.arguments import check_at_least, checked
from bnn_symm.data import Split
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, SymmetryError
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import (
    Permutation,
    SymmetryGroup,
    fixed_entries,
    symmetry_group,
    unit_statistics,
)
from bnn_symm.symmetry.derive import NUM_POINTS, relative_difference
from bnn_symm.symmetry.inputs import input_points

Matching = Literal["w2", "means", "precision", "activations"]
Solver = Literal["auto", "coordinate", "frank_wolfe", "sinkhorn", "straight_through"]
SolverName = Literal[
    "coordinate", "frank_wolfe", "sinkhorn", "straight_through", "activations", "none"
]

# Solvers that need the objective only.
_SOLVERS = {"coordinate": coordinate, "frank_wolfe": frank_wolfe, "sinkhorn": sinkhorn}
# Number of units in a group above which a start takes seconds, so that there are fewer starts.
_LARGE = 300
_RESTARTS, _RESTARTS_LARGE = 6, 2
_SAME_FUNCTION = 1e-6


@dataclass(frozen=True, kw_only=True, repr=False)
class Alignment(Summarized):
    """Hold the result of aligning one posterior to another.

    Attributes:
        permutation: to be applied to the other posterior.
        matching: the moments or activations that were compared.
        solver: the solver with the best result; `none` where the group is trivial.
        starts: number of starts: the identity and random ones.
        distance_before: squared distance of the cost at the identity.
        distance_after: the same with the permutation.
        distance_random: the same at a random element of the group, a baseline beside the identity.
        coordinate_from_identity: the same after coordinate matching from the identity alone,
            whichever solver was used.
        num_moved: units that change position or sign.
        num_movable: units that the group can move.
        function_difference: largest relative change of the outputs at the posterior mean, in
            float64; checked to be below 1e-6.
        group: the group that was searched.
    """

    permutation: Permutation
    matching: Matching
    solver: SolverName
    starts: int
    distance_before: float
    distance_after: float
    distance_random: float
    coordinate_from_identity: float
    num_moved: int
    num_movable: int
    function_difference: float
    group: SymmetryGroup

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return {
            "matching": self.matching,
            "solver": self.solver,
            "num_moved": self.num_moved,
            "num_movable": self.num_movable,
            "distance_before": self.distance_before,
            "distance_after": self.distance_after,
        }

    @property
    def note(self) -> str:
        """Return how many units moved, or why there is nothing to align."""
        return (
            f"{self.num_moved} of {self.num_movable} movable hidden units moved"
            if self.num_movable
            else f"there is nothing to align: {self.group.certificate}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the alignment as JSON types.

        `permutation` and `signs` list the old index and the sign of every new unit, by group.
        """
        content = dict(vars(self))
        del content["group"]
        return content | {
            **self.permutation.to_dict(),
            "note": self.note,
            "fixed_points": self.permutation.fixed_points(),
        }

    def apply(self, other: Posterior) -> Posterior:
        """Return the other posterior, permuted.

        Args:
            other: the posterior that was aligned, or one of the same network.
        """
        return other.permute(self.permutation)


@checked
def align(
    reference: Posterior,
    other: Posterior,
    *,
    matching: Matching = "w2",
    solver: Solver = "auto",
    part: Split | None = None,
    group: SymmetryGroup | None = None,
    restarts: int | None = None,
    seed: int = 0,
) -> Alignment:
    """Find the permutation that brings a posterior nearest to a reference.

    Args:
        reference: the posterior that is not changed.
        other: a posterior of the same network.
        matching: `w2`: means and standard deviations; `means`; `precision`: means, weighted by the
            reference's precision; `activations`: correlation of hidden activations on the points of
            `part`.
        solver: `coordinate`: one group of units at a time, the fastest; `frank_wolfe` and
            `sinkhorn`: all groups relaxed, by linear steps or by annealing; `auto`: the best of
            these three; `straight_through`: the lowest loss at the midpoint, of means and standard
            deviations for `w2`, of means for `means`.
        part: points for `activations` and `straight_through`.
        group: of the network, if it is already known.
        restarts: random starts besides the identity; default 6, or 2 above 300 units a layer. With
            `auto`, Sinkhorn matching starts at the identity only, and Frank-Wolfe is left out above
            300 units. Activations and `straight_through` use none.
        seed: of the starts, and of the order of data and the noise of `straight_through`.

    Returns:
        The permutation, with distances before and after.

    Raises:
        IncompatiblePosteriors: if the two have different parameters.
        ConfigError: if points are needed and not given, matching and solver are not compatible, or
            `restarts` is negative.
        SymmetryError: if the network's symmetries cannot be derived, or the permuted network
            computes another function.

    Example:
        >>> import torch, bnn_symm
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
        >>> likelihood = bnn_symm.likelihoods.Gaussian(noise=0.1)
        >>> model = bnn_symm.BayesianModel(net, bnn_symm.Prior(), likelihood)
        >>> first = bnn_symm.SamplePosterior.from_draws(model, model.initial(seed=0)[None, None])
        >>> other = first.permute(bnn_symm.symmetry_group(net).random(1))
        >>> round(bnn_symm.align(first, other).distance_after, 4)
        0.0
    """
    check_same_parameters([reference, other])
    _check_choices(matching, solver, part)
    check_at_least("restarts", restarts or 0, 0)
    if solver == "straight_through" and reference.model.statistics:
        raise ConfigError(
            "straight_through trains the midpoint of one network, and frozen batch norm has "
            "statistics that move with the units; use auto"
        )
    group = group or symmetry_group(
        reference.model.net,
        input_shape=tuple(part.x.shape[1:]) if part is not None else None,
        move_statistics=True,
    )
    cost: Cost = "w2" if matching == "activations" else matching
    objective = alignment_objective(reference, other, group.spec, cost)
    identity = group.spec.identity()
    if group.is_trivial:
        return _result(
            other, objective, group, identity, matching, "none", 0, objective.value(identity)
        )
    first, baseline = coordinate(objective, group, identity, seed, "coordinate", 0)
    if part is not None and matching == "activations":
        permutation = activation_alignment(reference, other, part.x, group)
        return _result(other, objective, group, permutation, matching, "activations", 1, baseline)
    if part is not None and solver == "straight_through":
        permutation, _ = straight_through(
            reference, other, part, group, noisy=matching == "w2", seed=seed
        )
        return _result(
            other, objective, group, permutation, matching, "straight_through", 1, baseline
        )
    large = max(units.size for units in group.spec.groups.values()) > _LARGE
    if restarts is None:
        restarts = _RESTARTS_LARGE if large else _RESTARTS
    candidates: list[tuple[float, SolverName, Permutation]] = []
    for number in range(restarts + 1):
        start = group.random(seed, "start", number - 1) if number else identity
        for name in _solvers(solver, number, large):
            if name == "coordinate" and number == 0:
                permutation, value = first, baseline
            else:
                permutation, value = _SOLVERS[name](objective, group, start, seed, name, number)
            candidates.append((value, name, permutation))
    _, winner, best = max(candidates, key=lambda entry: entry[0])
    return _result(other, objective, group, best, matching, winner, restarts + 1, baseline)


def _check_choices(matching: Matching, solver: Solver, part: Split | None) -> None:
    """Refuse an incompatible matching or solver, or one that lacks its points."""
    if matching == "activations" and solver != "auto":
        raise ConfigError(
            f"got solver {solver} for activations, which one assignment matches; use auto"
        )
    if solver == "straight_through" and matching == "precision":
        raise ConfigError(
            "straight_through minimizes the loss at the midpoint, without precisions; match w2 or "
            "means"
        )
    if part is None and matching == "activations":
        raise ConfigError(
            "activations are matched on points; pass some, such as part=dataset.train"
        )
    if part is None and solver == "straight_through":
        raise ConfigError(
            "straight_through learns from points; pass some, such as part=dataset.train"
        )


def _solvers(solver: Solver, number: int, large: bool) -> list[SolverName]:
    """Return the solvers that run from a start.

    Sinkhorn hardly depends on the start, and Frank-Wolfe takes seconds per start.
    """
    if solver == "straight_through":
        return []
    if solver != "auto":
        return [solver]
    return [
        "coordinate",
        *(["frank_wolfe"] if not large else []),
        *(["sinkhorn"] if number == 0 else []),
    ]


def _result(
    other: Posterior,
    objective: Objective,
    group: SymmetryGroup,
    permutation: Permutation,
    matching: Matching,
    solver: SolverName,
    starts: int,
    from_identity: float,
) -> Alignment:
    movable = {
        (name, unit) for c in group.components for name, units in c.units.items() for unit in units
    }
    return Alignment(
        permutation=permutation,
        matching=matching,
        solver=solver,
        starts=starts,
        distance_before=objective.distance(group.spec.identity()),
        distance_after=objective.distance(permutation),
        distance_random=objective.distance(group.random("baseline")),
        coordinate_from_identity=objective.constant - 2 * from_identity,
        num_moved=permutation.num_moved,
        num_movable=len(movable),
        function_difference=check_same_function(other, permutation),
        group=group,
    )


def check_same_function(
    posterior: Posterior, permutation: Permutation, transport: Transport | None = None
) -> float:
    """Return the largest relative change of the outputs when the posterior mean is aligned.

    Outputs are computed in float64 on random inputs.

    Args:
        posterior: the posterior.
        permutation: of its network's spec.
        transport: scales and rotations that are applied after the permutation, if any.

    Returns:
        The relative change.

    Raises:
        SymmetryError: if it is not below 1e-6.
    """
    model = posterior.model
    net = copy.deepcopy(model.net).double().cpu()
    flat = posterior.mean().detach().double().cpu()
    statistics = {name: value.double().cpu() for name, value in model.statistics.items()}
    moved = model.permute(flat, permutation)
    if transport is not None:
        moved = transport.apply_flat(model, moved)
    values, aligned = (
        model.net_values(model.unflatten(vector)) | buffers
        for vector, buffers in ((flat, statistics), (moved, permutation.apply(statistics)))
    )
    difference = relative_difference(
        net, values, aligned, input_points(net, permutation.spec.input_shape, NUM_POINTS)
    )
    if not difference < _SAME_FUNCTION:
        raise SymmetryError(
            f"the {'permuted' if transport is None else 'transformed'} network computes another "
            f"function: outputs differ by a relative {difference:.1e}; please report this with the "
            "network"
        )
    return difference


def check_same_parameters(posteriors: list[Posterior]) -> None:
    """Refuse posteriors that do not share one parameter space.

    Args:
        posteriors: the posteriors.

    Raises:
        IncompatiblePosteriors: if one differs from the first; the message names the difference.
    """
    first = posteriors[0].model
    for number, posterior in enumerate(posteriors[1:], start=2):
        model = posterior.model
        if list(model.shapes.items()) != list(first.shapes.items()):
            differs = {
                n
                for n, shape in [*model.shapes.items(), *first.shapes.items()]
                if model.shapes.get(n) != first.shapes.get(n)
            }
            raise IncompatiblePosteriors(
                f"posterior {number} has different parameters from the first "
                f"({', '.join(sorted(differs)[:5])}); align posteriors of one architecture"
            )
        if repr(model.net) != repr(first.net):
            pairs = zip(repr(first.net).splitlines(), repr(model.net).splitlines(), strict=False)
            mine, theirs = next((a.strip(), b.strip()) for a, b in pairs if a != b)
            raise IncompatiblePosteriors(
                f"posterior {number} has a different network from the first: {theirs} in place of "
                f"{mine}; align posteriors of one architecture"
            )
        check_same_fixed(first.net, model.net, f"posterior {number}")


def check_same_fixed(first: torch.nn.Module, other: torch.nn.Module, who: str) -> None:
    """Refuse two networks with different fixed entries.

    Statistics of frozen batch norm may differ, since they move with the units.

    Args:
        first: the first network.
        other: the other network.
        who: name of the other network's posterior in the message.

    Raises:
        IncompatiblePosteriors: if they differ; the message has both fingerprints.
    """
    entries, others = fixed_entries(first), fixed_entries(other)
    moving = unit_statistics(first)
    for name in dict.fromkeys([*entries, *others]):
        if name in moving:
            continue
        both = name in entries and name in others
        if both and all(
            torch.equal(getattr(entries[name], part), getattr(others[name], part))
            for part in ("free", "values")
        ):
            continue
        mine, theirs = short_fingerprint(fingerprint(first)), short_fingerprint(fingerprint(other))
        if mine == theirs:
            raise IncompatiblePosteriors(
                f"{who} has other values of {name}, which is constant, than the first, so that "
                "coordinates are not comparable; use the same values in both networks"
            )
        raise IncompatiblePosteriors(
            f"{who} has different fixed values in {name} (mask fingerprint {theirs}, the first has "
            f"{mine}), so that coordinates are not comparable; compare runs of one "
            "architecture.symmetry, its seed included"
        )
