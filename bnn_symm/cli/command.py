"""Provide what the commands share: parsers, opening runs, and printing the answer."""

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
"""Placeholder of a factory in help texts."""

LONGEST = 300
"""Maximum number of characters of an error or a note."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def exit_status(error: BaseException) -> int:
    """Return the exit status for an error.

    Args:
        error: an error or an interruption.

    Returns:
        2 for wrong input, 1 for a fit that failed, 130 after Ctrl-C.
    """
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
    """Help formatter that leaves an example in one line, so that it can be copied."""

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
    """Add a command with the options of all commands: --quiet, --json, --debug.

    Args:
        commands: the subparsers, as returned by `add_subparsers`.
        name: of the command.
        function: runs the command and returns the exit status.
        help_text: a short description in lower case.
        example: a command line to copy.
        details: further sentences for the --help of the command.
        module: whether the command has the option --module, code of the user.
        several_processes: whether `torchrun` may start the command in several processes.

    Returns:
        The parser of the command.
    """
    parser = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}. {details}",
        epilog=f"example: {example}",
        formatter_class=HelpFormatter,
    )
    common = parser.add_argument_group("options of all commands")
    common.add_argument("--quiet", action="store_true", help="no progress bars, no table")
    common.add_argument(
        "--json", action="store_true", help="print the answer as JSON instead of a table"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if module:
        parser.add_argument(
            "--module",
            metavar=MODULE,
            action="append",
            help="code of your own that a run uses: the factory of its network, the class of its "
            "likelihood or prior; it must be named here, because loading a run never executes code "
            "that the run names; once for each name",
        )
    parser.set_defaults(
        module=[], command=function, prog=parser.prog, several_processes=several_processes
    )
    return parser


def open_run(options: argparse.Namespace, path: str | None = None) -> "Run":
    """Load a run, with a note if it is not complete.

    Args:
        options: of the command line.
        path: of the run, by default `options.run`.

    Returns:
        The run.
    """
    from bnn_symm.runs import load_run

    run = load_run(path or options.run, module=options.module)
    if run.status != "complete":
        warn([f"{one_line(run.path, 150)} is {run.status}; its last saved state is used"])
    return run


def open_comparable(
    options: argparse.Namespace, paths: Sequence[str]
) -> "tuple[list[Run], list[str]]":
    """Load runs whose posteriors have the same parameter space.

    Args:
        options: of the command line.
        paths: of the runs.

    Returns:
        The runs, and warnings about other differences between them.
    """
    from bnn_symm.runs import load_run
    from bnn_symm.runs.compatibility import check_comparable

    runs = [load_run(path, module=options.module) for path in paths]
    linearized = [
        f"{one_line(run.path, 150)} predicts by its linearized network; here its weights are "
        "compared, and paths between weights evaluate the network itself"
        for run in runs
        if getattr(run.config.inference, "predictive", None) == "linearized"
    ]
    return runs, [*check_comparable(runs, move_statistics=True), *linearized]


def warn(warnings: Iterable[object]) -> None:
    """Print notes on stderr, each in one line without control characters.

    Args:
        warnings: the notes.
    """
    for warning in warnings:
        print(f"bnn-symm: note: {one_line(warning, LONGEST)}", file=sys.stderr)


def file_line(label: str, path: object) -> str:
    """Return the line of an answer that names a file, with special characters escaped.

    Args:
        label: of the file.
        path: of the file.

    Returns:
        The line.
    """
    return f"{label}: {printable_name(path)}"


def answer(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    r"""Print the answer of a command as JSON, as text, or not at all.

    JSON is printed in ASCII: control characters and other non-ASCII characters are escaped as JSON
    defines it, so that a reader gets the exact value. In text they become escapes such as `\x1b`.

    Args:
        options: of the command line.
        content: the answer, for --json.
        text: the answer as text.
    """
    from bnn_symm.io.atomic import json_text

    if options.json:
        print(
            re.sub(r"[^\n -~]", lambda match: json.dumps(match.group())[1:-1], json_text(content))
        )
    elif not options.quiet:
        print(printable(text))
