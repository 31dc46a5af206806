"""Provide `bnn-symm barrier`: measure the loss barrier between posteriors."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, open_comparable, warn

if TYPE_CHECKING:
    from bnn_symm.analyses.barriers import BarrierOptions


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "barrier",
        _barrier,
        "measure the marginalized loss barrier between posteriors, aligned over permutations",
        details="For two runs: the curve along the Wasserstein geodesic, naive and aligned. For "
        "three or more: the loss over the simplex, aligned jointly. --path line connects the "
        "means, and also shows the loss from the initial value of each network to its mean; one "
        "run suffices for it. --path bezier learns a curve of low loss on the training split. "
        "--sequence measures along the training of the runs. "
        "Writes barrier.json and figures into the output directory.",
        example="bnn-symm barrier runs/a runs/b -o barriers/a-b",
        module=True,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="two or more run directories; one for --path line"
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/barrier-1, -2, ...)"
    )
    _add_alignment(parser)
    _add_path(parser)
    _add_parts(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of draws and random starts (default: %(default)s)",
    )


def _add_alignment(parser: argparse.ArgumentParser) -> None:
    """Add the options of the alignment, and that of sequences of points."""
    parser.add_argument("--no-align", action="store_true", help="skip the alignment")
    parser.add_argument(
        "--matching",
        choices=["w2", "means", "precision", "activations"],
        default="w2",
        help="the matching cost of the alignment of two runs (default: %(default)s)",
    )
    parser.add_argument(
        "--symmetries",
        metavar="NAMES",
        default="permutation",
        help="the symmetries to align over: permutation, and after a comma scale (units of relu) "
        "and rotation (heads of attention, for posteriors of draws); for two runs, measured after "
        "each (default: %(default)s)",
    )
    parser.add_argument(
        "--sequence",
        action="store_true",
        help="measure the barrier at every state that the runs kept (checkpoint.keep) and at the "
        "end: without a permutation, with that of the state, of the last or first state, and with "
        "one permutation for all; members of an ensemble count as runs",
    )


def _add_path(parser: argparse.ArgumentParser) -> None:
    """Add the options of the path and its draws."""
    parser.add_argument(
        "--path",
        choices=["geodesic", "line", "bezier"],
        default="geodesic",
        help="the path between two posteriors (default: %(default)s)",
    )
    parser.add_argument(
        "--curve-steps",
        type=int,
        metavar="N",
        help="number of Adam steps that learn the curve of --path bezier (default: 500)",
    )
    parser.add_argument(
        "--coupling",
        choices=["moment", "assignment", "independent"],
        default="moment",
        help="the coupling of draws, for posteriors of draws (default: %(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=50,
        metavar="N",
        help="number of draws at every position of the path (default: %(default)s)",
    )


def _add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the options that show what a barrier consists of."""
    parser.add_argument(
        "--repair",
        action="store_true",
        help="measure a second time with statistics of the hidden channels (or of frozen batch "
        "norm) that are reset on the training split at every point of the path, for two runs",
    )
    parser.add_argument(
        "--temperature-scaling",
        action="store_true",
        help="measure a second time with log probabilities divided by a temperature that is fitted "
        "on the validation split at every point of the path: what remains is not too much or too "
        "little confidence; for two runs of a classification",
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="measure the barrier of one layer at a time too, while the others stay at the first "
        "run or at the second, and of the layers up to it; for two runs and a straight path",
    )
    parser.add_argument(
        "--decompose",
        action="store_true",
        help="divide the naive barrier into shares that sum to it: permutation, --symmetries, "
        "statistics, confidence, posterior spread and remainder, removed in this order; of three "
        "or more runs, the mean over all pairs",
    )
    parser.add_argument(
        "--same-start",
        metavar="RUN",
        help="a fit like the second run, but from the initial values of the first (initial_seed); "
        "with --decompose of two runs, the share of the initialization",
    )


def _check(options: argparse.Namespace) -> None:
    """Refuse options that have no effect together."""
    from bnn_symm.errors import ConfigError

    several = len(options.runs) != 2
    if len(options.runs) < 2 and options.path != "line" and not options.sequence:
        raise ConfigError(
            "a barrier needs at least two posteriors; name two runs, or use --path line for one"
        )
    if options.curve_steps is not None and (options.path != "bezier" or options.curve_steps < 1):
        raise ConfigError(
            f"--curve-steps {options.curve_steps}: expected 1 or more, together with --path bezier"
        )
    if options.path == "line" and (options.draws != 50 or options.coupling != "moment"):
        raise ConfigError(
            "--draws and --coupling have no effect with --path line, which connects points"
        )
    if options.path == "line" and several and (options.no_align or options.matching != "w2"):
        raise ConfigError(
            f"--path line for {len(options.runs)} runs starts at their initial values and aligns "
            "nothing; leave out --no-align and --matching, or name two runs"
        )
    if options.repair and (several or options.path == "bezier"):
        raise ConfigError(
            "--repair is for two runs and a straight path; name two runs, with --path geodesic or "
            "line"
        )
    if options.layers and options.path == "bezier":
        raise ConfigError(
            "--layers moves layers along straight paths; use --path geodesic or --path line"
        )
    if options.same_start and (several or not options.decompose or options.sequence):
        raise ConfigError("--same-start is for two runs with --decompose")
    if options.draws < 1:
        raise ConfigError(f"--draws {options.draws}: expected 1 or more")


def _chosen(options: argparse.Namespace) -> "BarrierOptions":
    """Return what is measured."""
    from bnn_symm.analyses.barriers import BarrierOptions

    return BarrierOptions(
        aligned=not options.no_align,
        symmetries=tuple(options.symmetries.split(",")),
        matching=options.matching,
        path=options.path,
        coupling=options.coupling,
        num_draws=options.draws,
        repair=options.repair,
        temperature_scaling=options.temperature_scaling,
        layers=options.layers,
        decompose=options.decompose,
        seed=options.seed,
        **({} if options.curve_steps is None else {"curve_steps": options.curve_steps}),
    )


def _barrier(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.barriers import barrier_runs
    from bnn_symm.analyses.sequence_barriers import barrier_sequences
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.plots.comparisons.barrier_figures import draw_barrier
    from bnn_symm.report.text.barriers import barrier_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    _check(options)
    control = [options.same_start] if options.same_start else []
    runs, warnings = open_comparable(options, [*options.runs, *control])
    control = runs.pop() if control else None
    warn(warnings)
    if options.out:
        check_free(Path(options.out))
    result = (
        barrier_sequences(runs, _chosen(options))
        if options.sequence
        else barrier_runs(runs, _chosen(options), control)
    )
    content = result.to_dict() | {"warnings": warnings}
    out = new_directory(Path(options.out) if options.out else None, "barrier")
    with disk_errors(out, "free some space, then measure the barrier again"):
        write_json(out / "barrier.json", content)
        pictures = draw_barrier(result, out / "figures")
    lines = [
        barrier_text(result),
        *(file_line("figure", path) for path in pictures),
        file_line("written", out / "barrier.json"),
    ]
    answer(options, content, "\n".join(lines))
    return 0
