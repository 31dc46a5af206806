"""What the commands share: their parsers, opening a run, giving the answer."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bnn_symm.errors import BnnSymmError, FitDiverged, ProcessLost

if TYPE_CHECKING:
    from bnn_symm.experiments import Run

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def exit_status(error: BaseException) -> int:
    """The exit status that an error means: of wrong input, of a fit that failed, of Ctrl-C."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return 2 if isinstance(error, BnnSymmError) and not isinstance(error, FitDiverged | ProcessLost) else 1


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
    parser.add_argument("--json", action="store_true", help="print the answer as JSON instead of a table")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if module:
        parser.add_argument(
            "--module",
            metavar="PACKAGE.MODULE:FACTORY",
            help="the factory of your own network; repeated, since loading a run never executes code that it names",
        )
    parser.set_defaults(command=function, prog=parser.prog, several_processes=several_processes)
    return parser


def open_run(options: argparse.Namespace, path: str | None = None) -> "Run":
    """The run that a command is about; one that is not complete is used with a note."""
    from bnn_symm.experiments import load_run

    run = load_run(path or options.run, module=options.module)
    if run.status != "complete":
        print(f"bnn-symm: note: {run.path} is {run.status}; this uses what it has reached", file=sys.stderr)
    return run


def open_comparable(options: argparse.Namespace, paths: Sequence[str]) -> "tuple[list[Run], list[str]]":
    """Runs whose posteriors live in one parameter space, and warnings about what else differs."""
    from bnn_symm.experiments import load_run
    from bnn_symm.experiments.comparable import check_comparable

    runs = [load_run(path, module=options.module) for path in paths]
    return runs, check_comparable(runs)


def warn(warnings: Sequence[str]) -> None:
    """Says on stderr what a user should know of a comparison."""
    for warning in warnings:
        print(f"bnn-symm: note: {warning}", file=sys.stderr)


def answer(options: argparse.Namespace, content: dict[str, Any], text: str) -> None:
    """Prints the answer as JSON, as a table, or not at all."""
    from bnn_symm.io.atomic import json_text

    if options.json:
        print(json_text(content))
    elif not options.quiet:
        print(text)
