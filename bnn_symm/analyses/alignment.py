"""Aligning runs and measuring barriers between them, as plain data: the content of the commands'
JSON.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from bnn_symm.alignment import (
    Alignment,
    JointCost,
    Matching,
    Solver,
    Synchronization,
    align,
    align_samples,
    synchronize,
)
from bnn_symm.analyses.monotonicity import check_means, line_shapes, lines_from_initial
from bnn_symm.diagnostics import Barrier, barrier, simplex_barrier
from bnn_symm.diagnostics.barriers.barriers import Path
from bnn_symm.diagnostics.barriers.interpolation import Coupling
from bnn_symm.diagnostics.barriers.simplex import SimplexBarrier
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.runs.run import Run
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from bnn_symm.threads import available_cores, use_threads

# Units a layer from which matrix products of an alignment are large enough for all cores.
_LARGE = 512


def align_runs(
    reference: Run,
    others: Sequence[Run],
    *,
    matching: Matching = "w2",
    solver: Solver = "auto",
    seed: int = 0,
) -> tuple[list[Posterior], list[dict[str, Any]], int]:
    """The reference's posterior and the others', aligned to it; and what `alignment.json` says of
    each of the others.

    Chains of draws, and members of ensembles, are brought into one mode first, the reference's too:
    the mean over several modes is no place to align to. The last of what is returned counts chains
    of the reference that moved.
    """
    group, train = _group(reference), reference.dataset().train
    with use_threads(_threads(group)):
        first, chains_moved = in_one_mode(reference.posterior, group, seed)
        aligned, contents = [first], []
        for run in others:
            posterior, moved = in_one_mode(run.posterior, group, seed)
            found = align(
                first,
                posterior,
                matching=matching,
                solver=solver,
                part=train,
                group=group,
                seed=seed,
            )
            aligned.append(found.apply(posterior))
            contents.append(
                {"run": str(run.path), **describe_alignment(found), "chains_moved_first": moved}
            )
    return aligned, contents, chains_moved


def in_one_mode(posterior: Posterior, group: SymmetryGroup, seed: int) -> tuple[Posterior, int]:
    """Chains aligned to one another, and how many of them moved relative to most; anything else as
    it is.
    """
    if not isinstance(posterior, SamplePosterior) or posterior.shape[0] == 1 or group.is_trivial:
        return posterior, 0
    found = align_samples(posterior, per="chain", null=False, group=group, seed=seed)
    return found.posterior, sum(
        not isinstance(p, Permutation) or not p.is_identity for p in found.permutations
    )


def align_jointly(
    runs: Sequence[Run], *, cost: JointCost = "w2", seed: int = 0
) -> tuple[list[Posterior], dict[str, Any]]:
    """The posteriors of several runs aligned through a universe, which prefers none; and how that
    went.
    """
    group = _group(runs[0])
    with use_threads(_threads(group)):
        posteriors = [in_one_mode(run.posterior, group, seed)[0] for run in runs]
        found = synchronize(posteriors, cost=cost, group=group, seed=seed)
    return found.apply(posteriors), describe_synchronization(found)


def describe_alignment(found: Alignment) -> dict[str, Any]:
    """Everything of an alignment; of the permutation, the old unit and the sign of every new one,
    group by group.
    """
    own = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    del own["group"]
    own["permutation"] = {name: index.tolist() for name, index in found.permutation.indices.items()}
    own["signs"] = {name: sign.tolist() for name, sign in found.permutation.signs.items()}
    movable = found.num_movable
    own["note"] = (
        f"{found.num_moved} of {movable} movable hidden units moved"
        if movable
        else f"there is nothing to align: {found.group.certificate}"
    )
    own["fixed_points"] = found.permutation.fixed_points()
    return own


def describe_synchronization(found: Synchronization) -> dict[str, Any]:
    """Numbers of a joint alignment."""
    own = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    del own["permutations"], own["group"]
    return {**own, "distance_before": found.distance_before, "distance_after": found.distance_after}


def barrier_runs(
    runs: Sequence[Run],
    *,
    aligned: bool = True,
    matching: Matching = "w2",
    path: Path = "geodesic",
    coupling: Coupling = "moment",
    curve_steps: int = 500,
    num_draws: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """The barrier between two runs, or over the simplex of three or more; naive, and aligned unless
    that is not wanted.

    Along lines there is also, for any number of runs, the line from each one's initial value to its
    mean.

    Returns:
        `height` and `standard_error` on the test part, marginal NLL, maximum over tau (or the
        simplex) against the chord (or the plane), with the alignment if `aligned`; and everything
        else beside them.
    """
    if path == "line":
        check_means(runs)
        if len(runs) != 2:
            return lines_from_initial(runs)
    if len(runs) > 2 and path != "geodesic":
        raise ConfigError(
            f"--path {path} is between two runs, got {len(runs)}; name two, or use --path geodesic"
        )
    if len(runs) > 2 and matching not in ("w2", "means"):
        raise ConfigError(
            f"--matching {matching} is for two runs; three or more are aligned jointly by w2 or "
            "means"
        )
    first, dataset = runs[0], runs[0].dataset()
    options = {"coupling": coupling, "num_draws": num_draws, "seed": seed}
    posteriors = [run.posterior for run in runs]
    content: dict[str, Any] = {"runs": [str(run.path) for run in runs], "aligned": aligned}
    if len(runs) == 2:
        found, _ = pair_runs(
            runs[0],
            runs[1],
            aligned=aligned,
            matching=matching,
            path=path,
            curve_steps=curve_steps,
            **options,
        )
        return found if path != "line" else lines_from_initial(runs) | found
    with use_threads(first.threads):
        naive_simplex = simplex_barrier(posteriors, dataset.test, **options)
        content["naive"] = {
            "simplex": dataclasses.asdict(naive_simplex),
            "pairs": _pairs(posteriors, dataset, options),
        }
    chosen_simplex: SimplexBarrier = naive_simplex
    content["simplex"], content["pairs"] = content["naive"]["simplex"], content["naive"]["pairs"]
    if aligned:
        cost = "means" if matching == "means" else "w2"
        moved, content["alignment"] = align_jointly(runs, cost=cost, seed=seed)
        with use_threads(first.threads):
            chosen_simplex = simplex_barrier(moved, dataset.test, **options)
            content["simplex"] = dataclasses.asdict(chosen_simplex)
            content["pairs"] = _pairs(moved, dataset, options)
    return {
        "height": chosen_simplex.height,
        "standard_error": None,
        "centroid": chosen_simplex.centroid,
        "path": chosen_simplex.path,
        **content,
    }


def pair_runs(
    first: Run,
    second: Run,
    *,
    aligned: bool = True,
    matching: Matching = "w2",
    path: Path = "geodesic",
    coupling: Coupling = "moment",
    curve_steps: int = 500,
    num_draws: int = 50,
    seed: int = 0,
) -> tuple[dict[str, Any], list[Posterior]]:
    """What `barrier_runs` says of two runs; and the two posteriors, aligned if that is wanted."""

    def measured(start: Posterior, end: Posterior) -> tuple[Barrier, dict[str, Any]]:
        with use_threads(first.threads):
            found = barrier(start, end, dataset, **options)
            described = describe_barrier(found)
            if path == "line":
                described["shape"] = line_shapes(start, start.mean(), end.mean(), dataset)
        return found, described

    content: dict[str, Any] = {"runs": [str(first.path), str(second.path)], "aligned": aligned}
    posteriors, dataset = [first.posterior, second.posterior], first.dataset()
    options = {
        "coupling": coupling,
        "num_draws": num_draws,
        "seed": seed,
        "path": path,
        "curve_steps": curve_steps,
    }
    found, naive = measured(*posteriors)
    chosen = naive
    if aligned:
        posteriors, (content["alignment"],), _ = align_runs(
            first, [second], matching=matching, seed=seed
        )
        found, chosen = measured(*posteriors)
    described = {
        "height": found.height,
        "standard_error": found.standard_error,
        **content,
        "path": found.path,
        "num_draws": found.num_draws,
        **chosen,
        "naive": naive,
    }
    return described, posteriors


def describe_barrier(found: Barrier) -> dict[str, Any]:
    """The curves of both parts, and the second posterior's own loss."""
    return {
        "test": dataclasses.asdict(found.test),
        "train": dataclasses.asdict(found.train),
        "end_nll": found.end_nll,
    }


def _pairs(
    posteriors: Sequence[Posterior], dataset: Any, options: dict[str, Any]
) -> list[dict[str, Any]]:
    rows = []
    for i, j in itertools.combinations(range(len(posteriors)), 2):
        found = barrier(posteriors[i], posteriors[j], dataset, **options)
        rows.append(
            {
                "first": i,
                "second": j,
                "height": found.height,
                "standard_error": found.standard_error,
            }
        )
    return rows


def _group(run: Run) -> SymmetryGroup:
    return symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)


def _threads(group: SymmetryGroup) -> int:
    largest = max((one.size for one in group.spec.groups.values()), default=0)
    return available_cores() if largest >= _LARGE else 1
