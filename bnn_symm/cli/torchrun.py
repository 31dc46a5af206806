"""The command line in several processes: one voice, and a fit that they share."""

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

# Seconds that a silent process leaves the one that speaks: torchrun ends all others when one of
# them has failed.
_TO_SPEAK = 1.0


def is_torchrun() -> bool:
    """Whether this is one of several processes that `torchrun` started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def first_speaks() -> Iterator[None]:
    """What all processes find alike, before they have met, only the first one says."""
    if not is_torchrun() or os.environ["RANK"] == "0":
        yield
        return
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except BaseException as error:
        time.sleep(_TO_SPEAK)
        raise SystemExit(exit_status(error)) from None


def check_alone(options: argparse.Namespace) -> None:
    """Raises ConfigError in one of several processes, if the command is for one."""
    if is_torchrun() and not options.several_processes:
        raise ConfigError(
            f"`{options.prog}` runs in one process, got {os.environ['WORLD_SIZE']}; start it "
            "without torchrun, "
            f"which is for `bnn-symm fit` with hmc, nuts or chees_hmc"
        )


@contextlib.contextmanager
def only_first_process_prints(group: "ProcessGroup") -> Iterator[None]:
    """Of an error the process speaks that had it first: the others fail with it, or for want of
    it.
    """
    try:
        yield
    except BaseException as error:
        if group.claim("speak"):
            raise
        time.sleep(_TO_SPEAK)
        raise SystemExit(exit_status(error)) from None
