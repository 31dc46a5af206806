"""Parse a command line, run its command, and report errors in one line with an exit status.

Heavy imports are deferred until a command runs, so that `--help` is fast. The answer goes to stdout
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

from bnn_symm.advice import for_command_line
from bnn_symm.cli.analysis import (
    align,
    barrier,
    diagnose,
    fidelity,
    masks,
    merge,
    prior,
    sbc,
    symmetry,
    zoo,
)
from bnn_symm.cli.command import INTERRUPTED, LONGEST, HelpFormatter, exit_status, warn
from bnn_symm.cli.fitting import (
    compare,
    config,
    data,
    evaluate,
    examples,
    fit,
    import_,
    predict,
    report,
    sign,
)
from bnn_symm.cli.torchrun import check_single_process, silence_other_processes
from bnn_symm.errors import BnnSymmError, one_line, printable

# In the order of `--help`.
_COMMANDS = (
    *(fit, evaluate, predict, diagnose, fidelity, prior, symmetry),
    *(align, barrier, merge, masks, compare, report, import_, sbc, zoo),
    *(sign, data, config, examples),
)


@for_command_line()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the command line names.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        The exit status.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with silence_other_processes():
            options = build_parser().parse_args(words or ["--help"])
        return _run(options)
    except BrokenPipeError:  # the reader of the output is gone, as after `| head`
        return 0
    finally:
        _drop_unwritten_output()


def _run(options: argparse.Namespace) -> int:
    """Run a command and report its error; return the exit status."""
    try:
        with silence_other_processes():
            check_single_process(options)
        with _warnings_in_one_line():
            status = options.command(options)
        sys.stdout.flush()
        return status
    except BnnSymmError as error:
        if options.debug:
            raise
        _print_error(f"error: {one_line(error, LONGEST)}")
        return exit_status(error)
    except KeyboardInterrupt as error:
        _print_error(f"interrupted{f'; {printable(str(error))}' if str(error) else ''}")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if options.debug:
            raise
        message = f"{one_line(error.filename or 'output', 150)}: {error.strerror or error}"
        _print_error(f"error: {one_line(message, LONGEST)}")
        return 2


def _print_error(message: str) -> None:
    """Print a line on stderr, if it still has a reader."""
    with contextlib.suppress(BrokenPipeError):
        print(f"bnn-symm: {message}", file=sys.stderr)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show warnings of this package as notes, and others as Python does."""
    with warnings.catch_warnings():
        former = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category.__module__.startswith("bnn_symm."):
                warn([message])
            else:
                former(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _drop_unwritten_output() -> None:
    """Discard what cannot be written, which would cause an error when the interpreter ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line with all commands."""
    parser = _Parser(
        prog="bnn-symm",
        description="Bayesian neural networks whose weight-space symmetries are modeled, measured "
        "and removed.",
        formatter_class=HelpFormatter,
        epilog="example: bnn-symm fit --set inference.name=nuts --set data.name=gap --out runs/gap",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        metavar="SHELL",
        help="print a script that completes commands, options and files in bash, zsh or fish, "
        'and exit; in bash: eval "$(bnn-symm --print-completion bash)"',
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Parser that reports an error in one printable line; its subparsers do so too."""

    def error(self, message: str) -> NoReturn:
        """Print the message and the help command, and exit with status 2.

        Args:
            message: the error.
        """
        self.exit(
            2, f"{self.prog}: error: {one_line(message, LONGEST - 60)}; see {self.prog} --help\n"
        )


class _Version(argparse.Action):
    """Action that prints the version, which is looked up only when it is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"bnn-symm {version('bnn_symm')}")
        parser.exit()


# What the shell completes for the placeholders of arguments.
_COMPLETED = {
    **dict.fromkeys(("RUN", "DIR", "REFERENCE"), "DIRECTORY"),
    **dict.fromkeys(("CONFIG", "FILE", "INPUT", "OUTPUT", "NAME|FILE", "MAP.yaml"), "FILE"),
}


class _Completion(argparse.Action):
    """Action that prints the completion script of a shell."""

    def __call__(
        self, parser: argparse.ArgumentParser, _: Any, shell: Any, option: str | None = None
    ) -> None:
        import shtab

        if shell not in shtab.SUPPORTED_SHELLS:
            known = ", ".join(shtab.SUPPORTED_SHELLS)
            parser.error(f"{option} {one_line(shell, 40)}: expected one of {known}")
        for action in (action for part in all_parsers(parser) for action in part._actions):
            if isinstance(action.metavar, str) and action.metavar in _COMPLETED:
                kind = getattr(shtab, _COMPLETED[action.metavar])
                action.complete = kind  # pyright: ignore[reportAttributeAccessIssue]
        print(shtab.complete(parser, shell))
        parser.exit()


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and all parsers of commands below it.

    Args:
        parser: of a command, or of the program (`build_parser`).
    """
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from all_parsers(below)
