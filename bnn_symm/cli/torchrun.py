"""Support `torchrun`: only one process prints, and only fits may run in several processes."""

import argparse
import contextlib
import io
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bnn_symm.cli.command import exit_status
from bnn_symm.errors import ConfigError

if TYPE_CHECKING:
    from bnn_symm.inference.parallel.process_group import ProcessGroup

# Seconds that a silent process waits for the one that prints, because torchrun ends all processes
# when one of them has failed.
_PRINT_TIMEOUT = 1.0


def is_torchrun() -> bool:
    """Return whether this is one of several processes that `torchrun` started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def silence_other_processes() -> Iterator[None]:
    """Suppress the output of all processes but the first, before they form a group.

    Yields:
        Nothing.
    """
    if not is_torchrun() or os.environ["RANK"] == "0":
        yield
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except BaseException as error:
        time.sleep(_PRINT_TIMEOUT)
        raise SystemExit(exit_status(error)) from None


def check_single_process(options: argparse.Namespace) -> None:
    """Check that a command for a single process does not run in several.

    Args:
        options: of the command line.

    Raises:
        ConfigError: if `torchrun` started it in several processes.
    """
    if is_torchrun() and not options.several_processes:
        raise ConfigError(
            f"`{options.prog}` runs in one process, got {os.environ['WORLD_SIZE']}; start it "
            "without torchrun, which is for `bnn-symm fit` with hmc, nuts, chees_hmc or mclmc"
        )


@contextlib.contextmanager
def only_first_process_prints(group: "ProcessGroup") -> Iterator[None]:
    """Let only the process that failed first print its error; the others exit silently.

    Args:
        group: the processes.

    Yields:
        Nothing.
    """
    try:
        yield
    except BaseException as error:
        if group.claim("speak"):
            raise
        time.sleep(_PRINT_TIMEOUT)
        raise SystemExit(exit_status(error)) from None
