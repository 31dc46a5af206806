"""Provide `bnn-symm compare`: a study of symmetric and asymmetric networks with controls."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import MODULE, add_command, answer, file_line, warn
from bnn_symm.cli.fitting.fit import add_config, take_config_from_overrides

# A study without a file: standard and asymmetric networks on digits, in about a minute.
_SMALL_STUDY = (
    "bnn-symm compare --set study.vary='{architecture.symmetry.kind: [standard, "
    "weight_asymmetric]}' architecture.widths=[16] --out runs/small"
)


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "compare",
        _compare,
        "compare symmetric and asymmetric networks: a grid of fits with controls, seeds and a "
        "report",
        details="The section `study` of CONFIG lists what varies. If CONFIG names the factory of a "
        "custom network, it is imported and called. Fits and barriers run in separate processes. "
        "Finished results are kept, and --resume computes the missing ones. Writes tables of fits "
        "(cells) and pairs as Parquet and CSV, summary.json and report.html. Exit status 1 if a "
        "fit or a barrier failed.",
        example=_SMALL_STUDY,
    )
    add_config(parser, text="a YAML file with a section `study`")
    parser.add_argument(
        "--out", metavar="DIR", help="a new directory (default: runs/<config>-1, -2, ...)"
    )
    parser.add_argument(
        "--resume",
        metavar="DIR",
        help="resume a study; with an extended CONFIG, compute what is new",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        metavar=MODULE,
        help="with --resume, or a CONFIG within a study: code of your own that the study names, "
        "because code that a directory names never runs by itself; once for each name",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="number of processes at once on this machine (default: one per core)",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="address of a Dask scheduler, such as tcp://host:8786, whose workers run the tasks",
    )


def _compare(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.html.rendering import write_study_report
    from bnn_symm.report.progress import StudyBar
    from bnn_symm.report.text.study import study_text
    from bnn_symm.runs.configuration.factories import check_configuration, factories_of
    from bnn_symm.studies.runner import run_study
    from bnn_symm.studies.study import load_study

    take_config_from_overrides(options)
    if options.resume and options.out:
        raise ConfigError("--resume uses the directory that it names; it takes no --out")
    if options.resume and options.set and not options.config:
        raise ConfigError(
            "--resume without CONFIG resumes the stored study; --set requires a CONFIG"
        )
    if not options.resume and not options.config and not options.set:
        raise ConfigError(
            f"no CONFIG with a section `study` is given; for a small study, type: {_SMALL_STUDY}"
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
    if options.quiet or options.json:  # else the text has them
        warn(f"{failure['what']} failed: {failure['error']}" for failure in content["failures"])
    return 1 if content["failures"] else 0
