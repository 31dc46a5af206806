"""Fit one posterior with several processes, of which the first one owns the run.

The first process reads the configuration, holds the lock, writes all files and evaluates the
posterior. The others receive the configuration and the state to start from, compute, write nothing,
and exit when the fit is complete. Before they start, all processes compare what they have read.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bnn_symm.advice import advise_setting
from bnn_symm.errors import ConfigError, FitDiverged, InvalidRun, ProcessLost, shell_words
from bnn_symm.inference import Callback, FitState, State
from bnn_symm.inference.parallel.process_group import ProcessGroup, launch_command
from bnn_symm.io.owners import is_alive, process_record
from bnn_symm.models import PriorMean
from bnn_symm.posteriors import DrawChunk
from bnn_symm.runs.configuration.config import Config
from bnn_symm.runs.configuration.prepare import Prepared, prepare
from bnn_symm.runs.directory.writer import StopOnSignal
from bnn_symm.threads import use_threads

# Seconds to wait until the operating system reports a process that has just died as dead.
_DEATH_TIMEOUT = 2.0


@dataclass(frozen=True)
class _SharedFit:
    """Hold what the first process sends to the others."""

    path: str
    config: Config
    prior_mean: PriorMean | None
    states: dict[int, State]


def check_can_share(config: Config, group: ProcessGroup) -> None:
    """Check that the processes of a group can share the fit of a configuration.

    Args:
        config: the configuration.
        group: the processes.

    Raises:
        ConfigError: if they cannot.
    """
    config.inference.check_group(group)
    if group.size > 1 and config.warm_start:
        raise ConfigError(
            f"warm_start runs in one process, got {group.size}; fit the warm start in a run of its "
            f"own, and start from it with {advise_setting('initial=RUN')}"
        )
    kind, _, number = config.device.partition(":")
    if group.size > 1 and number:
        raise ConfigError(
            f"device {config.device!r} is one device, got {group.size} processes; write "
            f"{advise_setting(f'device={kind}')}, and each process uses a device of its own"
        )


@contextlib.contextmanager
def shared_fit(
    group: ProcessGroup, path: str, prepared: Prepared, fit_state: FitState
) -> Iterator[None]:
    """Share the fit within this context; called by the first process.

    Args:
        group: the processes.
        path: path of the run.
        prepared: the prepared fit.
        fit_state: the state to start from.

    Raises:
        InvalidRun: if another process has other data, threads or versions.
        ProcessLost: if a process died or does not answer. The message names it.
    """
    group.broadcast(_SharedFit(path, prepared.config, prepared.prior_mean, fit_state.states))
    with _matching_processes(group, path, prepared):
        yield


def run_worker(group: ProcessGroup) -> bool:
    """Compute the share of this process; called by every process but the first.

    Args:
        group: the processes.

    Returns:
        Whether the fit was stopped before its end.

    Raises:
        InvalidRun: if this process has other data, threads or versions than the first.
        FitDiverged: as in the first process.
        ProcessLost: if another process died or does not answer.
    """
    work = group.broadcast()
    if work is None:  # The run was finished already.
        return False
    # The prior mean comes from the first process: the file that the configuration names may have
    # been removed or replaced.
    prepared, stop = prepare(work.config, mean=work.prior_mean), StopOnSignal()
    with (
        _matching_processes(group, work.path, prepared),
        use_threads(prepared.threads),
        stop.installed(),
    ):
        try:
            posterior = prepared.config.inference.fit(
                prepared.model,
                prepared.dataset,
                seed=prepared.config.seed,
                initial=prepared.initial,
                callbacks=[stop, _DiscardDraws()],
                fit_state=FitState(states=work.states),
                group=group,
            )
        except FitDiverged:
            exit_barrier(group)
            raise
        stopped = posterior.info["status"] != "complete"
        if stopped:
            exit_barrier(group)
        return stopped


def exit_barrier(group: ProcessGroup) -> None:
    """Wait until every process has reached this point.

    The first process writes its files before it arrives: torchrun ends all processes as soon as one
    of them has failed.
    """
    group.broadcast()


class _DiscardDraws(Callback):
    """Avoid that a process stores draws which the first process stores."""

    def stored_draws(self) -> dict[int, DrawChunk]:
        """Return no draws: the first process stores them."""
        return {}


@contextlib.contextmanager
def _matching_processes(group: ProcessGroup, path: str, prepared: Prepared) -> Iterator[None]:
    """Check that all processes have read the same; name the process if one is lost within."""
    gathered = group.gather((process_record(), _compared_record(prepared)))
    first = gathered[0][1]
    for rank, (_, record) in enumerate(gathered):
        differences = [
            f"{key} is {record[key]}, expected {value}"
            for key, value in first.items()
            if record[key] != value
        ]
        if differences:
            raise InvalidRun(
                f"process {rank} of {group.size} differs from process 0: {'; '.join(differences)}"
            )
    try:
        yield
    except ProcessLost as error:
        raise ProcessLost(
            f"{_dead_processes([process for process, _ in gathered]) or error}; resume with: "
            f"{launch_command(group.size)} {shell_words('fit', '--resume', path)}"
        ) from error


def _compared_record(prepared: Prepared) -> dict[str, Any]:
    """Return the part of the record that has to agree in all processes."""
    record = prepared.record()
    data = {f"dataset.{key}": record["dataset"][key] for key in ("sha256", "split_sha256", "train")}
    keys = ("mask_fingerprint", "constants_fingerprint", "threads", "versions")
    return {**data, **{key: record.get(key) for key in keys}}


def _dead_processes(processes: list[dict[str, Any]]) -> str | None:
    """Return a text that names the dead processes; None if none is known to be dead."""
    end = time.monotonic() + _DEATH_TIMEOUT
    while True:
        dead = [rank for rank, process in enumerate(processes) if not is_alive(process)]
        if dead or time.monotonic() > end:
            break
        time.sleep(0.02)
    names = [
        f"process {rank} of {len(processes)} (pid {processes[rank]['pid']}) died" for rank in dead
    ]
    return ", ".join(names) or None
