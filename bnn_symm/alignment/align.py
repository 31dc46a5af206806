"""Aligning two posteriors: the element of the symmetry group that brings one nearest to another.

    align(reference, other) -> Alignment

The search stays inside the group that what is fixed leaves (`symmetry_group`): an asymmetric
    network has nothing to
align, and the result says so. The problem is NP-hard: solvers run from the identity and from random
elements, the best objective wins, and the permuted network is checked to compute the same function.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from bnn_symm.alignment.activations import activation_alignment
from bnn_symm.alignment.objective import Cost, Objective, alignment_objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.solvers.sinkhorn import sinkhorn
from bnn_symm.alignment.solvers.straight_through import straight_through
from bnn_symm.architectures import fingerprint, short_fingerprint
from bnn_symm.arguments import checked
from bnn_symm.data import Split
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, SymmetryError
from bnn_symm.posteriors import Posterior
from bnn_symm.summaries import Summarized
from bnn_symm.symmetry import Permutation, SymmetryGroup, fixed_entries, symmetry_group
from bnn_symm.symmetry.derive import input_points, relative_difference

Matching = Literal["w2", "means", "precision", "activations"]
Solver = Literal["auto", "coordinate", "frank_wolfe", "sinkhorn", "straight_through"]
SolverName = Literal[
    "coordinate", "frank_wolfe", "sinkhorn", "straight_through", "activations", "none"
]

# Of the objective alone.
_SOLVERS = {"coordinate": coordinate, "frank_wolfe": frank_wolfe, "sinkhorn": sinkhorn}
# Units in a group above which a start costs seconds, so that fewer are made.
_LARGE = 300
_RESTARTS, _RESTARTS_LARGE = 6, 2
_SAME_FUNCTION = 1e-6


@dataclass(frozen=True, kw_only=True, repr=False)
class Alignment(Summarized):
    """The result of aligning one posterior to another.

    Attributes:
        permutation: to be applied to the other one.
        matching: what was compared.
        solver: whose result won; `none` where there is nothing to align.
        starts: the identity, and random ones.
        distance_before: squared distance of the cost before, at the identity.
        distance_after: with the permutation.
        distance_random: at a random element of the group, the baseline beside the identity.
        coordinate_from_identity: what coordinate matching from the identity alone reaches,
            whichever solver was asked.
        num_moved: units that change place or sign.
        num_movable: units that could.
        function_difference: largest relative change of the outputs at the posterior mean, in
            float64; checked to be below 1e-6.
        group: that was searched.
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

    def apply(self, other: Posterior) -> Posterior:
        """The other posterior, permuted."""
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
    """Finds the permutation that brings a posterior nearest to a reference.

    Args:
        reference: stays as it is.
        other: of the same network.
        matching: `w2`: means and standard deviations; `means`; `precision`: means, weighted by the
            reference's precision; `activations`: correlation of hidden activations on the points of
            `part`.
        solver: `coordinate`: one group of units at a time, the fastest; `frank_wolfe` and
            `sinkhorn`: all groups relaxed, by linear steps or by cooling; `auto`: the best of these
            three; `straight_through`: the lowest loss at the midpoint, of means and standard
            deviations for `w2`, of means for `means`.
        part: points for `activations` and `straight_through`.
        group: of the network, if it is known already.
        restarts: random starts beside the identity; default 6, or 2 above 300 units a layer. With
            `auto`, Sinkhorn matching begins at the identity only, and Frank-Wolfe is left out above
            300 units. Activations and `straight_through` have none.
        seed: of these, and of the order of data and the noise of `straight_through`.

    Raises:
        IncompatiblePosteriors: if the two have other parameters.
        ConfigError: if points are wanted and not given, or matching and solver do not go together.
        SymmetryError: if the network's symmetries cannot be derived, or the permuted network is
            another function.
    """
    check_same_parameters([reference, other])
    _check_choices(matching, solver, part)
    group = group or symmetry_group(
        reference.model.net, input_shape=tuple(part.x.shape[1:]) if part is not None else None
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
        found = activation_alignment(reference, other, part.x, group)
        return _result(other, objective, group, found, matching, "activations", 1, baseline)
    if part is not None and solver == "straight_through":
        found, _ = straight_through(
            reference, other, part, group, noisy=matching == "w2", seed=seed
        )
        return _result(other, objective, group, found, matching, "straight_through", 1, baseline)
    large = max(one.size for one in group.spec.groups.values()) > _LARGE
    restarts = restarts if restarts is not None else (_RESTARTS_LARGE if large else _RESTARTS)
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
    """Raises ConfigError unless matching and solver are known, go together, and have the points
    that they want.
    """
    for what, got, known in (
        ("matching", matching, get_args(Matching)),
        ("solver", solver, get_args(Solver)),
    ):
        if got not in known:
            raise ConfigError(f"got {what} {got!r}; use {', '.join(known[:-1])} or {known[-1]}")
    if matching == "activations" and solver != "auto":
        raise ConfigError(
            f"got solver {solver} for activations, which are matched by one assignment; leave it "
            "auto"
        )
    if solver == "straight_through" and matching == "precision":
        raise ConfigError(
            "straight_through looks at the loss at the midpoint, not at precisions; match w2 or "
            "means"
        )
    if part is None and matching == "activations":
        raise ConfigError(
            "activations are matched on points; give some, such as part=dataset.train"
        )
    if part is None and solver == "straight_through":
        raise ConfigError(
            "straight_through learns from points; give some, such as part=dataset.train"
        )


def _solvers(solver: Solver, number: int, large: bool) -> list[SolverName]:
    """Those that begin at a start; of all, Sinkhorn hardly depends on it, and Frank-Wolfe takes
    seconds a start.
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


def check_same_function(posterior: Posterior, permutation: Permutation) -> float:
    """Largest relative change of the outputs when the posterior mean is permuted, in float64, on
    random inputs.

    Raises:
        SymmetryError: if it is not below 1e-6.
    """
    model = posterior.model
    net = copy.deepcopy(model.net).double().cpu()
    flat = posterior.mean().detach().double().cpu()
    values, permuted = (
        model.net_values(model.unflatten(at)) for at in (flat, model.permute(flat, permutation))
    )
    difference = relative_difference(
        net, values, permuted, input_points(net, permutation.spec.input_shape)
    )
    if not difference < _SAME_FUNCTION:
        raise SymmetryError(
            f"the permuted network computes another function: outputs differ by {difference:.1e} "
            "of their size; please "
            f"report it with the network"
        )
    return difference


def check_same_parameters(posteriors: list[Posterior]) -> None:
    """Raises IncompatiblePosteriors, naming what differs, unless all live in one parameter
    space.
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
                f"posterior {number} has other parameters than the first "
                f"({', '.join(sorted(differs)[:5])}); align posteriors of one architecture"
            )
        if repr(model.net) != repr(first.net):
            pairs = zip(repr(first.net).splitlines(), repr(model.net).splitlines(), strict=False)
            mine, theirs = next((a.strip(), b.strip()) for a, b in pairs if a != b)
            raise IncompatiblePosteriors(
                f"posterior {number} has another network than the first: {theirs} in place of "
                f"{mine}; align posteriors of one architecture"
            )
        check_same_fixed(first.net, model.net, f"posterior {number}")


def check_same_fixed(first: torch.nn.Module, other: torch.nn.Module, who: str) -> None:
    """Raises IncompatiblePosteriors, naming both fingerprints, unless two networks have the same
    fixed entries.
    """
    own, others = fixed_entries(first), fixed_entries(other)
    for name in dict.fromkeys([*own, *others]):
        both = name in own and name in others
        if both and all(
            torch.equal(getattr(own[name], part), getattr(others[name], part))
            for part in ("free", "values")
        ):
            continue
        mine, theirs = short_fingerprint(fingerprint(first)), short_fingerprint(fingerprint(other))
        raise IncompatiblePosteriors(
            f"{who} has other fixed values in {name} (mask fingerprint {theirs}, the first has "
            f"{mine}): coordinates of networks with other masks or fixed values mean other things; "
            "compare runs of one architecture.symmetry, "
            f"its seed included"
        )
