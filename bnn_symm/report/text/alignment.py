"""Format and draw the results of `bnn-symm align` and `bnn-symm barrier`."""

from collections.abc import Sequence
from pathlib import Path

from bnn_symm.alignment import ContinuousAlignment
from bnn_symm.analyses.alignment import RunAlignment
from bnn_symm.analyses.barriers import LineBarrier, PairBarrier, SeveralBarrier
from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.formatting import count, number, with_error
from bnn_symm.report.plots.comparisons.barriers import plot_barrier_curves, plot_simplex
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.comparisons.monotonicity import plot_line_shapes
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.text.tables import table


def alignment_text(alignments: Sequence[RunAlignment]) -> str:
    """Return a table with one row per aligned run and the distances of the baselines.

    Args:
        alignments: of the runs.

    Returns:
        The text.
    """
    every = {Path(own.run).name: own.alignment for own in alignments}
    rows = [
        [
            name,
            own.solver,
            own.distance_random,
            own.distance_before,
            own.distance_after,
            f"{own.num_moved} of {own.num_movable}",
            own.function_difference,
        ]
        for name, own in every.items()
    ]
    header = ["run", "solver", "random", "unaligned", "aligned", "units moved", "change of outputs"]
    title = f"squared distance to the reference ({alignments[0].alignment.matching})"
    notes = [f"{name}: {own.note}" for name, own in every.items() if not own.num_movable]
    notes += [
        f"{Path(own.run).name}: {continuous_text(own.continuous)}"
        for own in alignments
        if own.continuous
    ]
    return "\n".join([title, table(header, rows), *notes])


def continuous_text(own: ContinuousAlignment) -> str:
    """Return the distances before and after an alignment over scales and rotations.

    Args:
        own: the alignment.

    Returns:
        One line.
    """
    compared = "means" if own.compared == "means" else "means and standard deviations"
    return (
        f"{' + '.join(own.symmetries)}: squared distance of {compared} "
        f"{number(own.distance_before, 4)}, permuted {number(own.distance_permutation, 4)}, "
        f"aligned {number(own.distance_after, 4)}"
    )


_PARTS = ("test", "train")


def barrier_text(result: PairBarrier | SeveralBarrier | LineBarrier) -> str:
    """Return the heights of barriers in all conventions, or the shapes of straight lines.

    Args:
        result: of `barrier_runs`.

    Returns:
        The text.
    """
    if isinstance(result, SeveralBarrier):
        return _simplex_text(result)
    if isinstance(result, PairBarrier):
        return _pair_text(result)
    texts = [_pair_text(result.pair)] if result.pair else []
    return "\n\n".join([*texts, _line_shapes_text(result)])


def _line_shapes_text(result: LineBarrier) -> str:
    rows = []
    for name, shapes in _lines(result).items():
        for part, own in shapes.items():
            numbers = (own.delta, own.local_convexity, own.global_convexity, own.height)
            rows.append([name, part, "yes" if own.is_monotone else "no", *numbers])
    header = [
        "line",
        "part",
        "monotone",
        "largest rise",
        "locally convex",
        "below the chord",
        "height",
    ]
    share = result.percent_monotone
    return (
        f"NLL of weights on straight lines, nats per point\n{table(header, rows)}\n"
        f"monotone from the initial value: {number(share['test'])} % of {len(result.lines)} "
        f"on the test split, {number(share['train'])} % on the training split"
    )


def _lines(result: LineBarrier) -> dict[str, dict[str, LineShape]]:
    """Return the shape of each line, by its name and the split of the data."""
    lines = {f"initial value to {Path(run).name}": shapes for run, shapes in result.lines}
    if result.pair:
        names = " to ".join(_names(result.pair))
        lines |= {f"{names}, {way}": own for way, own in result.pair.shapes.items()}
    return lines


def _simplex_text(result: SeveralBarrier) -> str:
    rows = [
        [name, own.simplex.height, own.simplex.centroid, max(pair.height for pair in own.pairs)]
        for name, own in result.ways.items()
    ]
    return (
        f"marginal test NLL above the plane through {len(result.runs)} posteriors, nats "
        f"per point ({result.chosen.simplex.path} path)\n"
        f"{table(['', 'simplex', 'centroid', 'worst pair'], rows)}"
    )


def _pair_text(result: PairBarrier) -> str:
    rows = []
    for name, own in result.ways.items():
        curves = [("test", own.test), ("train", own.train)]
        if own.repaired:
            curves += [(f"{part}, repaired", getattr(own.repaired, part)) for part in _PARTS]
        for part, curve in curves:
            height = with_error(curve.height, curve.standard_error)
            others = (curve.above_mean, curve.midpoint, curve.expected_height)
            rows.append([name, part, height, *others, curve.error_height, curve.mixture_height])
    header = ["", "part", "height", "above mean", "midpoint", "expected NLL", "error", "mixture"]
    draws = count(result.chosen.num_draws, "draw")
    lines = [f"marginal NLL above the chord, nats per point ({result.chosen.path} path, {draws})"]
    lines.append(table(header, rows))
    if result.alignment:
        own = result.alignment.alignment
        lines.append(
            f"alignment: {own.note}; {own.solver}, squared distance "
            f"{number(own.distance_before, 4)} -> {number(own.distance_after, 4)} (random "
            f"{number(own.distance_random, 4)})"
        )
    lines += [continuous_text(own) for own in result.continuous.values()]
    lines.append(
        "+- is the standard error over draws and points, given these two fits; it is not an "
        "interval over seeds"
    )
    return "\n".join(lines)


def draw_barrier(result: PairBarrier | SeveralBarrier | LineBarrier, folder: Path) -> list[Path]:
    """Draw the figures of a barrier.

    Args:
        result: of `barrier_runs`.
        folder: of the figures.

    Returns:
        The paths of the figures.
    """
    folder.mkdir(exist_ok=True)
    if isinstance(result, LineBarrier):
        path = folder / "lines.png"
        plot_line_shapes(_lines(result), path, title="along straight lines")
        return [*([_draw_pair(result.pair, folder)] if result.pair else []), path]
    if isinstance(result, PairBarrier):
        return [_draw_pair(result, folder)]
    labels, ways, paths = _names(result), result.ways, [folder / "pairs.png"]
    heights = {
        way: [(pair.first, pair.second, pair.height) for pair in ways[way].pairs]
        if way in ways
        else []
        for way in ("naive", "aligned")
    }
    matrix = {"label": "marginal test NLL above the chord", "names": labels, **heights}
    matrix["seeds"] = range(len(labels))
    save_png(barrier_matrix_figure([matrix], name="run"), paths[0])
    if len(labels) == 3:
        paths.append(folder / "simplex.png")
        simplexes = {name: own.simplex for name, own in ways.items()}
        plot_simplex(simplexes, labels, paths[1], title="between three posteriors")
    return paths


def _draw_pair(result: PairBarrier, folder: Path) -> Path:
    path = folder / "barrier.png"
    title = f"{' to '.join(_names(result))} ({result.chosen.path} path)"
    plot_barrier_curves({n: own.test for n, own in result.ways.items()}, path, title=title)
    return path


def _names(result: PairBarrier | SeveralBarrier) -> list[str]:
    return [Path(run).name for run in result.runs]
