"""Measure barriers between runs: pairs, simplices and straight lines."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnn_symm.advice import advise, advise_setting
from bnn_symm.alignment import (
    ContinuousAlignment,
    Matching,
    align_continuous,
    check_symmetries,
)
from bnn_symm.analyses.alignment import (
    RunAlignment,
    align_jointly,
    align_runs,
    alignment_threads,
    group_of,
)
from bnn_symm.analyses.barrier_results import (
    LineBarrier,
    PairBarrier,
    PairHeight,
    SeveralBarrier,
    SimplexPairs,
)
from bnn_symm.analyses.monotonicity import check_means, line_shapes, lines_from_initial
from bnn_symm.data import Dataset
from bnn_symm.diagnostics import Barrier, barrier, simplex_barrier
from bnn_symm.diagnostics.barriers.barriers import Path
from bnn_symm.diagnostics.barriers.decomposition import (
    BarrierDecomposition,
    decompose_barrier,
    highest_position,
    mean_decomposition,
)
from bnn_symm.diagnostics.barriers.interpolation import Coupling
from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.errors import ConfigError
from bnn_symm.posteriors import Posterior
from bnn_symm.runs.run import Run
from bnn_symm.threads import use_threads


@dataclass(frozen=True, kw_only=True)
class BarrierOptions:
    """Hold what is measured between runs, and how.

    Attributes:
        aligned: whether the runs are aligned first.
        symmetries: `permutation`, and for two runs perhaps `scale` and `rotation`; the barrier is
            measured after each.
        matching: the matching cost.
        path: the path between two posteriors.
        coupling: the coupling of their draws.
        curve_steps: optimization steps of a Bezier curve.
        num_draws: the number of draws of each posterior.
        repair: whether the barrier is measured again with statistics that are reset along the path.
        temperature_scaling: whether the barrier is measured again with a temperature that is fitted
            on the validation split along the path.
        layers: whether the barrier of one layer at a time is measured too.
        decompose: whether the naive barrier is divided into shares of its causes.
        seed: the seed of alignment, draws and curve.
    """

    aligned: bool = True
    symmetries: Sequence[str] = ("permutation",)
    matching: Matching = "w2"
    path: Path = "geodesic"
    coupling: Coupling = "moment"
    curve_steps: int = 500
    num_draws: int = 50
    repair: bool = False
    temperature_scaling: bool = False
    layers: bool = False
    decompose: bool = False
    seed: int = 0


_DEFAULTS = BarrierOptions()
# Keys in which a control may differ from the second run.
_FREE_KEYS = ("seed", "initial_seed", "checkpoint", "save", "threads", "device")


def barrier_runs(
    runs: Sequence[Run], options: BarrierOptions = _DEFAULTS, control: Run | None = None
) -> PairBarrier | SeveralBarrier | LineBarrier:
    """Measure the barrier between two runs, or over the simplex of three or more.

    The naive barrier is always measured. With `path="line"`, the line from the initial value of
    each run to its mean is measured too, for any number of runs.

    Args:
        runs: comparable runs.
        options: what is measured.
        control: a run like the second one, from the initial values of the first, for the share of
            the initialization.

    Returns:
        The barrier, after alignment if it is requested, and the naive one.

    Raises:
        ConfigError: if an option does not apply to the number of runs, or the control is none.
    """
    _check_options(len(runs), options)
    if control is not None:
        _check_control(runs, control, options)
    if options.path == "line":
        check_means(runs)
        if len(runs) != 2:
            return LineBarrier(lines=lines_from_initial(runs))
    if len(runs) > 2:
        return _several_runs(runs, options)
    pair, _ = pair_runs(runs[0], runs[1], options, control)
    if options.path != "line":
        return pair
    return LineBarrier(lines=lines_from_initial(runs), pair=pair)


def _check_options(number: int, options: BarrierOptions) -> None:
    """Check that the options apply to a number of runs."""
    symmetries, path, matching = options.symmetries, options.path, options.matching
    if len(check_symmetries(symmetries)) > 1 and (number != 2 or not options.aligned):
        raise ConfigError(
            f"symmetries {','.join(symmetries)}: scales and rotations are aligned for two runs, "
            f"got {number} runs{'' if options.aligned else ' without alignment'}"
        )
    for name in ("repair", "temperature_scaling", "layers"):
        if getattr(options, name) and number != 2:
            flag = advise(f"--{name.replace('_', '-')}", f"{name}=True")
            raise ConfigError(f"{flag} is for two runs, got {number}; name two")
    if options.decompose and (path != "geodesic" or not options.aligned or number < 2):
        raise ConfigError(
            f"{advise('--decompose', 'decompose=True')} measures before and after the alignment of "
            "two or more runs, and replaces posteriors with their means itself; use it with the "
            f"alignment and {advise('--path geodesic', 'the geodesic path')}"
        )
    if number > 2 and path == "bezier":
        raise ConfigError(
            f"--path {path} connects two runs, got {number}; name two, or use --path geodesic"
        )
    if number > 2 and path == "geodesic" and matching not in ("w2", "means"):
        raise ConfigError(
            f"--matching {matching} is for two runs; three or more are aligned jointly by w2 or "
            "means"
        )


def _check_control(runs: Sequence[Run], control: Run, options: BarrierOptions) -> None:
    """Check that a run differs from the second one in its initial values, those of the first."""
    flag = advise("--same-start", "control")
    if len(runs) != 2 or not options.decompose:
        raise ConfigError(
            f"{flag} is for the shares of two runs; name two, with "
            f"{advise('--decompose', 'decompose=True')}"
        )
    first, second, own = (run.config for run in (*runs, control))
    start = first.seed_of_initial_values
    differing = [
        field.name
        for field in dataclasses.fields(own)
        if field.name not in _FREE_KEYS and getattr(own, field.name) != getattr(second, field.name)
    ]
    if differing:
        problem = f"differs from {runs[1].path} in {', '.join(differing)}"
    elif own.seed_of_initial_values != start:
        problem = f"has initial values of the seed {own.seed_of_initial_values}, not {start}"
    elif own.seed == first.seed:
        problem = f"has the seed of {runs[0].path}, {own.seed}"
    elif first.initial is not None or own.initial is not None:
        problem = "starts at another run"
    else:
        return
    raise ConfigError(
        f"{control.path} {problem}; {flag} takes a fit like {runs[1].path}, with its seed, from "
        f"the initial values of {runs[0].path}: {advise_setting(f'initial_seed={start}')}"
    )


def _several_runs(runs: Sequence[Run], options: BarrierOptions) -> SeveralBarrier:
    """Measure the barrier over the simplex of three or more runs."""
    dataset = runs[0].dataset()
    keywords = {
        "coupling": options.coupling,
        "num_draws": options.num_draws,
        "seed": options.seed,
    }

    def measured(posteriors: Sequence[Posterior]) -> SimplexPairs:
        with use_threads(runs[0].threads):
            return SimplexPairs(
                simplex=simplex_barrier(posteriors, dataset.test, **keywords),
                pairs=_pairs(posteriors, dataset, keywords),
            )

    ways, alignment = {"naive": measured([run.posterior for run in runs])}, None
    if options.aligned:
        cost = "means" if options.matching == "means" else "w2"
        moved, alignment = align_jointly(runs, cost=cost, seed=options.seed)
        ways["aligned"] = measured(moved)
    decomposition = None
    if options.decompose:
        pairs = itertools.combinations(range(len(runs)), 2)
        decomposition = mean_decomposition(
            {
                (i, j): _decomposed(align_pair(runs[i], runs[j], options), runs[i], options)
                for i, j in pairs
            }
        )
    return SeveralBarrier(
        runs=[str(run.path) for run in runs],
        ways=ways,
        alignment=alignment,
        decomposition=decomposition,
    )


def _decomposed(
    pair: "AlignedPair",
    first: Run,
    options: BarrierOptions,
    tau: float | None = None,
    control: "AlignedPair | None" = None,
) -> BarrierDecomposition:
    """Divide the barrier of an aligned pair into shares."""
    named = [name.rpartition("+ ")[2] for name in pair.ways]
    causes = ["permutation" if name == "aligned" else name for name in named]
    with use_threads(first.threads):
        return decompose_barrier(
            dict(zip(causes, pair.ways.values(), strict=True)),
            first.dataset(),
            control=None if control is None else list(control.ways.values())[-1],
            tau=tau,
            num_draws=options.num_draws,
            coupling=options.coupling,
            repair=options.repair,
            seed=options.seed,
        )


@dataclass(frozen=True, kw_only=True)
class AlignedPair:
    """Hold the posteriors of two runs before and after each alignment.

    Attributes:
        ways: the two posteriors by the keys of `PairBarrier.ways`, in this order.
        alignment: of the second run, if it was requested.
        continuous: alignments over scales and rotations by their name in `ways`.
    """

    ways: dict[str, tuple[Posterior, Posterior]]
    alignment: RunAlignment | None
    continuous: dict[str, ContinuousAlignment]


def pair_runs(
    first: Run, second: Run, options: BarrierOptions = _DEFAULTS, control: Run | None = None
) -> tuple[PairBarrier, list[Posterior]]:
    """Measure the barrier between two runs, as `barrier_runs`, and return their posteriors.

    Args:
        first: the first run.
        second: the second run.
        options: what is measured.
        control: as for `barrier_runs`.

    Returns:
        The barrier, and the two posteriors after the last alignment.
    """
    pair, dataset = align_pair(first, second, options), first.dataset()
    ways: dict[str, Barrier] = {}
    shapes: dict[str, dict[str, LineShape]] = {}
    with use_threads(first.threads):
        for way, (start, end) in pair.ways.items():
            ways[way] = barrier(
                start,
                end,
                dataset,
                coupling=options.coupling,
                num_draws=options.num_draws,
                seed=options.seed,
                path=options.path,
                curve_steps=options.curve_steps,
                repair=options.repair,
                temperature_scaling=options.temperature_scaling,
                layers=options.layers,
            )
            if options.path == "line":
                shapes[way] = line_shapes(
                    start, start.mean(), end.mean(), dataset, (start.model, end.model)
                )
    decomposition = None
    if options.decompose:
        naive = ways["naive"].test
        tau = highest_position(naive.tau, naive.marginal_nll)
        of_control = None if control is None else align_pair(first, control, options)
        decomposition = _decomposed(pair, first, options, tau, of_control)
    result = PairBarrier(
        runs=[str(first.path), str(second.path)],
        control=None if control is None else str(control.path),
        ways=ways,
        shapes=shapes,
        alignment=pair.alignment,
        continuous=pair.continuous,
        decomposition=decomposition,
    )
    return result, list(list(pair.ways.values())[-1])


def align_pair(first: Run, second: Run, options: BarrierOptions = _DEFAULTS) -> AlignedPair:
    """Align the second of two runs to the first, over one more symmetry at a time.

    Args:
        first: the first run.
        second: the second run.
        options: whether and how they are aligned.
    """
    ways, alignment = {"naive": (first.posterior, second.posterior)}, None
    continuous: dict[str, ContinuousAlignment] = {}
    if not options.aligned:
        return AlignedPair(ways=ways, alignment=None, continuous=continuous)
    (start, end), (alignment,), _ = align_runs(
        first, [second], matching=options.matching, seed=options.seed
    )
    ways["aligned"] = (start, end)
    chosen = check_symmetries(options.symmetries)
    for number in range(2, len(chosen) + 1):
        group, way = group_of(first), "".join(f"+ {name} " for name in chosen[1:number]).strip()
        with use_threads(alignment_threads(group)):
            continuous[way] = align_continuous(
                start,
                end,
                chosen[:number],
                first=group.spec.identity(),
                group=group,
                seed=options.seed,
            )
        ways[way] = (start, continuous[way].apply(end))
    return AlignedPair(ways=ways, alignment=alignment, continuous=continuous)


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
