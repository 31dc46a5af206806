"""The program: parses a command line, runs its command, turns errors into one line and an exit
status.

Heavy imports wait until a command runs, so that `--help` answers at once. The answer goes to stdout
as a short table, or as JSON with --json; progress and warnings go to stderr. Exit status: 0
success, 2 wrong input, 1 a fit that failed, 130 interrupted.
"""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from bnn_symm.cli.analysis import align, barrier, diagnose, merge, prior, sbc, symmetry
from bnn_symm.cli.command import INTERRUPTED, LONGEST, HelpFormatter, exit_status, warn
from bnn_symm.cli.fitting import compare, data, evaluate, fit, import_, predict, report, sign
from bnn_symm.cli.torchrun import check_alone, first_speaks
from bnn_symm.errors import BnnSymmError, one_line, printable

# In the order of `--help`.
_COMMANDS = (
    *(fit, evaluate, predict, diagnose, prior, symmetry),
    *(align, barrier, merge, compare, report, import_, sbc, sign, data),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    with first_speaks():
        options = _parser().parse_args(arguments)
    try:
        with first_speaks():
            check_alone(options)
        with _warnings_in_one_line():
            status = options.command(options)
        sys.stdout.flush()
        return status
    except BnnSymmError as error:
        if options.debug:
            raise
        print(f"bnn-symm: error: {one_line(error, LONGEST)}", file=sys.stderr)
        return exit_status(error)
    except KeyboardInterrupt as error:
        print(
            f"bnn-symm: interrupted{f'; {printable(str(error))}' if str(error) else ''}",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; nothing more to say to it.
        _drop_output()
        return 0
    except OSError as error:
        if options.debug:
            raise
        message = f"{one_line(error.filename or 'output', 150)}: {error.strerror or error}"
        print(f"bnn-symm: error: {one_line(message, LONGEST)}", file=sys.stderr)
        _drop_output()
        return 2


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Shows this package's own warnings as the notes that they are; others as Python does."""
    with warnings.catch_warnings():
        former = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category.__module__.startswith("bnn_symm."):
                warn([message])
            else:
                former(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _drop_output() -> None:
    """What could not be written is not tried again when the interpreter ends, which would
    complain.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bnn-symm",
        description="Bayesian neural networks whose weight-space symmetries are modeled, measured "
        "and removed.",
        formatter_class=HelpFormatter,
        epilog="example: bnn-symm fit --set inference.name=nuts --set data.name=gap --out runs/gap",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says in one printable line what is wrong with a command line; its parsers of commands are of
    this class too.
    """

    def error(self, message: str) -> NoReturn:
        """Print the message and where to read more, and exit with status 2."""
        self.exit(
            2, f"{self.prog}: error: {one_line(message, LONGEST - 60)}; see {self.prog} --help\n"
        )


class _Version(argparse.Action):
    """Prints the version; looking it up takes time that other commands need not spend."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"bnn-symm {version('bnn_symm')}")
        parser.exit()
