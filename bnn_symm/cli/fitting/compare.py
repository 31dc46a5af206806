"""`bnn-symm compare`: a study of symmetric against asymmetric networks, with controls and seeds."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import MODULE, add_command, answer, file_line
from bnn_symm.cli.fitting.fit import add_config

# A study that needs no file: standard against asymmetric networks on digits, in about a minute.
_SMALL = (
    "bnn-symm compare --set study.vary='{architecture.symmetry.kind: [standard, "
    "weight_asymmetric]}' architecture.widths=[16] --out runs/small"
)


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "compare",
        _compare,
        "compare symmetric and asymmetric networks: a grid of fits with controls, seeds and a "
        "report",
        details="The section `study` of CONFIG says what varies; a factory of your own network "
        "that CONFIG names is imported and called. Fits and barriers run in processes of their "
        "own; what is done stays done, and --resume does what is missing. Writes cells and pairs "
        "as tables (Parquet and CSV), summary.json and report.html. Exit status 1 if a fit or a "
        "barrier failed.",
        example=_SMALL,
    )
    add_config(parser, text="a YAML file with a section `study`")
    parser.add_argument(
        "--out", metavar="DIR", help="a new directory (default: runs/<config>-1, -2, ...)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with a study; with a CONFIG that has more in it, do what is new",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar=MODULE,
        help="with --resume, or a CONFIG within a study: a factory that the study names, repeated, "
        "since what a directory names never runs by itself; once for each",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes at once on this machine (default: one a core)",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="of a Dask scheduler, tcp://host:8786, to work there instead",
    )


def _compare(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.html.rendering import write_study_report
    from bnn_symm.report.progress import StudyBar
    from bnn_symm.report.text.study import study_text
    from bnn_symm.runs.configuration.factories import check_configuration, factories_of
    from bnn_symm.studies.runner import run_study
    from bnn_symm.studies.study import load_study

    if options.config is None and options.set and "=" not in options.set[-1]:
        options.config = options.set.pop()  # --set KEY=VALUE CONFIG
    if options.resume and options.out:
        raise ConfigError("--resume goes on in the directory that it names; it takes no --out")
    if options.resume and options.set and not options.config:
        raise ConfigError(
            "--resume without CONFIG goes on with the study as it was; --set needs the CONFIG"
        )
    if not options.resume and not options.config and not options.set:
        raise ConfigError(
            f"there is no CONFIG with a section `study`; for the question in small type: {_SMALL}"
        )
    study = load_study(options.config, options.set) if options.config or options.set else None
    if study is not None and options.config:
        check_configuration(options.config, factories_of(study.configs()), options.module)
    bar = StudyBar(quiet=options.quiet)
    with bar:
        content = run_study(
            study,
            options.resume or options.out,
            resume=bool(options.resume),
            jobs=options.jobs,
            dask=options.dask,
            modules=options.module,
            on_progress=bar,
        )
    directory = content["directory"]
    report = write_study_report(Path(directory))
    tables = file_line("tables", f"{directory}/cells.csv, {directory}/pairs.csv")
    text = f"{study_text(content)}\n{tables}\n{file_line('report', report)}"
    answer(options, content, text)
    return 1 if content["failures"] else 0
