"""Provide `bnn-symm sign`: accept files of a run that were changed on purpose."""

import argparse
from pathlib import Path
from typing import Any

from bnn_symm.cli.command import add_command, answer


def add(commands: Any) -> None:
    """Add the command to the parser.

    Args:
        commands: the subparsers of the program.
    """
    parser = add_command(
        commands,
        "sign",
        _sign,
        "accept files of a run that were changed on purpose",
        details="A run.json contains the SHA-256 hashes of the finished files of its run; every "
        "command refuses files that differ. This command records the hashes of the present files. "
        "Use it only if you changed them yourself: results then describe these files, and no "
        "longer the fit.",
        example="bnn-symm sign runs/gap",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run directory that no process is writing to"
    )


def _sign(options: argparse.Namespace) -> int:
    from bnn_symm.errors import one_line
    from bnn_symm.runs.directory.output_directory import disk_errors
    from bnn_symm.runs.directory.run_directory import RunDirectory

    changed = {}
    for path in options.runs:
        directory = RunDirectory(path)
        directory.read_record()
        with disk_errors(Path(path), "free some space, then run the command again"):
            changed[path] = directory.sign_again()
    lines = [
        f"{one_line(path, 200)}: {', '.join(names) or 'unchanged'}"
        for path, names in changed.items()
    ]
    answer(options, {"signed": changed}, "\n".join(lines))
    return 0
