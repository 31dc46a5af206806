"""Provide `bnn-symm report`: write one self-contained HTML page for a study or a run."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "report",
        _report,
        "write one self-contained HTML page for a study or a run",
        details="The page starts with the conclusions; figures, tables, all settings, the "
        "provenance and the commands that repeat the results follow. It needs no other file and no "
        "network. An existing page is replaced.",
        example="bnn-symm report runs/digits-1",
        module=True,
    )
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="the directory of a study (bnn-symm compare) or a run (bnn-symm fit)",
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="the output file (default: DIR/report.html)"
    )


def _report(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.html.rendering import write_report

    out = None if options.out is None else Path(options.out)
    if out is not None and out.is_dir():
        raise ConfigError(
            f"--out {out} is a directory; expected a file, such as {out / 'report.html'}"
        )
    path = write_report(Path(options.directory), out, module=options.module)
    answer(options, {"report": str(path)}, file_line("written", path))
    return 0
