"""Align runs and measure barriers between them: the results of both commands."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bnn_symm.advice import advise
from bnn_symm.alignment import (
    Alignment,
    ContinuousAlignment,
    JointCost,
    Matching,
    Solver,
    Synchronization,
    align,
    align_continuous,
    align_samples,
    check_symmetries,
    synchronize,
)
from bnn_symm.analyses.monotonicity import (
    check_means,
    line_shapes,
    lines_from_initial,
)
from bnn_symm.data import Dataset
from bnn_symm.diagnostics import Barrier, barrier, simplex_barrier
from bnn_symm.diagnostics.barriers.barriers import Path
from bnn_symm.diagnostics.barriers.interpolation import Coupling
from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.diagnostics.barriers.simplex import SimplexBarrier
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior, SamplePosterior
from bnn_symm.runs.run import Run
from bnn_symm.summaries import Result, plain
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from bnn_symm.threads import available_cores, use_threads

# Width from which the matrix products of an alignment are large enough for all cores.
_LARGE = 512


@dataclass(frozen=True, kw_only=True)
class RunAlignment:
    """Hold the alignment of a run to the reference.

    Attributes:
        run: the path of the run.
        alignment: the alignment of its posterior.
        chains_moved_first: the number of its chains that were permuted before.
        continuous: its alignment over scales and rotations too, if it was requested.
    """

    run: str
    alignment: Alignment
    chains_moved_first: int
    continuous: ContinuousAlignment | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the alignment of the run as JSON types."""
        return {
            "run": self.run,
            **self.alignment.to_dict(),
            "chains_moved_first": self.chains_moved_first,
            **({"continuous": self.continuous.to_dict()} if self.continuous else {}),
        }


@dataclass(frozen=True, kw_only=True)
class PairBarrier:
    """Hold the barrier between two runs.

    Attributes:
        runs: the paths of the runs.
        ways: the barrier before alignment (`naive`), after it (`aligned`), if it was requested, and
            after the alignment of scales and rotations too (`+ scale`, `+ scale + rotation`).
        shapes: shapes of the lines between the means by split, for each of `ways`, or nothing.
        alignment: of the second run, if it was requested.
        continuous: alignments over scales and rotations by their name in `ways`, after `alignment`.
    """

    runs: list[str]
    ways: dict[str, Barrier]
    shapes: dict[str, dict[str, LineShape]]
    alignment: RunAlignment | None
    continuous: dict[str, ContinuousAlignment] = field(default_factory=dict)

    @property
    def chosen(self) -> Barrier:
        """Return the barrier after alignment over all symmetries that were requested."""
        return list(self.ways.values())[-1]

    def to_dict(self) -> dict[str, Any]:
        """Return the barrier as JSON types, that after alignment first."""
        naive, *_, chosen = [
            plain({key: getattr(own, key) for key in ("test", "train", "end_nll")})
            | ({"repaired": own.repaired.to_dict()} if own.repaired else {})
            | ({"shape": plain(self.shapes[way])} if self.shapes else {})
            for way, own in [("naive", self.ways["naive"]), *self.ways.items()]
        ]
        return {
            "height": self.chosen.height,
            "standard_error": self.chosen.standard_error,
            "runs": self.runs,
            "aligned": "aligned" in self.ways,
            **({"alignment": self.alignment.to_dict()} if self.alignment else {}),
            "ways": {
                way: {"height": own.height, "standard_error": own.standard_error}
                for way, own in self.ways.items()
            },
            "continuous": {way: own.to_dict() for way, own in self.continuous.items()},
            "path": self.chosen.path,
            "num_draws": self.chosen.num_draws,
            **chosen,
            "naive": naive,
        }


@dataclass(frozen=True, kw_only=True)
class PairHeight(Result):
    """Hold the height of the barrier between two of several runs, by their positions."""

    first: int
    second: int
    height: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class SimplexPairs(Result):
    """Hold the loss over the simplex of several posteriors, and the barrier of each pair."""

    simplex: SimplexBarrier
    pairs: list[PairHeight]


@dataclass(frozen=True, kw_only=True)
class SeveralBarrier:
    """Hold the barrier over the simplex of several runs; see `PairBarrier`."""

    runs: list[str]
    ways: dict[str, SimplexPairs]
    alignment: Synchronization | None

    @property
    def chosen(self) -> SimplexPairs:
        """Return the barrier after alignment, if it was requested."""
        return self.ways.get("aligned", self.ways["naive"])

    def to_dict(self) -> dict[str, Any]:
        """Return the barrier as JSON types, that after alignment first."""
        return {
            "height": self.chosen.simplex.height,
            "standard_error": None,
            "centroid": self.chosen.simplex.centroid,
            "path": self.chosen.simplex.path,
            "runs": self.runs,
            "aligned": "aligned" in self.ways,
            "naive": self.ways["naive"].to_dict(),
            **self.chosen.to_dict(),
            **({"alignment": self.alignment.to_dict()} if self.alignment else {}),
        }


@dataclass(frozen=True, kw_only=True)
class LineBarrier:
    """Hold the losses on straight lines.

    Attributes:
        lines: the path of each run, and the shape of the line from its initial value by split.
        pair: the barrier between the means of two runs.
    """

    lines: list[tuple[str, dict[str, LineShape]]]
    pair: PairBarrier | None = None

    @property
    def percent_monotone(self) -> dict[str, float]:
        """Return the percentage of the runs with a monotone line, by split."""
        monotone = {
            part: sum(shapes[part].is_monotone for _, shapes in self.lines)
            for part in ("test", "train")
        }
        return {part: 100 * number / len(self.lines) for part, number in monotone.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the losses as JSON types, with the height of the pair where there is one."""
        return {
            "height": max(shapes["test"].height for _, shapes in self.lines),
            "standard_error": None,
            "runs": [run for run, _ in self.lines],
            "aligned": False,
            "path": "straight line",
            "from_initial": [{"run": run, **plain(shapes)} for run, shapes in self.lines],
            "percent_monotone": self.percent_monotone,
        } | (self.pair.to_dict() if self.pair else {})


def align_runs(
    reference: Run,
    others: Sequence[Run],
    *,
    matching: Matching = "w2",
    solver: Solver = "auto",
    symmetries: Sequence[str] = ("permutation",),
    seed: int = 0,
) -> tuple[list[Posterior], list[RunAlignment], int]:
    """Align the posteriors of runs to that of a reference.

    Chains of draws and members of ensembles, also those of the reference, are first aligned to one
    another: the mean over several modes is not a meaningful target.

    Args:
        reference: the run to align to.
        others: the runs to align.
        matching: the matching cost.
        solver: the solver.
        symmetries: `permutation`, and perhaps `scale` and `rotation`.
        seed: the seed of the solver.

    Returns:
        The posteriors, that of the reference first; the alignment of each of the other runs; and
        the number of chains of the reference that were permuted.
    """
    chosen = check_symmetries(symmetries)
    group, train = _group(reference), reference.dataset().train
    with use_threads(_threads(group)):
        first, chains_moved = align_chains(reference.posterior, group, seed)
        aligned, alignments = [first], []
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
            continuous = None
            if len(chosen) > 1:
                continuous = align_continuous(
                    first, posterior, chosen, first=alignment.permutation, group=group, seed=seed
                )
            aligned.append((continuous or alignment).apply(posterior))
            alignments.append(
                RunAlignment(
                    run=str(run.path),
                    alignment=alignment,
                    chains_moved_first=moved,
                    continuous=continuous,
                )
            )
    return aligned, alignments, chains_moved


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
    if posterior.model.statistics:  # all chains of a posterior share them, so they stay in place
        group = symmetry_group(posterior.model.net, group.spec)
        if group.is_trivial:
            return posterior, 0
    aligned = align_samples(posterior, per="chain", null=False, group=group, seed=seed)
    return aligned.posterior, sum(
        not isinstance(p, Permutation) or not p.is_identity for p in aligned.permutations
    )


def align_jointly(
    runs: Sequence[Run], *, cost: JointCost = "w2", seed: int = 0
) -> tuple[list[Posterior], Synchronization]:
    """Align the posteriors of several runs jointly, without a reference.

    Args:
        runs: comparable runs.
        cost: the matching cost.
        seed: the seed of the solver.

    Returns:
        The aligned posteriors, and the alignment.
    """
    group = _group(runs[0])
    with use_threads(_threads(group)):
        posteriors = [align_chains(run.posterior, group, seed)[0] for run in runs]
        synchronization = synchronize(posteriors, cost=cost, group=group, seed=seed)
    return synchronization.apply(posteriors), synchronization


def barrier_runs(
    runs: Sequence[Run],
    *,
    aligned: bool = True,
    symmetries: Sequence[str] = ("permutation",),
    matching: Matching = "w2",
    path: Path = "geodesic",
    coupling: Coupling = "moment",
    curve_steps: int = 500,
    num_draws: int = 50,
    repair: bool = False,
    seed: int = 0,
) -> PairBarrier | SeveralBarrier | LineBarrier:
    """Measure the barrier between two runs, or over the simplex of three or more.

    The naive barrier is always measured. With `path="line"`, the line from the initial value of
    each run to its mean is measured too, for any number of runs.

    Args:
        runs: comparable runs.
        aligned: whether the runs are aligned first.
        symmetries: `permutation`, and for two runs perhaps `scale` and `rotation`.
        matching: the matching cost.
        path: the path between two posteriors.
        coupling: the coupling of their draws.
        curve_steps: optimization steps of a Bezier curve.
        num_draws: the number of draws of each posterior.
        repair: whether the barrier is measured again with statistics that are reset along the path.
        seed: the seed of alignment, draws and curve.

    Returns:
        The barrier, after alignment if `aligned`, and the naive one.

    Raises:
        ConfigError: if the path or the matching does not apply to the number of runs.
    """
    if len(check_symmetries(symmetries)) > 1 and (len(runs) != 2 or not aligned):
        raise ConfigError(
            f"symmetries {','.join(symmetries)}: scales and rotations are aligned for two runs, "
            f"got {len(runs)} runs{'' if aligned else ' without alignment'}"
        )
    if repair and len(runs) != 2:
        raise ConfigError(
            f"{advise('--repair', 'repair=True')} is for two runs, got {len(runs)}; name two"
        )
    if path == "line":
        check_means(runs)
        if len(runs) != 2:
            return LineBarrier(lines=lines_from_initial(runs))
    if len(runs) > 2:
        _check_several(len(runs), path, matching)
    first, dataset = runs[0], runs[0].dataset()
    options = {"coupling": coupling, "num_draws": num_draws, "seed": seed}
    if len(runs) == 2:
        pair, _ = pair_runs(
            runs[0],
            runs[1],
            aligned=aligned,
            symmetries=symmetries,
            matching=matching,
            path=path,
            curve_steps=curve_steps,
            repair=repair,
            **options,
        )
        return pair if path != "line" else LineBarrier(lines=lines_from_initial(runs), pair=pair)

    def measured(posteriors: Sequence[Posterior]) -> SimplexPairs:
        with use_threads(first.threads):
            return SimplexPairs(
                simplex=simplex_barrier(posteriors, dataset.test, **options),
                pairs=_pairs(posteriors, dataset, options),
            )

    ways, alignment = {"naive": measured([run.posterior for run in runs])}, None
    if aligned:
        cost = "means" if matching == "means" else "w2"
        moved, alignment = align_jointly(runs, cost=cost, seed=seed)
        ways["aligned"] = measured(moved)
    return SeveralBarrier(runs=[str(run.path) for run in runs], ways=ways, alignment=alignment)


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
    symmetries: Sequence[str] = ("permutation",),
    matching: Matching = "w2",
    path: Path = "geodesic",
    coupling: Coupling = "moment",
    curve_steps: int = 500,
    num_draws: int = 50,
    repair: bool = False,
    seed: int = 0,
) -> tuple[PairBarrier, list[Posterior]]:
    """Measure the barrier between two runs, as `barrier_runs`, and return their posteriors.

    Args:
        first: the first run.
        second: the second run.
        aligned: whether the second run is aligned to the first.
        symmetries: `permutation`, and perhaps `scale` and `rotation`; the barrier is measured after
            each.
        matching: the matching cost.
        path: the path between the two posteriors.
        coupling: the coupling of their draws.
        curve_steps: optimization steps of a Bezier curve.
        num_draws: the number of draws of each posterior.
        repair: whether the barrier is measured again with statistics that are reset along the path.
        seed: the seed of alignment, draws and curve.

    Returns:
        The barrier, and the two posteriors, aligned if `aligned`.
    """

    def measure(way: str, start: Posterior, end: Posterior) -> None:
        with use_threads(first.threads):
            ways[way] = barrier(
                start,
                end,
                dataset,
                coupling=coupling,
                num_draws=num_draws,
                seed=seed,
                path=path,
                curve_steps=curve_steps,
                repair=repair,
            )
            if path == "line":
                shapes[way] = line_shapes(
                    start, start.mean(), end.mean(), dataset, (start.model, end.model)
                )

    posteriors, dataset, alignment = [first.posterior, second.posterior], first.dataset(), None
    ways: dict[str, Barrier] = {}
    shapes: dict[str, dict[str, LineShape]] = {}
    measure("naive", *posteriors)
    if aligned:
        posteriors, (alignment,), _ = align_runs(first, [second], matching=matching, seed=seed)
        measure("aligned", *posteriors)
    continuous: dict[str, ContinuousAlignment] = {}
    chosen, (start, end) = check_symmetries(symmetries), posteriors
    for number in range(2, len(chosen) + 1) if aligned else ():
        group, way = _group(first), "".join(f"+ {name} " for name in chosen[1:number]).strip()
        with use_threads(_threads(group)):
            identity = group.spec.identity()
            continuous[way] = align_continuous(
                start, end, chosen[:number], first=identity, group=group, seed=seed
            )
        posteriors = [start, continuous[way].apply(end)]
        measure(way, *posteriors)
    runs = [str(first.path), str(second.path)]
    pair = PairBarrier(
        runs=runs, ways=ways, shapes=shapes, alignment=alignment, continuous=continuous
    )
    return pair, posteriors


def _pairs(
    posteriors: Sequence[Posterior], dataset: Dataset, options: dict[str, Any]
) -> list[PairHeight]:
    """Return the heights of the barriers between all pairs."""
    pairs = itertools.combinations(range(len(posteriors)), 2)
    results = {(i, j): barrier(posteriors[i], posteriors[j], dataset, **options) for i, j in pairs}
    return [
        PairHeight(first=i, second=j, height=own.height, standard_error=own.standard_error)
        for (i, j), own in results.items()
    ]


def _group(run: Run) -> SymmetryGroup:
    """Return the permutations that map the network of a run to one that computes the same."""
    return symmetry_group(
        run.model.net, input_shape=run.preprocessing.input_shape, move_statistics=True
    )


def _threads(group: SymmetryGroup) -> int:
    """Return the number of threads of an alignment."""
    largest = max((units.size for units in group.spec.groups.values()), default=0)
    return available_cores() if largest >= _LARGE else 1
