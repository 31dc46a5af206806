"""Aligning runs and measuring barriers between them, as plain data: the content of the commands' JSON."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from bnn_symm.alignment import Alignment, Matching, Synchronization, align, synchronize
from bnn_symm.diagnostics import Barrier, barrier, simplex_barrier
from bnn_symm.diagnostics.interpolation import Coupling
from bnn_symm.diagnostics.simplex import SimplexBarrier
from bnn_symm.experiments.stored_run import Run
from bnn_symm.posteriors import Posterior
from bnn_symm.symmetry import SymmetryGroup, symmetry_group
from bnn_symm.threads import available_cores, use_threads

# Units a layer from which matrix products of an alignment are large enough for all cores.
_LARGE = 256


def align_runs(
    reference: Run, others: Sequence[Run], *, matching: Matching = "w2", seed: int = 0
) -> tuple[list[Posterior], list[dict[str, Any]]]:
    """Each of the other runs' posteriors aligned to the reference's; and what `alignment.json` says of each."""
    group, train = _group(reference), reference.dataset().train
    aligned, contents = [], []
    for run in others:
        with use_threads(_threads(group)):
            found = align(reference.posterior, run.posterior, matching=matching, part=train, group=group, seed=seed)
        aligned.append(found.apply(run.posterior))
        contents.append({"run": str(run.path), **describe_alignment(found)})
    return aligned, contents


def align_jointly(runs: Sequence[Run], *, seed: int = 0) -> tuple[list[Posterior], dict[str, Any]]:
    """The posteriors of several runs aligned through a universe, which prefers none; and how that went."""
    group = _group(runs[0])
    posteriors = [run.posterior for run in runs]
    with use_threads(_threads(group)):
        found = synchronize(posteriors, group=group, seed=seed)
    return found.apply(posteriors), describe_synchronization(found)


def describe_alignment(found: Alignment) -> dict[str, Any]:
    """Everything of an alignment but the permutation itself."""
    own = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    del own["permutation"], own["group"]
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
    return {
        "objective_before": found.objective_before,
        "objective_after": found.objective_after,
        "sweeps": found.sweeps,
        "num_moved": [permutation.num_moved for permutation in found.permutations],
    }


def barrier_runs(
    runs: Sequence[Run],
    *,
    aligned: bool = True,
    matching: Matching = "w2",
    coupling: Coupling = "moment",
    num_draws: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """The barrier between two runs, or over the simplex of three or more; naive, and aligned unless that is not wanted.

    Returns:
        `height` and `standard_error` on the test part, marginal NLL, maximum over tau (or the simplex) against the
        chord (or the plane), with the alignment if `aligned`; and everything else beside them.
    """
    first, dataset = runs[0], runs[0].dataset()
    options = {"coupling": coupling, "num_draws": num_draws, "seed": seed}
    posteriors = [run.posterior for run in runs]
    content: dict[str, Any] = {"runs": [str(run.path) for run in runs], "aligned": aligned}
    if len(runs) == 2:
        with use_threads(first.threads):
            naive = barrier(posteriors[0], posteriors[1], dataset, **options)
        chosen = naive
        if aligned:
            (moved,), (alignment,) = align_runs(first, runs[1:], matching=matching, seed=seed)
            with use_threads(first.threads):
                chosen = barrier(posteriors[0], moved, dataset, **options)
            content["alignment"] = alignment
        return {
            "height": chosen.height,
            "standard_error": chosen.standard_error,
            **content,
            "path": chosen.path,
            "num_draws": chosen.num_draws,
            **describe_barrier(chosen),
            "naive": describe_barrier(naive),
        }
    with use_threads(first.threads):
        naive_simplex = simplex_barrier(posteriors, dataset.test, **options)
        content["naive"] = {
            "simplex": dataclasses.asdict(naive_simplex),
            "pairs": _pairs(posteriors, dataset, options),
        }
    chosen_simplex: SimplexBarrier = naive_simplex
    content["simplex"], content["pairs"] = content["naive"]["simplex"], content["naive"]["pairs"]
    if aligned:
        moved, content["alignment"] = align_jointly(runs, seed=seed)
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


def describe_barrier(found: Barrier) -> dict[str, Any]:
    """The curves of both parts, and the second posterior's own loss."""
    return {
        "test": dataclasses.asdict(found.test),
        "train": dataclasses.asdict(found.train),
        "end_nll": found.end_nll,
    }


def _pairs(posteriors: Sequence[Posterior], dataset: Any, options: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for i, j in itertools.combinations(range(len(posteriors)), 2):
        found = barrier(posteriors[i], posteriors[j], dataset, **options)
        rows.append({"first": i, "second": j, "height": found.height, "standard_error": found.standard_error})
    return rows


def _group(run: Run) -> SymmetryGroup:
    return symmetry_group(run.model.net, input_shape=run.preprocessing.input_shape)


def _threads(group: SymmetryGroup) -> int:
    largest = max((one.size for one in group.spec.groups.values()), default=0)
    return available_cores() if largest >= _LARGE else 1
