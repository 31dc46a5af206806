"""Provide `bnn-symm fidelity`: compare predictions of runs with a reference posterior."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line, open_run, warn


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "fidelity",
        _fidelity,
        "measure how near the predictions of runs come to a reference posterior",
        details="On the test split: agreement of the most probable class, total variation of class "
        "probabilities, Wasserstein distance of predictive distributions, and the difference in "
        "NLL, with intervals over points and over seeds. The reference is a run of long chains, or "
        "a file of class probabilities. Runs that differ only in their seeds are one method; "
        "methods are ranked. Writes fidelity.json and a figure into the output directory.",
        example="bnn-symm fidelity runs/nuts runs/vi-0 runs/vi-1 runs/map-0 -o fidelity",
        module=True,
    )
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="the run of the reference; with --probabilities, the first run to compare with them",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="run directories to compare with the reference"
    )
    parser.add_argument(
        "--probabilities",
        metavar="FILE",
        help="class probabilities of the reference at the test points: .npy, .npz, .csv or .txt, "
        "(point, class) or (draw, point, class)",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="class indices of the points of --probabilities, which must be those of the test "
        "split; not needed if its .npz has an array `labels`",
    )
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/fidelity-1, -2, ...)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the bootstrap resamples (default: %(default)s)",
    )


def _fidelity(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.fidelity import fidelity_of_runs
    from bnn_symm.analyses.reference_probabilities import read_probabilities
    from bnn_symm.errors import ConfigError
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.text.fidelity import draw_fidelity, fidelity_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    if options.labels is not None and options.probabilities is None:
        raise ConfigError("--labels belongs to --probabilities FILE; a run has its own labels")
    if options.out:
        check_free(Path(options.out))
    paths = options.runs
    if options.probabilities is not None:
        reference: Any = read_probabilities(options.probabilities, options.labels)
        paths = [options.reference, *paths]
    elif paths:
        reference = open_run(options, options.reference)
    else:
        raise ConfigError(
            "fidelity compares runs with a reference; name the reference and one run or more, or "
            "give the reference with --probabilities FILE --labels FILE"
        )
    runs = [open_run(options, path) for path in paths]
    content = fidelity_of_runs(reference, runs, seed=options.seed)
    warn(content["warnings"])
    out = new_directory(Path(options.out) if options.out else None, "fidelity")
    with disk_errors(out, "free some space, then compare again"):
        write_json(out / "fidelity.json", content)
        pictures = draw_fidelity(content, out / "figures")
    lines = [
        fidelity_text(content),
        *(file_line("figure", path) for path in pictures),
        file_line("written", out / "fidelity.json"),
    ]
    answer(options, content, "\n".join(lines))
    return 0
