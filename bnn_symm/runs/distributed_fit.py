"""A fit that several processes share: the first one keeps the run, the others compute and are
silent.

The first reads the configuration, holds the lock, writes everything, and measures what was fitted;
the others get from it what to fit and from where, and leave when the fit is complete. Before they
begin, all compare what they have read.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bnn_symm.errors import ConfigError, FitDiverged, InvalidRun, ProcessLost, shell_words
from bnn_symm.inference import Callback, FitState, State
from bnn_symm.inference.parallel.process_group import ProcessGroup, launch_command
from bnn_symm.io.owners import is_alive, this_process
from bnn_symm.models import PriorMean
from bnn_symm.posteriors import DrawChunk
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.writer import StopOnSignal
from bnn_symm.threads import use_threads

# Seconds after which a process that has just died is seen as dead.
_DEATH_IS_SEEN = 2.0


@dataclass(frozen=True)
class _Work:
    """What the first process hands to the others."""

    path: str
    config: Config
    prior_mean: PriorMean | None
    states: dict[int, State]


def check_can_share(config: Config, group: ProcessGroup) -> None:
    """Raises ConfigError if these processes cannot share the fit of this configuration."""
    config.inference.check_group(group)
    if group.size > 1 and config.warm_start:
        raise ConfigError(
            f"warm_start runs in one process, got {group.size}; fit it alone, and start this from "
            "it with "
            f"--set initial=RUN"
        )
    kind, _, number = config.device.partition(":")
    if group.size > 1 and number:
        raise ConfigError(
            f"device {config.device!r} is one device, got {group.size} processes; write `--set "
            f"device={kind}`, and each takes its own"
        )


@contextlib.contextmanager
def shared_work(
    group: ProcessGroup, path: str, prepared: Prepared, fit_state: FitState
) -> Iterator[None]:
    """In the first process, around the fit: the others know what to do; if one is lost, the error
    says which.

    Raises:
        InvalidRun: if the others have other data, threads or versions.
        ProcessLost: if one is gone or does not answer.
    """
    group.broadcast(_Work(path, prepared.config, prepared.prior_mean, fit_state.states))
    with _met(group, path, prepared):
        yield


def run_worker(group: ProcessGroup) -> bool:
    """In the others: computes what the first process says.

    Returns:
        Whether the fit was stopped before its end.

    Raises:
        InvalidRun: if it has other data, threads or versions than the first.
        FitDiverged: as in the first.
        ProcessLost: if another is gone or does not answer.
    """
    work = group.broadcast()
    if work is None:  # nothing was left to do
        return False
    # The prior's mean as the first process has it: what the configuration names may be gone, or
    # other weights by now.
    prepared, stop = prepare(work.config, mean=work.prior_mean), StopOnSignal()
    with _met(group, work.path, prepared), use_threads(prepared.threads), stop.installed():
        try:
            posterior = prepared.config.inference.fit(
                prepared.model,
                prepared.dataset,
                seed=prepared.config.seed,
                initial=prepared.initial,
                callbacks=[stop, _KeepsNothing()],
                fit_state=FitState(states=work.states),
                group=group,
            )
        except FitDiverged:
            leave_together(group)
            raise
        stopped = posterior.info["status"] != "complete"
        if stopped:
            leave_together(group)
        return stopped


def leave_together(group: ProcessGroup) -> None:
    """Returns once the first process is here too: it may write in peace, for torchrun ends all when
    one has failed.
    """
    group.broadcast()


class _KeepsNothing(Callback):
    """Spares a process draws that another one keeps."""

    def stored_draws(self) -> dict[int, DrawChunk]:
        return {}


@contextlib.contextmanager
def _met(group: ProcessGroup, path: str, prepared: Prepared) -> Iterator[None]:
    """With all processes alike; if one is lost within, the error says which."""
    told = group.gather((this_process(), _essence(prepared)))
    first = told[0][1]
    for rank, (_, own) in enumerate(told):
        unlike = [
            f"{key} is {own[key]}, there {value}"
            for key, value in first.items()
            if own[key] != value
        ]
        if unlike:
            raise InvalidRun(
                f"process {rank} of {group.size} is unlike process 0: {'; '.join(unlike)}"
            )
    try:
        yield
    except ProcessLost as error:
        raise ProcessLost(
            f"{_lost([process for process, _ in told]) or error}; go on with: "
            f"{launch_command(group.size)} {shell_words('fit', '--resume', path)}"
        ) from error


def _essence(prepared: Prepared) -> dict[str, Any]:
    record = prepared.record()
    data = {f"dataset.{key}": record["dataset"][key] for key in ("sha256", "split_sha256", "train")}
    keys = ("mask_fingerprint", "constants_fingerprint", "threads", "versions")
    return {**data, **{key: record.get(key) for key in keys}}


def _lost(processes: list[dict[str, Any]]) -> str | None:
    """Which of them are dead, in words; None if none is seen to be."""
    end = time.monotonic() + _DEATH_IS_SEEN
    while True:
        dead = [rank for rank, process in enumerate(processes) if not is_alive(process)]
        if dead or time.monotonic() > end:
            break
        time.sleep(0.02)
    words = [
        f"process {rank} of {len(processes)} (pid {processes[rank]['pid']}) is gone"
        for rank in dead
    ]
    return ", ".join(words) or None
