"""Format the results of `bnn-symm barrier`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bnn_symm.analyses.barrier_results import LineBarrier, PairBarrier, SeveralBarrier
from bnn_symm.analyses.sequence_results import SequenceBarrier
from bnn_symm.diagnostics.barriers.barriers import Barrier
from bnn_symm.diagnostics.barriers.curves import above_chord
from bnn_symm.diagnostics.barriers.decomposition import (
    BarrierDecomposition,
    BarrierShare,
    MeanDecomposition,
)
from bnn_symm.diagnostics.barriers.layerwise import LayerBarrier, LayerHeight
from bnn_symm.diagnostics.barriers.monotonicity import LineShape
from bnn_symm.diagnostics.barriers.temperature_scaled import TemperatureScaledBarrier, is_bounded
from bnn_symm.formatting import count, listed, number, percent, with_error
from bnn_symm.report.text.alignment import continuous_text
from bnn_symm.report.text.sequences import sequence_barrier_text
from bnn_symm.report.text.tables import table

_PARTS = ("test", "train")
_UNDETERMINED = (
    "because all validation points are classified right or none are; fit with a larger "
    "data.validation_fraction"
)


def barrier_text(result: PairBarrier | SeveralBarrier | LineBarrier | SequenceBarrier) -> str:
    """Return the heights of barriers in all conventions, or the shapes of straight lines.

    Args:
        result: of `barrier_runs` or `barrier_sequences`.

    Returns:
        The text.
    """
    if isinstance(result, SequenceBarrier):
        return sequence_barrier_text(result)
    if isinstance(result, SeveralBarrier):
        return _simplex_text(result)
    if isinstance(result, PairBarrier):
        return _pair_text(result)
    texts = [_pair_text(result.pair)] if result.pair else []
    return "\n\n".join([*texts, _line_shapes_text(result)])


def _line_shapes_text(result: LineBarrier) -> str:
    rows = []
    for name, shapes in named_lines(result).items():
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


def _simplex_text(result: SeveralBarrier) -> str:
    rows = [
        [name, own.simplex.height, own.simplex.centroid, max(pair.height for pair in own.pairs)]
        for name, own in result.ways.items()
    ]
    return (
        f"marginal test NLL above the plane through {len(result.runs)} posteriors, nats "
        f"per point ({result.chosen.simplex.path} path)\n"
        f"{table(['', 'simplex', 'centroid', 'worst pair'], rows)}"
    ) + (f"\n\n{_mean_shares_text(result.decomposition)}" if result.decomposition else "")


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
        if own.temperature_scaled:
            for part in _PARTS:
                scaled = getattr(own.temperature_scaled, part)
                height = with_error(scaled.height, scaled.standard_error)
                label = f"{part}, temperature scaled"
                rows.append([name, label, height, scaled.above_mean, scaled.midpoint, *[None] * 3])
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
    lines += [
        _confidence_text(way, own, own.temperature_scaled)
        for way, own in result.ways.items()
        if own.temperature_scaled
    ]
    lines += [
        f"\n{_layers_text(way, own.layers)}" for way, own in result.ways.items() if own.layers
    ]
    if result.decomposition:
        lines.append(f"\n{_decomposition_text(result.decomposition)}\n")
    lines.append(
        "+- is the standard error over draws and points, given these two fits; it is not an "
        "interval over seeds"
    )
    return "\n".join(lines)


def _confidence_text(way: str, own: Barrier, scaled: TemperatureScaledBarrier) -> str:
    """Return how much of a barrier is too much or too little confidence."""
    curve = scaled.test
    above = above_chord(own.test.tau, own.test.marginal_nll)
    highest = own.test.tau[above.index(max(above))]
    nearest = min(range(len(curve.tau)), key=lambda i: abs(curve.tau[i] - highest))
    top = curve.temperature[nearest]
    ends = f"{number(curve.temperature[0])} and {number(curve.temperature[-1])}"
    fitted = (
        f"temperature {number(top)} at the top, {ends} at the ends, fitted on "
        f"{count(scaled.points, 'validation point')}"
    )
    height = with_error(own.height, own.standard_error)
    if own.height <= 2 * own.standard_error:
        return f"confidence, {way}: no barrier to explain ({height}); {fitted}"
    share = percent(1 - curve.height / own.height)
    if 2 * curve.standard_error >= own.height:  # any share is within the errors
        share = "an undetermined share"
    rest = with_error(curve.height, curve.standard_error)
    text = (
        f"confidence, {way}: {share} of the barrier of {height} (it remains {rest} after "
        f"temperature scaling); {fitted}"
    )
    if scaled.num_bounded:
        text += (
            f"; at {scaled.num_bounded} of {count(len(curve.tau), 'position')} the fit is at an "
            f"end of its range, {_UNDETERMINED}"
        )
    return text


def _layers_text(way: str, layers: Sequence[LayerBarrier]) -> str:
    """Return the barriers of layers as a table."""
    heights = ("at_first", "at_second", "cumulative")
    rows = [
        [own.layer, own.num_parameters, *(_height(getattr(own, key)) for key in heights)]
        for own in layers
    ]
    header = ["layer", "parameters", "alone, others at first", "at second", "with all before it"]
    return f"barriers of layers, {way}, test\n{table(header, rows)}"


def _height(own: LayerHeight) -> str:
    return with_error(own.height, own.standard_error)


def _decomposition_text(own: BarrierDecomposition) -> str:
    """Return the shares of a barrier as a table."""
    title = f"shares of the naive barrier at tau = {number(own.tau)}, removed in this order"
    lines = [title, _shares_table(own.barrier, own.shares), _left_out(own.left_out)]
    if own.temperatures:
        fitted = listed([number(temperature) for temperature in own.temperatures])
        lines.append(f"temperatures at 0, {number(own.tau)} and 1: {fitted}")
    if any(map(is_bounded, own.temperatures)):
        lines.append(f"confidence is not determined: a temperature is at an end, {_UNDETERMINED}")
    return "\n".join(lines)


def _mean_shares_text(own: MeanDecomposition) -> str:
    """Return mean shares over the pairs of several runs as a table."""
    title = (
        f"shares of the naive barrier, mean over {count(len(own.pairs), 'pair')} of "
        f"{own.num_runs} runs, removed in this order"
    )
    note = "+- is the standard error over runs, by the jackknife"
    return f"{title}\n{_shares_table(own.barrier, own.shares)}\n{_left_out(own.left_out)}\n{note}"


def _shares_table(barrier: BarrierShare, shares: Mapping[str, BarrierShare]) -> str:
    is_known = barrier.value > max(2 * barrier.standard_error, 1e-9)
    rows = [
        [
            name,
            with_error(own.value, own.standard_error),
            percent(own.value / barrier.value) if is_known else "-",
        ]
        for name, own in [*shares.items(), ("naive barrier", barrier)]
    ]
    return table(["share", "nats per point", "of the barrier"], rows)


def _left_out(reasons: Mapping[str, str]) -> str:
    return "\n".join(f"left out: {cause}: {reason}" for cause, reason in reasons.items())


def named_lines(result: LineBarrier) -> dict[str, dict[str, LineShape]]:
    """Return the shape of each line, by its name and the split of the data.

    Args:
        result: of `barrier_runs`.
    """
    lines = {f"initial value to {Path(run).name}": shapes for run, shapes in result.lines}
    if result.pair:
        names = " to ".join(run_names(result.pair))
        lines |= {f"{names}, {way}": own for way, own in result.pair.shapes.items()}
    return lines


def run_names(result: PairBarrier | SeveralBarrier) -> list[str]:
    """Return the names of the runs.

    Args:
        result: of `barrier_runs`.
    """
    return [Path(run).name for run in result.runs]
