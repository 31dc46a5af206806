"""`bnn-symm report`: one page of a study or a run, to read, keep and pass on."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer, file_line


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "report",
        _report,
        "write one self-contained page of a study or a run",
        details="The conclusion first, then figures and tables, every setting, provenance and the "
        "commands that repeat it. The page needs no other file and no network. An existing one is "
        "replaced.",
        example="bnn-symm report runs/digits-1",
        module=True,
    )
    parser.add_argument(
        "directory", metavar="DIR", help="of a study (bnn-symm compare) or a run (bnn-symm fit)"
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="where to write it (default: DIR/report.html)"
    )


def _report(options: argparse.Namespace) -> int:
    from bnn_symm.errors import ConfigError
    from bnn_symm.report.html.rendering import write_report

    out = None if options.out is None else Path(options.out)
    if out is not None and out.is_dir():
        raise ConfigError(
            f"--out {out} is a directory; wanted a file, such as {out / 'report.html'}"
        )
    path = write_report(Path(options.directory), out, module=options.module)
    answer(options, {"report": str(path)}, file_line("written", path))
    return 0
