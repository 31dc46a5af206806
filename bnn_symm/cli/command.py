"""What the commands share: their parsers, opening a run, giving the answer."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bnn_symm.errors import (
    BnnSymmError,
    FitDiverged,
    ProcessLost,
    one_line,
    printable,
    printable_name,
)

if TYPE_CHECKING:
    from bnn_symm.runs import Run

MODULE = "PACKAGE.MODULE:FACTORY"
"""How --help calls a factory."""

LONGEST = 300
"""Characters of an error or a note."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def exit_status(error: BaseException) -> int:
    """The exit status that an error means: of wrong input, of a fit that failed, of Ctrl-C."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return (
        2
        if isinstance(error, BnnSymmError) and not isinstance(error, FitDiverged | ProcessLost)
        else 1
    )


class HelpFormatter(argparse.HelpFormatter):
    """Leaves an example in one line, so that it can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example: ") else super()._fill_text(text, width, indent)


def add_command(
    commands: Any,
    name: str,
    function: Callable[[argparse.Namespace], int],
    help_text: str,
    *,
    example: str,
    details: str = "",
    module: bool = False,
    several_processes: bool = False,
) -> argparse.ArgumentParser:
    """Adds a command with what all commands take: --quiet, --json, --debug.

    Args:
        commands: what argparse's `add_subparsers` returned.
        name: of the command.
        function: runs it; returns the exit status.
        help_text: one line, in lower case.
        example: a line to copy.
        details: further sentences for its own --help.
        module: whether it takes --module, the factory of a user's own network.
        several_processes: whether `torchrun` may start it in several that work together.
    """
    parser = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}. {details}",
        epilog=f"example: {example}",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars, no table")
    parser.add_argument(
        "--json", action="store_true", help="print the answer as JSON instead of a table"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if module:
        parser.add_argument(
            "--module",
            metavar=MODULE,
            help="the factory of your own network; repeated, since loading a run never executes "
            "code that it names",
        )
    parser.set_defaults(
        module=None, command=function, prog=parser.prog, several_processes=several_processes
    )
    return parser


def open_run(options: argparse.Namespace, path: str | None = None) -> "Run":
    """The run that a command is about; one that is not complete is used with a note."""
    from bnn_symm.runs import load_run

    run = load_run(path or options.run, module=options.module)
    if run.status != "complete":
        warn([f"{one_line(run.path, 150)} is {run.status}; this uses what it has reached"])
    return run


def open_comparable(
    options: argparse.Namespace, paths: Sequence[str]
) -> "tuple[list[Run], list[str]]":
    """Runs whose posteriors live in one parameter space, and warnings about what else differs."""
    from bnn_symm.runs import load_run
    from bnn_symm.runs.compatibility import check_comparable

    runs = [load_run(path, module=options.module) for path in paths]
    return runs, check_comparable(runs)


def warn(warnings: Iterable[object]) -> None:
    """Print notes on stderr, each as one line in which nothing is left that a terminal would
    obey.
    """
    for warning in warnings:
        print(f"bnn-symm: note: {one_line(warning, LONGEST)}", file=sys.stderr)


def file_line(label: str, path: object) -> str:
    """Return the line of an answer that names a file; a line break in a path does not end it."""
    return f"{label}: {printable_name(path)}"


def answer(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    r"""Print the answer as JSON, as a table, or not at all.

    JSON is printed in ASCII: what a terminal would obey, and what its encoding lacks, is escaped as
        JSON does it, so
    that a reader gets the exact value. In texts it becomes an escape such as `\x1b`.
    """
    from bnn_symm.io.atomic import json_text

    if options.json:
        print(
            re.sub(r"[^\n -~]", lambda found: json.dumps(found.group())[1:-1], json_text(content))
        )
    elif not options.quiet:
        print(printable(text))
