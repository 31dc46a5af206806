"""Align runs and measure barriers between them: the content of the JSON of both commands."""

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

# Width from which the matrix products of an alignment are large enough for all cores.
_LARGE = 512


def align_runs(
    reference: Run,
    others: Sequence[Run],
    *,
    matching: Matching = "w2",
    solver: Solver = "auto",
    seed: int = 0,
) -> tuple[list[Posterior], list[dict[str, Any]], int]:
    """Align the posteriors of runs to that of a reference.

    Chains of draws and members of ensembles, also those of the reference, are first aligned to one
    another: the mean over several modes is not a meaningful target.

    Args:
        reference: the run to align to.
        others: the runs to align.
        matching: the matching cost.
        solver: the solver.
        seed: the seed of the solver.

    Returns:
        The posteriors, that of the reference first; the content of `alignment.json` for each of the
        other runs; and the number of chains of the reference that were permuted.
    """
    group, train = _group(reference), reference.dataset().train
    with use_threads(_threads(group)):
        first, chains_moved = align_chains(reference.posterior, group, seed)
        aligned, contents = [first], []
        for run in others:
            posterior, moved = align_chains(run.posterior, group, seed)
            alignment = align(
                first,
                posterior,
                matching=matching,
                solver=solver,
                part=train,
                group=group,
                seed=seed,
            )
            aligned.append(alignment.apply(posterior))
            contents.append(
                {"run": str(run.path), **describe_alignment(alignment), "chains_moved_first": moved}
            )
    return aligned, contents, chains_moved


def align_chains(posterior: Posterior, group: SymmetryGroup, seed: int) -> tuple[Posterior, int]:
    """Align the chains of a posterior to one another.

    Args:
        posterior: the posterior.
        group: the symmetry group of its network.
        seed: the seed of the alignment.

    Returns:
        The aligned posterior, or the same one if it has no chains to align; and how many chains
        were permuted relative to the majority.
    """
    if not isinstance(posterior, SamplePosterior) or posterior.shape[0] == 1 or group.is_trivial:
        return posterior, 0
    aligned = align_samples(posterior, per="chain", null=False, group=group, seed=seed)
    return aligned.posterior, sum(
        not isinstance(p, Permutation) or not p.is_identity for p in aligned.permutations
    )


def align_jointly(
    runs: Sequence[Run], *, cost: JointCost = "w2", seed: int = 0
) -> tuple[list[Posterior], dict[str, Any]]:
    """Align the posteriors of several runs jointly, without a reference.

    Args:
        runs: comparable runs.
        cost: the matching cost.
        seed: the seed of the solver.

    Returns:
        The aligned posteriors, and a description of the alignment.
    """
    group = _group(runs[0])
    with use_threads(_threads(group)):
        posteriors = [align_chains(run.posterior, group, seed)[0] for run in runs]
        synchronization = synchronize(posteriors, cost=cost, group=group, seed=seed)
    return synchronization.apply(posteriors), describe_synchronization(synchronization)


def describe_alignment(alignment: Alignment) -> dict[str, Any]:
    """Return an alignment as plain data.

    The permutation lists the old index and the sign of every new unit, by group.

    Args:
        alignment: the alignment.
    """
    content = {
        field.name: getattr(alignment, field.name) for field in dataclasses.fields(alignment)
    }
    del content["group"]
    content["permutation"] = {
        name: index.tolist() for name, index in alignment.permutation.indices.items()
    }
    content["signs"] = {name: sign.tolist() for name, sign in alignment.permutation.signs.items()}
    movable = alignment.num_movable
    content["note"] = (
        f"{alignment.num_moved} of {movable} movable hidden units moved"
        if movable
        else f"there is nothing to align: {alignment.group.certificate}"
    )
    content["fixed_points"] = alignment.permutation.fixed_points()
    return content


def describe_synchronization(synchronization: Synchronization) -> dict[str, Any]:
    """Return the numbers of a joint alignment as plain data.

    Args:
        synchronization: the joint alignment.
    """
    content = {
        field.name: getattr(synchronization, field.name)
        for field in dataclasses.fields(synchronization)
    }
    del content["permutations"], content["group"]
    return {
        **content,
        "distance_before": synchronization.distance_before,
        "distance_after": synchronization.distance_after,
    }


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
    """Measure the barrier between two runs, or over the simplex of three or more.

    The naive barrier is always measured. With `path="line"`, the line from the initial value of
    each run to its mean is measured too, for any number of runs.

    Args:
        runs: comparable runs.
        aligned: whether the runs are aligned first.
        matching: the matching cost.
        path: the path between two posteriors.
        coupling: the coupling of their draws.
        curve_steps: optimization steps of a Bezier curve.
        num_draws: the number of draws of each posterior.
        seed: the seed of alignment, draws and curve.

    Returns:
        `height` and `standard_error` on the test split: the marginal NLL, its maximum over tau (or
        the simplex) relative to the chord (or the plane), after alignment if `aligned`; and all
        other results.

    Raises:
        ConfigError: if the path or the matching does not apply to the number of runs.
    """
    if path == "line":
        check_means(runs)
        if len(runs) != 2:
            return lines_from_initial(runs)
    if len(runs) > 2:
        _check_several(len(runs), path, matching)
    first, dataset = runs[0], runs[0].dataset()
    options = {"coupling": coupling, "num_draws": num_draws, "seed": seed}
    posteriors = [run.posterior for run in runs]
    content: dict[str, Any] = {"runs": [str(run.path) for run in runs], "aligned": aligned}
    if len(runs) == 2:
        pair, _ = pair_runs(
            runs[0],
            runs[1],
            aligned=aligned,
            matching=matching,
            path=path,
            curve_steps=curve_steps,
            **options,
        )
        return pair if path != "line" else lines_from_initial(runs) | pair
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


def _check_several(number: int, path: Path, matching: Matching) -> None:
    """Check that path and matching apply to more than two runs."""
    if path != "geodesic":
        raise ConfigError(
            f"--path {path} connects two runs, got {number}; name two, or use --path geodesic"
        )
    if matching not in ("w2", "means"):
        raise ConfigError(
            f"--matching {matching} is for two runs; three or more are aligned jointly by w2 or "
            "means"
        )


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
    """Measure the barrier between two runs, as `barrier_runs`, and return their posteriors.

    Args:
        first: the first run.
        second: the second run.
        aligned: whether the second run is aligned to the first.
        matching: the matching cost.
        path: the path between the two posteriors.
        coupling: the coupling of their draws.
        curve_steps: optimization steps of a Bezier curve.
        num_draws: the number of draws of each posterior.
        seed: the seed of alignment, draws and curve.

    Returns:
        The barrier as plain data, and the two posteriors, aligned if `aligned`.
    """

    def measured(start: Posterior, end: Posterior) -> tuple[Barrier, dict[str, Any]]:
        with use_threads(first.threads):
            result = barrier(start, end, dataset, **options)
            described = describe_barrier(result)
            if path == "line":
                described["shape"] = line_shapes(start, start.mean(), end.mean(), dataset)
        return result, described

    content: dict[str, Any] = {"runs": [str(first.path), str(second.path)], "aligned": aligned}
    posteriors, dataset = [first.posterior, second.posterior], first.dataset()
    options = {
        "coupling": coupling,
        "num_draws": num_draws,
        "seed": seed,
        "path": path,
        "curve_steps": curve_steps,
    }
    result, naive = measured(*posteriors)
    chosen = naive
    if aligned:
        posteriors, (content["alignment"],), _ = align_runs(
            first, [second], matching=matching, seed=seed
        )
        result, chosen = measured(*posteriors)
    described = {
        "height": result.height,
        "standard_error": result.standard_error,
        **content,
        "path": result.path,
        "num_draws": result.num_draws,
        **chosen,
        "naive": naive,
    }
    return described, posteriors


def describe_barrier(result: Barrier) -> dict[str, Any]:
    """Return the curves of both parts, and the loss of the second posterior, as plain data.

    Args:
        result: the barrier.
    """
    return {
        "test": dataclasses.asdict(result.test),
        "train": dataclasses.asdict(result.train),
        "end_nll": result.end_nll,
    }


def _pairs(
    posteriors: Sequence[Posterior], dataset: Any, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the heights of the barriers between all pairs."""
    rows = []
    for i, j in itertools.combinations(range(len(posteriors)), 2):
        result = barrier(posteriors[i], posteriors[j], dataset, **options)
        rows.append(
            {
                "first": i,
                "second": j,
                "height": result.height,
                "standard_error": result.standard_error,
            }
        )
    return rows


def _group(run: Run) -> SymmetryGroup:
    """Return the symmetry group of the network of a run."""
    return symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)


def _threads(group: SymmetryGroup) -> int:
    """Return the number of threads of an alignment."""
    largest = max((units.size for units in group.spec.groups.values()), default=0)
    return available_cores() if largest >= _LARGE else 1
