"""`bnn-symm diagnose`: has it converged, how fast, does it mix, is it calibrated, and where not."""

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
    """Adds the command."""
    parser = add_command(
        commands,
        "diagnose",
        _diagnose,
        "tell whether runs have converged, how fast, whether their chains mix, and whether they "
        "are calibrated",
        details="R-hat and ESS of the weights raw, aligned and chain by chain, and of functions, "
        "with a verdict for each; docs/which_view.md says which to trust when. Of several runs "
        "also how fast they converged side by side, and whether they agree. Draws of other tools "
        "are read with --draws; without data, by the views that need none. Writes diagnosis.json "
        "and pictures.",
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
        help="to time convergence to: 0.95 of the way to the best plateau (the default), "
        "validation_nll=0.3, elbo=95%%",
    )
    parser.add_argument(
        "--no-per-draw",
        action="store_true",
        help="do not align draws one by one, which takes longest",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of alignments and resamples (default: 0)"
    )
    foreign = parser.add_argument_group("draws of other tools, in place of RUN")
    foreign.add_argument(
        "--draws",
        nargs="+",
        metavar="FILE",
        help="NetCDF files of chains, or checkpoints of members",
    )
    foreign.add_argument(
        "--names", metavar="MAP.yaml", help="which of their variables is which parameter"
    )
    foreign.add_argument(
        "--config", metavar="CONFIG", help="data, likelihood and prior, as for fit"
    )
    foreign.add_argument(
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
        found = diagnose(
            runs,
            target=options.target,
            per_draw=not options.no_per_draw,
            seed=options.seed,
            on_progress=report_stage,
        )
        warn(found.content["warnings"])
        report_stage("pictures")
        out = new_directory(Path(options.out) if options.out else None, "diagnose")
        with disk_errors(out, "make room, and diagnose again"):
            write_json(out / "diagnosis.json", found.content)
            pictures = draw_diagnosis(found, runs, out / "figures")
    lines = [diagnosis_text(found.content), "", *(file_line("picture", path) for path in pictures)]
    answer(
        options, found.content, "\n".join([*lines, file_line("written", out / "diagnosis.json")])
    )
    return 0


def _diagnose_draws(options: argparse.Namespace) -> int:
    """Diagnose draws of another tool by the views that need neither data nor a network."""
    from bnn_symm.analyses.raw_draws import diagnose_draws
    from bnn_symm.io.atomic import write_json
    from bnn_symm.report.text.mixing import mixing_text
    from bnn_symm.runs.directory.output_directory import check_free, disk_errors, new_directory

    if options.out:
        check_free(Path(options.out))
    content = diagnose_draws(options.draws)
    out = new_directory(Path(options.out) if options.out else None, "diagnose")
    with disk_errors(out, "make room, and diagnose again"):
        write_json(out / "diagnosis.json", content)
    answer(
        options,
        content,
        f"{mixing_text(content['mixing'])}\n{file_line('written', out / 'diagnosis.json')}",
    )
    return 0


@contextlib.contextmanager
def _runs(options: argparse.Namespace) -> "Iterator[list[Run]]":
    """The runs that are named, or the draws of another tool as a run."""
    from bnn_symm.errors import ConfigError

    if bool(options.runs) == bool(options.draws):
        raise ConfigError(
            "name run directories, or draws of another tool with --draws FILE --module "
            "MODULE:FACTORY"
        )
    if options.runs:
        for flag in ("names", "config", "set"):
            if getattr(options, flag):
                raise ConfigError(f"--{flag} belongs to --draws; a run is as it was fitted")
        yield [open_run(options, path) for path in options.runs]
        return
    from bnn_symm.cli.fitting.fit import config_of
    from bnn_symm.runs.external_runs import external_run

    run = external_run(
        options.draws, config=config_of(options), module=options.module, names=options.names
    )
    changed = [
        f"{row['parameter']} {', '.join(row['changes'])}"
        for row in run.record["derived"]["matched"]
    ]
    warn([f"{run.path}: {said}" for said in changed if not said.endswith(" ")])
    with contextlib.closing(run):
        yield [run]


@contextlib.contextmanager
def _progress(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done; nothing in a pipe, and nothing with --quiet."""
    if options.quiet or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.text import Text

    from bnn_symm.errors import one_line

    with Console(stderr=True).status("") as status:
        # As a text, not as markup: a stage names runs and files.
        yield lambda stage: status.update(Text(one_line(stage, 200)))
