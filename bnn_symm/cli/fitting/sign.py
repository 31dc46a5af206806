"""`bnn-symm sign`: accept files of a run that were changed on purpose."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer


def add(commands: Any) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "sign",
        _sign,
        "accept files of a run that were changed on purpose",
        details="A run.json has the SHA-256 of the finished files of its run, and every command "
        "refuses files that are not those. This signs them as they are now. Only do so if you "
        "changed them yourself: results are then of the files that you signed, and no longer of "
        "the fit.",
        example="bnn-symm sign runs/gap",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory, which no process is writing"
    )


def _sign(options: argparse.Namespace) -> int:
    from bnn_symm.errors import one_line
    from bnn_symm.runs.directory.output_directory import disk_errors
    from bnn_symm.runs.directory.run_directory import RunDirectory

    changed = {}
    for path in options.runs:
        directory = RunDirectory(path)
        directory.read_record()
        with disk_errors(Path(path), "make room, and run the command again"):
            changed[path] = directory.sign_again()
    lines = [
        f"{one_line(path, 200)}: {', '.join(names) or 'nothing had changed'}"
        for path, names in changed.items()
    ]
    answer(options, {"signed": changed}, "\n".join(lines))
    return 0
