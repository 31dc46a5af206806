"""Provide `bnn-symm merge`: merge several posteriors into one, at the cost of one network."""

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
        "merge",
        _merge,
        "align posteriors jointly and merge them into one",
        details="barycentre, for runs on the same data: averages means and standard deviations. "
        "product, for runs on disjoint data: multiplies normal densities and divides by the "
        "repeated prior. The result is a new run, whose scores are compared with those of its "
        "parts, of their ensemble and of the naive merge.",
        example="bnn-symm merge runs/a runs/b runs/c -o runs/merged --rule barycentre",
        module=True,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="two or more run directories")
    parser.add_argument(
        "-o", "--out", metavar="DIR", required=True, help="a new directory, the merged run"
    )
    parser.add_argument(
        "--rule",
        choices=["barycentre", "product"],
        default="barycentre",
        help="the merging rule (default: %(default)s)",
    )
    parser.add_argument("--no-align", action="store_true", help="merge unaligned posteriors")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="reset the statistics of the hidden channels (or of frozen batch norm) on the "
        "training split of the first run, for --rule barycentre",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of random starts (default: %(default)s)",
    )


def _merge(options: argparse.Namespace) -> int:
    from bnn_symm.analyses.merging import merge_runs
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.plots.comparisons.merge import plot_merge
    from bnn_symm.report.text.tables import scores_table
    from bnn_symm.runs.directory.output_directory import disk_errors

    if len(options.runs) < 2:
        raise ConfigError("merging needs at least two posteriors; name two runs or more")
    runs, warnings = open_comparable(options, options.runs)
    if options.rule == "product" and len({run.record["dataset"]["sha256"] for run in runs}) < len(
        runs
    ):
        raise ConfigError(
            "--rule product is for runs on disjoint data, and two of these runs have the same "
            "data; use --rule barycentre"
        )
    warn(warnings)
    result = merge_runs(
        runs,
        Path(options.out),
        rule=options.rule,
        aligned=not options.no_align,
        repair=options.repair,
        seed=options.seed,
    )
    picture = Path(options.out) / "figures" / "merge.png"
    with disk_errors(picture, "the merged run is kept"):
        picture.parent.mkdir(exist_ok=True)
        plot_merge(result.test, picture)
    lines = [
        scores_table(result.test),
        f"parts are averages over {len(runs)} runs",
        file_line("figure", picture),
    ]
    text = "\n".join([*lines, file_line("run", options.out)])
    answer(options, {**result.to_dict(), "warnings": warnings}, text)
    return 0
