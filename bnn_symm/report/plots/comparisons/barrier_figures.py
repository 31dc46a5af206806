"""Draw the figures of `bnn-symm barrier`."""

from pathlib import Path

from bnn_symm.analyses.barrier_results import LineBarrier, PairBarrier, SeveralBarrier
from bnn_symm.analyses.sequence_results import SequenceBarrier
from bnn_symm.formatting import number
from bnn_symm.report.plots.comparisons.barrier_shares import plot_layers, plot_shares
from bnn_symm.report.plots.comparisons.barriers import plot_barrier_curves, plot_simplex
from bnn_symm.report.plots.comparisons.matrices import barrier_matrix_figure
from bnn_symm.report.plots.comparisons.monotonicity import plot_line_shapes
from bnn_symm.report.plots.comparisons.sequences import plot_sequences
from bnn_symm.report.plots.figures.png import save_png
from bnn_symm.report.text.barriers import named_lines, run_names


def draw_barrier(
    result: PairBarrier | SeveralBarrier | LineBarrier | SequenceBarrier, folder: Path
) -> list[Path]:
    """Draw the figures of a barrier.

    Args:
        result: of `barrier_runs` or `barrier_sequences`.
        folder: of the figures.

    Returns:
        The paths of the figures.
    """
    folder.mkdir(exist_ok=True)
    if isinstance(result, SequenceBarrier):
        path = folder / "sequence.png"
        plot_sequences(result, path)
        return [path]
    if isinstance(result, LineBarrier):
        path = folder / "lines.png"
        plot_line_shapes(named_lines(result), path, title="along straight lines")
        return [*(_draw_pair(result.pair, folder) if result.pair else []), path]
    if isinstance(result, PairBarrier):
        return _draw_pair(result, folder)
    labels, ways, paths = run_names(result), result.ways, [folder / "pairs.png"]
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
    if result.decomposition:
        paths.append(folder / "decomposition.png")
        own = result.decomposition
        title = f"mean over the pairs of {own.num_runs} runs"
        plot_shares(own.barrier, own.shares, paths[-1], title=title)
    return paths


def _draw_pair(result: PairBarrier, folder: Path) -> list[Path]:
    paths = [folder / "barrier.png"]
    names = " to ".join(run_names(result))
    title = f"{names} ({result.chosen.path} path)"
    curves = {name: own.test for name, own in result.ways.items()}
    scaled = {
        name: own.temperature_scaled.test
        for name, own in result.ways.items()
        if own.temperature_scaled
    }
    plot_barrier_curves(curves, paths[0], title=title, scaled=scaled)
    layers = {name: own.layers for name, own in result.ways.items() if own.layers}
    if layers:
        paths.append(folder / "layers.png")
        plot_layers(layers, paths[-1], title=title)
    if result.decomposition:
        paths.append(folder / "decomposition.png")
        own = result.decomposition
        title = f"{names}, barrier at tau = {number(own.tau)}"
        plot_shares(own.barrier, own.shares, paths[-1], title=title)
    return paths
