"""Provide `bnn-symm align`: permute posteriors to minimize their distance to a reference."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line, open_comparable, warn


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "align",
        _align,
        "permute the hidden units of posteriors to minimize their distance to a reference",
        details="Writes each aligned posterior as a new run DIR/<name of the run> with the same "
        "predictions, alignment.json with the solver, distances and baselines, and a figure. "
        "--sequence aligns whole sequences of states.",
        example="bnn-symm align runs/a runs/b runs/c -o runs/aligned-to-a",
        module=True,
    )
    parser.add_argument(
        "reference", metavar="REFERENCE", help="a run directory, which remains unchanged"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories to align to it")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="a new directory")
    parser.add_argument(
        "--matching",
        choices=["w2", "means", "precision", "activations"],
        default="w2",
        help="the matching cost: from means and standard deviations, means, means weighted by the "
        "precision of the reference, or hidden activations on training points (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--symmetries",
        metavar="NAMES",
        default="permutation",
        help="the symmetries to align over: permutation, and after a comma scale (units of relu) "
        "and rotation (heads of attention, for posteriors of draws) (default: %(default)s)",
    )
    parser.add_argument(
        "--solver",
        choices=["auto", "coordinate", "frank_wolfe", "sinkhorn", "straight_through"],
        default="auto",
        help="coordinate: one layer at a time (fastest); frank_wolfe and sinkhorn: relaxations of "
        "all layers, by linear steps or by annealing; auto: the best of these three; "
        "straight_through: minimizes the loss at the midpoint on training points (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--singular-vectors",
        action="store_true",
        help="compare the singular vectors of each weight before and after: how far the alignment "
        "turns them, and the share of the distance that no permutation can remove",
    )
    _add_sequence(parser)
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of random starts (default: %(default)s)",
    )


def _add_sequence(parser: argparse.ArgumentParser) -> None:
    """Add the options of sequences of states."""
    parser.add_argument(
        "--sequence",
        action="store_true",
        help="find one permutation for all states that each run kept (checkpoint.keep) and its "
        "end; the new runs have the permuted states",
    )
    parser.add_argument(
        "--point",
        metavar="NAME",
        help="with --sequence: joint, the permutation for which all points together are nearest, "
        "or first, last or the step of the point whose permutation serves all (default: joint)",
    )


def _names(options: argparse.Namespace) -> list[str]:
    """Return the names of the runs, under which the aligned ones are written."""
    from bnn_symm.errors import ConfigError

    names = [Path(run).resolve().name for run in options.runs]
    taken = {"figures", "alignment.json"} & {*names, Path(options.reference).resolve().name}
    if taken:
        raise ConfigError(
            f"a run named {taken.pop()} conflicts with the output of this command; rename it"
        )
    if len(set(names)) < len(names):
        raise ConfigError(
            f"two of the runs are named {max(names, key=names.count)}; give them different names"
        )
    return names


def _align(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError

    if options.sequence:
        return _align_sequences(options)
    if options.point is not None:
        raise ConfigError(f"--point {options.point} chooses a point of --sequence; name both")
    return _align_posteriors(options)


def _align_sequences(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.sequences import align_run_sequences, sequence_of
    from bnn_symm.errors import ConfigError
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.text.sequences import sequence_alignment_text
    from bnn_symm.runs.compatibility import save_derived_run
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    is_default = (options.solver, options.symmetries) == ("auto", "permutation")
    if not is_default or options.singular_vectors:
        raise ConfigError(
            "--sequence matches permutations by two solvers of its own; leave out --solver, "
            "--symmetries and --singular-vectors"
        )
    names = _names(options)
    (reference, *others), warnings = open_comparable(options, [options.reference, *options.runs])
    warn(warnings)
    check_free(Path(options.out))
    alignments = align_run_sequences(
        reference,
        others,
        point=options.point or "joint",
        matching=options.matching,
        seed=options.seed,
    )
    steps = sequence_of(reference).steps
    out = new_directory(Path(options.out), "align")
    shared = {"reference": str(reference.path), "steps": list(steps)}
    content = {
        **shared,
        "matching": options.matching,
        "alignments": [
            {"run": str(run.path), **own.to_dict()}
            for run, own in zip(others, alignments, strict=True)
        ],
        "warnings": warnings,
    }
    with disk_errors(out, "free some space, then align again"):
        write_json(out / "alignment.json", content)
    for name, run, own in zip(names, others, alignments, strict=True):
        derived = {"by": "align", "from": str(run.path), **shared, **own.to_dict()}
        moved = {step: kept.permute(own.permutation) for step, kept in run.checkpoints().items()}
        save_derived_run(out / name, run, run.posterior.permute(own.permutation), derived, moved)
    lines = [sequence_alignment_text(dict(zip(names, alignments, strict=True)), steps)]
    lines += [file_line("run", out / name) for name in names]
    answer(options, content, "\n".join(lines))
    return 0


def _align_posteriors(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.alignment import align_runs
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.plots.comparisons.distances import plot_distances
    from bnn_symm.report.text.alignment import alignment_text
    from bnn_symm.runs.compatibility import save_derived_run
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    names = _names(options)
    (reference, *others), warnings = open_comparable(options, [options.reference, *options.runs])
    warn(warnings)
    check_free(Path(options.out))
    for run in others:
        run.dataset()  # fails now, not after the alignment, if the data of the scores are missing
    (first, *posteriors), alignments, chains_moved = align_runs(
        reference,
        others,
        matching=options.matching,
        solver=options.solver,
        symmetries=options.symmetries.split(","),
        compare_vectors=options.singular_vectors,
        seed=options.seed,
    )
    out = new_directory(Path(options.out), "align")
    content = {
        "reference": str(reference.path),
        "symmetries": options.symmetries.split(","),
        "matching": options.matching,
        "reference_chains_moved": chains_moved,
        "alignments": [own.to_dict() for own in alignments],
        "warnings": warnings,
    }
    with disk_errors(out, "free some space, then align again"):
        write_json(out / "alignment.json", content)
        (out / "figures").mkdir()
        plot_distances(alignments, names, out / "figures" / "alignment.png")
    if chains_moved:
        name = reference.path.resolve().name
        derived = {"by": "align", "from": str(reference.path), "chains_moved": chains_moved}
        save_derived_run(out / name, reference, first, derived)
        warn(
            [
                f"{chains_moved} chains of the reference were in other modes: compare with "
                f"{out / name}, where they are aligned"
            ]
        )
    for name, run, posterior, alignment in zip(names, others, posteriors, alignments, strict=True):
        derived = {
            "by": "align",
            "from": str(run.path),
            "reference": str(reference.path),
            **alignment.to_dict(),
            "symmetries": options.symmetries.split(","),
        }
        save_derived_run(out / name, run, posterior, derived)
    lines = [alignment_text(alignments), file_line("figure", out / "figures" / "alignment.png")]
    lines += [file_line("run", out / name) for name in names]
    answer(options, content, "\n".join(lines))
    return 0
