"""Provide `bnn-symm diagnose`: check the convergence, mixing and calibration of runs."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_symm.cli.command import add_command, answer, file_line, open_run, warn

if TYPE_CHECKING:
    from bnn_symm.runs import Run


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "diagnose",
        _diagnose,
        "check whether runs have converged and how fast, whether their chains mix, and whether "
        "they are calibrated",
        details="R-hat and ESS of raw weights, aligned weights, weights of each chain, and "
        "functions, each with an interpretation; docs/which_view.md explains when to use which. "
        "For several runs also their speed of convergence and their agreement. --draws reads draws "
        "of other tools; without data, only the views that need no data are computed. Writes "
        "diagnosis.json and figures.",
        example="bnn-symm diagnose runs/a runs/b -o diagnoses/a-b",
        module=True,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run directories")
    parser.add_argument(
        "-o", "--out", metavar="DIR", help="a new directory (default: runs/diagnose-1, -2, ...)"
    )
    parser.add_argument(
        "--target",
        metavar="TARGET",
        help="the target of the time to convergence: 0.95 of the distance to the best plateau (the "
        "default), validation_nll=0.3, elbo=95%%",
    )
    parser.add_argument(
        "--no-per-draw",
        action="store_true",
        help="skip the alignment of individual draws, which is the slowest step",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of alignments and resampling (default: 0)",
    )
    external = parser.add_argument_group("draws of other tools, in place of RUN")
    external.add_argument(
        "--draws",
        nargs="+",
        metavar="FILE",
        help="NetCDF files of chains, or checkpoints of members",
    )
    external.add_argument(
        "--names", metavar="MAP.yaml", help="a map from parameters to variables of the files"
    )
    external.add_argument(
        "--config", metavar="CONFIG", help="data, likelihood and prior, as for fit"
    )
    external.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override keys"
    )


def _diagnose(options: argparse.Namespace) -> int:
    if options.draws and not (
        options.runs or options.config or options.set or options.module or options.names
    ):
        return _diagnose_draws(options)
    from bnn_symm.analyses.diagnosis import diagnose
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.text.diagnosis import diagnosis_text, draw_diagnosis
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    if options.out:
        check_free(Path(options.out))
    with _runs(options) as runs, _progress(options) as report_stage:
        diagnosis = diagnose(
            runs,
            target=options.target,
            per_draw=not options.no_per_draw,
            seed=options.seed,
            on_progress=report_stage,
        )
        content = diagnosis.content
        warn(content["warnings"])
        report_stage("figures")
        out = new_directory(Path(options.out) if options.out else None, "diagnose")
        with disk_errors(out, "free some space, then diagnose again"):
            write_json(out / "diagnosis.json", content)
            pictures = draw_diagnosis(diagnosis, runs, out / "figures")
    lines = [diagnosis_text(content), "", *(file_line("figure", path) for path in pictures)]
    answer(options, content, "\n".join([*lines, file_line("written", out / "diagnosis.json")]))
    return 0


def _diagnose_draws(options: argparse.Namespace) -> int:
    """Diagnose draws of another tool with the views that need neither data nor a network."""
    from bnn_symm.analyses.raw_draws import diagnose_draws
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.text.mixing import mixing_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    if options.out:
        check_free(Path(options.out))
    content = diagnose_draws(options.draws)
    out = new_directory(Path(options.out) if options.out else None, "diagnose")
    with disk_errors(out, "free some space, then diagnose again"):
        write_json(out / "diagnosis.json", content)
    answer(
        options,
        content,
        f"{mixing_text(content['mixing'])}\n{file_line('written', out / 'diagnosis.json')}",
    )
    return 0


@contextlib.contextmanager
def _runs(options: argparse.Namespace) -> "Iterator[list[Run]]":
    """Provide the named runs, or the draws of another tool as a run."""
    from bnn_symm.errors import ConfigError

    if bool(options.runs) == bool(options.draws):
        raise ConfigError(
            "name run directories, or draws of another tool with --draws FILE --module "
            "MODULE:FACTORY"
        )
    if options.runs:
        for flag in ("names", "config", "set"):
            if getattr(options, flag):
                raise ConfigError(f"--{flag} requires --draws; a run has its own configuration")
        yield [open_run(options, path) for path in options.runs]
        return
    from bnn_symm.cli.fitting.fit import config_of
    from bnn_symm.runs.external_runs import external_run

    run = external_run(
        options.draws,
        config=config_of(options, choose=False),
        names=options.names,
    )
    changed = [
        f"{row['parameter']} {', '.join(row['changes'])}"
        for row in run.record["derived"]["matched"]
    ]
    warn([f"{run.path}: {text}" for text in changed if not text.endswith(" ")])
    with contextlib.closing(run):
        yield [run]


@contextlib.contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """Show the present stage on a terminal; show nothing in a pipe or with --quiet."""
    if options.quiet or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.text import Text

    from bnn_symm.errors import one_line

    with Console(stderr=True).status("") as status:
        # As text, not as markup: a stage contains names of runs and files.
        yield lambda stage: status.update(Text(one_line(stage, 200)))
