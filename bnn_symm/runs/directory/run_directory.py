"""Manage the directory of one run: created whole, owned by one writer, readable at any moment.

While it runs:

    config.yaml  run.json  preprocessing.json  history.jsonl  draws/  checkpoint/

When it is complete:

    config.yaml  run.json  preprocessing.json  history.parquet  posterior.nc  metrics.json

Always, where they apply: symmetry.safetensors, the masks and fixed values of the network;
prior_mean.safetensors, the mean of the prior; network.safetensors, the constants of a user-defined
network; fixed_parameters.safetensors, the parameters that `inference.parameters` keeps fixed (with
a warm start, from its end on). The methods of a warm start store their state in folders of their
own (`stages`).

A directory is created under a temporary name and renamed, so it never exists without its
configuration. A running fit only appends. The writer holds a lock; a run whose status is `running`
but whose writer is dead reads as `interrupted`. Everything, including names in folders, is synced
to disk before anything that depends on it is written and before anything that it replaces is
removed, so that a power cut has the same effect as a kill. Only files with names of a run are
removed, and symbolic links are not followed: a run may be a link to a folder elsewhere, its folders
may not.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.errors import InvalidRun
from bnn_symm.inference import FitState, State
from bnn_symm.io.arrays import read_arrays
from bnn_symm.io.atomic import (
    is_temporary,
    make_folder,
    remove_files,
    remove_if_empty,
    remove_temporary_files,
    sync_folder,
    write_atomically,
    write_bytes,
    write_json,
    write_text,
)
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.documents import read_json
from bnn_symm.io.locks import FolderLock
from bnn_symm.models import PriorMean
from bnn_symm.posteriors import DrawLog, Posterior, save_posterior
from bnn_symm.posteriors.io.draw_log import is_draw_file
from bnn_symm.runs.directory.file_schemas import MetricsFile, RunRecord, check_file
from bnn_symm.runs.directory.history import COST, LOG, TABLE, last_stage, stage_folders, stage_rows
from bnn_symm.runs.directory.output_directory import create_whole
from bnn_symm.runs.directory.signature import FILES, ID, RunSignature, check_state, metadata, new_id

RUN_SCHEMA = 1
# Keys that `run.json` has from the start.
_KEYS = ("status", "threads", "versions", "num_outputs", "dataset", "mask_fingerprint")
# Names of the states of a run that is not complete yet.
_STATE = re.compile(r"chain-\d{4,}\.safetensors")
_KEPT = re.compile(r"step-\d{9,}(-chain-\d{4,}\.safetensors|\.nc)")
# The file that a study adds to each of its runs.
MEASURES = "measures.json"


class RunDirectory:
    """Give access to the paths and files of a run; the module describes the layout.

    Args:
        path: the path of the directory.
        lock: its lock; by default a new object.
        signature: its signature; a stage uses that of its run.
    """

    def __init__(
        self,
        path: str | Path,
        lock: FolderLock | None = None,
        signature: RunSignature | None = None,
    ):
        self.path = Path(path)
        self._lock = lock or FolderLock(self.path)
        self.signature = signature or RunSignature(self.record)

    config = property(lambda self: self.path / "config.yaml")
    record = property(lambda self: self.path / "run.json")
    preprocessing = property(lambda self: self.path / "preprocessing.json")
    fixed = property(lambda self: self.path / "symmetry.safetensors")
    prior_mean = property(lambda self: self.path / "prior_mean.safetensors")
    network = property(lambda self: self.path / "network.safetensors")
    fixed_parameters = property(lambda self: self.path / "fixed_parameters.safetensors")
    history_log = property(lambda self: self.path / LOG)
    history = property(lambda self: self.path / TABLE)
    draws = property(lambda self: self.path / "draws")
    checkpoint = property(lambda self: self.path / "checkpoint")
    kept = property(lambda self: self.path / "checkpoints")
    posterior = property(lambda self: self.path / "posterior.nc")
    metrics = property(lambda self: self.path / "metrics.json")
    evaluations = property(lambda self: self.path / "evaluations")
    lock = property(lambda self: self._lock.record)

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        config: str,
        record: Mapping[str, Any],
        preprocessing: Mapping[str, Any],
        fixed: Mapping[str, Tensor],
        prior_mean: PriorMean | None = None,
        network: bytes | None = None,
        fixed_parameters: Mapping[str, Tensor] | None = None,
        complete: Callable[["RunDirectory"], object] = lambda run: None,
    ) -> "RunDirectory":
        """Create a run directory with its first files and the lock of this process.

        Args:
            path: the path of the directory.
            config: text of `config.yaml`.
            record: content of `run.json`.
            preprocessing: content of `preprocessing.json`.
            fixed: masks and fixed values of the network by name; may be empty.
            prior_mean: the mean of the prior, if it is not zero.
            network: content of `network.safetensors`, for a user-defined network.
            fixed_parameters: parameters of the network that get no posterior, by name, if their
                values are known already.
            complete: writes further files before the run appears; see `write_result`.

        Returns:
            The directory.

        Raises:
            InvalidRun: if it exists, or its parent cannot be written.
        """
        # Fixed values are stored as float32, whatever the dtype of the network.
        fixed = {name: v if v.dtype == torch.bool else v.float() for name, v in fixed.items()}
        with create_whole(path) as lock:
            run = cls(lock.folder, lock)
            write_text(run.config, config, sync_parent=False)
            write_json(run.preprocessing, preprocessing, sync_parent=False)
            for file, tensors in (
                (run.fixed, fixed),
                (run.prior_mean, {} if prior_mean is None else prior_mean.weights),
                (run.fixed_parameters, fixed_parameters or {}),
            ):
                if tensors:
                    write_bytes(file, _safetensors(tensors), sync_parent=False)
            if network is not None:
                write_bytes(run.network, network, sync_parent=False)
            bound = {ID: new_id(), FILES: run.signature.hashes(*run._first_files)}
            content = {"run_schema": RUN_SCHEMA, "status": "running", **record, **bound}
            write_json(run.record, content, sync_parent=False)
            run.draws.mkdir()
            run.checkpoint.mkdir()
            complete(run)
        return cls(path, lock)

    def read_record(self) -> dict[str, Any]:
        """Return the content of `run.json`, with the current status.

        Raises:
            InvalidRun: if this is not a run directory, or has a newer schema.
        """
        if not self.path.exists():
            raise InvalidRun(
                f"no run at {self.path}; create one with "
                f"{advise('`bnn-symm fit --out DIR`', 'fit_run(config, DIR)')}"
            )
        record = self.read_json(self.record)
        schema = record.get("run_schema")
        if not isinstance(schema, int):
            raise InvalidRun(f"{self.record} is not a run of bnn_symm")
        if schema > RUN_SCHEMA:
            raise InvalidRun(
                f"{self.path} has run schema {schema}, this version reads up to {RUN_SCHEMA}; "
                "upgrade bnn_symm"
            )
        missing = [key for key in _KEYS if key not in record]
        if missing:
            raise InvalidRun(f"{self.record} is damaged: it has no {', '.join(missing)}")
        check_file(self.record, record, RunRecord)
        if record.get("status") == "running" and not self.is_owned():
            record["status"] = "interrupted"
        return record

    def update_record(self, **changes: Any) -> None:
        """Change keys of `run.json` atomically.

        Args:
            changes: the keys and their new values; None removes a key that is not required.
        """
        record = {**self.read_json(self.record), **changes}
        write_json(
            self.record,
            {key: value for key, value in record.items() if value is not None or key in _KEYS},
        )

    def read_fixed(self) -> dict[str, Tensor]:
        """Return masks, fixed values and matrices by name, as stored when the run was created.

        Raises:
            InvalidRun: if the file is missing or damaged.
        """
        return self._read_tensors(self.fixed, "which contains its fixed weights")

    def write_fixed_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Write the parameters of the network that get no posterior.

        Args:
            values: name -> value.
        """
        write_bytes(self.fixed_parameters, _safetensors(values))

    def sign_fixed_parameters(self) -> None:
        """Sign that file, if there is one: a process may be killed before it has signed it."""
        self.signature.add(self.fixed_parameters)

    def read_fixed_parameters(self) -> dict[str, Tensor] | None:
        """Return the parameters of the network that get no posterior; None if not known yet.

        Raises:
            InvalidRun: if the file is damaged, was changed or removed.
        """
        self.signature.require(self.fixed_parameters)
        if not self.fixed_parameters.exists():
            return None
        self.signature.check(self.fixed_parameters)
        return self._read_tensors(self.fixed_parameters, "the fixed parameters of its network")

    def _read_tensors(self, path: Path, content: str) -> dict[str, Tensor]:
        try:
            return {name: torch.from_numpy(value) for name, value in read_arrays(path).items()}
        except FileNotFoundError:
            raise InvalidRun(
                f"{self.path} has no {path.name}, {content}; copy the whole directory, or fit again"
            ) from None

    def read_prior_mean(self, record: Mapping[str, Any]) -> PriorMean | None:
        """Return the mean of the prior, as stored when the run was created; None for zero.

        Args:
            record: the content of `run.json`.

        Raises:
            InvalidRun: if the file is missing, damaged or changed.
        """
        wanted = record.get("prior_mean")
        if wanted is None:
            return None
        mean = PriorMean(self._read_tensors(self.prior_mean, "the mean of its prior"))
        if mean.sha256 != wanted:
            raise InvalidRun(
                f"{self.prior_mean} was changed since the fit (sha256 {mean.sha256[:12]}, "
                f"{self.record.name} has {str(wanted)[:12]}); restore it, or fit again"
            )
        return mean

    @staticmethod
    def read_json(path: Path) -> dict[str, Any]:
        """Read a JSON file of the run.

        Args:
            path: the path of the file.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            return read_json(path)
        except FileNotFoundError:
            if path.parent.exists() and not path.parent.is_dir():
                raise InvalidRun(
                    f"{path.parent} is a file, expected the directory of a run"
                ) from None
            raise InvalidRun(
                f"{path.parent} is not a run of bnn_symm: it has no {path.name}; name a directory "
                f"that {advise('`bnn-symm fit`', 'fit_run')} wrote"
            ) from None

    # -- signed files

    @property
    def _first_files(self) -> list[Path]:
        """List the files that a run has from the start."""
        return [
            *(self.config, self.preprocessing, self.fixed, self.prior_mean, self.network),
            self.fixed_parameters,
        ]

    @property
    def _final_files(self) -> list[Path]:
        """List the files that are written when a run is complete."""
        return [
            *(self.fixed_parameters, self.posterior, self.metrics, self.history, self.path / COST),
            *self._kept_files(),
        ]

    def check_first_files(self) -> None:
        """Compare the files that a run has from the start with its signature.

        Raises:
            InvalidRun: if a file is not the run's.
        """
        self.signature.check(*self._first_files)

    def has_posterior(self) -> bool:
        """Return whether there is a posterior file that belongs to this run.

        Raises:
            InvalidRun: if the file is signed but was changed or removed.
        """
        return self.signature.has(self.posterior)

    def sign_again(self) -> list[str]:
        """Sign all files in their present state.

        Returns:
            The names of the files that had changed.

        Raises:
            InvalidRun: if a live process writes this run.
        """
        self.read_json(self.record)
        self.acquire()
        try:
            stages = [
                RunDirectory(folder, signature=self.signature)
                for folder in stage_folders(self.path)
            ]
            last = [path for directory in (*stages, self) for path in directory._final_files]
            return self.signature.renew(*self._first_files, self.path / MEASURES, *last)
        finally:
            self.release()

    def draw_log(self) -> DrawLog:
        """Return the log of the draws of a fit that is not complete yet."""
        return DrawLog(self.draws, run=self.signature.token(self.draws))

    def _kept_files(self) -> list[Path]:
        """List the files of the states that were preserved, or of posteriors derived from them."""
        return sorted(path for path in self.kept.glob("step-*") if _KEPT.fullmatch(path.name))

    # -- the lock of the writer

    def is_owned(self) -> bool:
        """Return whether a live process writes this run; one on another machine counts as live."""
        return self._lock.is_held()

    def acquire(self) -> None:
        """Acquire the lock of this run, which may have belonged to a process that died.

        Raises:
            InvalidRun: if a live process holds it, or the run cannot be written.
        """
        self.check_folders()
        self._lock.acquire()

    def release(self) -> None:
        """Release the lock of this run."""
        self._lock.release()

    def check_folders(self) -> None:
        """Check that no folder of this run is a symbolic link, which could lead to files of others.

        Raises:
            InvalidRun: if a folder is one.
        """
        warm_start = self.path / "warm_start"
        for folder in (self.draws, self.checkpoint, self.kept, warm_start, *warm_start.glob("*")):
            if folder.is_symlink():
                raise InvalidRun(
                    f"{folder} is a symbolic link, and a run writes and removes files only in its "
                    "own folders; replace it by the folder itself (the whole run may be a link)"
                )

    # -- the state of a running fit

    def save_state(self, chain: int, state: State) -> None:
        """Replace the checkpoint of a chain.

        Args:
            chain: the number of the chain.
            state: its state.
        """
        self._write_state(self.checkpoint / f"chain-{chain:04d}.safetensors", state)

    def keep_state(self, chain: int, step: int, state: State) -> None:
        """Write a state that is preserved; the same step replaces the same file.

        Args:
            chain: the number of the chain.
            step: the step of the state.
            state: the state.
        """
        make_folder(self.kept)
        self._write_state(self.kept / f"step-{step:09d}-chain-{chain:04d}.safetensors", state)

    def keep_posteriors(
        self, posteriors: Mapping[int, Posterior], max_megabytes: float = 200.0
    ) -> None:
        """Write posteriors of steps, in a run that is derived from one with preserved states.

        Args:
            posteriors: by step.
            max_megabytes: the limit on draws of a closed-form posterior.
        """
        if posteriors:
            make_folder(self.kept)
        for step, posterior in posteriors.items():
            path = self.kept / f"step-{step:09d}.nc"
            save_posterior(posterior, path, max_megabytes=max_megabytes)

    def kept_posteriors(self) -> dict[int, Path]:
        """Return the files of the posteriors of steps in a derived run.

        Raises:
            InvalidRun: if a file is damaged.
        """
        files = [path for path in self._kept_files() if path.suffix == ".nc"]
        self.signature.check(*files)
        return {int(path.stem.removeprefix("step-")): path for path in files}

    def _write_state(self, path: Path, state: State) -> None:
        # `save_file` would report a full disk with an exception of another type.
        write_bytes(path, save(state, metadata(self.signature.token(path.parent), state)))

    def kept_states(self) -> dict[int, dict[int, State]]:
        """Return all preserved states by step and chain.

        Raises:
            InvalidRun: if a file is damaged.
        """
        self.signature.check(*self._kept_files())
        states: dict[int, dict[int, State]] = {}
        for path in sorted(self.kept.glob("step-*-chain-*.safetensors")):
            _, step, _, chain = path.stem.split("-", 3)
            state = self._read_state(path, step, chain)
            states.setdefault(int(step), {})[int(chain)] = state
        return states

    def _read_state(self, path: Path, *numbers: str) -> State:
        """Return a state after checking the numbers in its name, and that it is of this run."""
        if not all(number.isascii() and number.isdecimal() for number in numbers):
            raise InvalidRun(f"{path} is not a state of this run; remove it from its folder")
        try:
            state = read_arrays(path)
        except FileNotFoundError:
            raise InvalidRun(
                f"{path} cannot be found: it is a broken link, or the run continued meanwhile; "
                "load the run again, or restore the file"
            ) from None
        check_state(path, self.signature.token(path.parent), state)
        return state

    def fit_state(self) -> FitState:
        """Return the last saved state of a run that is running, or was killed.

        Raises:
            InvalidRun: if a file is damaged.
        """
        states = {}
        for path in sorted(self.checkpoint.glob("chain-*.safetensors")):
            chain = path.stem.removeprefix("chain-")
            state = self._read_state(path, chain)
            states[int(chain)] = state
        with parser_errors(self.draws, "restore the original draws", problem="is damaged"):
            draws = self.draw_log().chains() if self.draws.exists() else {}
        self.signature.check(self.history)
        return FitState(states, draws, stage_rows(self.path))

    def rewrite(self, fit_state: FitState) -> FitState:
        """Truncate the files of the run to a state, so that a resumed fit appends to them.

        Draws beyond the state stay on disk if the resumed fit makes the same ones again.

        A process killed here leaves files from which the same state can be read again.

        Args:
            fit_state: the state from which the fit continues.

        Returns:
            The same state, with its draws as stored on disk.
        """
        self.check_folders()
        self._remove_leftovers()
        write_text(self.history_log, "".join(json.dumps(row) + "\n" for row in fit_state.history))
        if self.history.exists():
            self.history.unlink()
            sync_folder(self.path)
        log = self.draw_log()
        lengths = {chain: len(chunk.positions) for chain, chunk in fit_state.draws.items()}
        if not self._makes_the_same_draws():
            log.cut(lengths)
        make_folder(self.checkpoint)
        kept = {f"chain-{chain:04d}.safetensors" for chain in fit_state.states}
        remove_files(
            self.checkpoint, lambda name: _STATE.fullmatch(name) is not None and name not in kept
        )
        sync_folder(self.checkpoint)
        sync_folder(self.path)
        stored = log.chains()
        draws = {chain: stored[chain].part(0, number) for chain, number in lengths.items()}
        return dataclasses.replace(fit_state, draws=draws)

    def _makes_the_same_draws(self) -> bool:
        """Return whether a resumed fit makes the draws beyond its last state once more.

        Those then stay on disk, so that a process killed soon after has not lost them.
        """
        return self.record.exists() and "resumed_with_changes" not in self.read_record()

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of a process that was killed."""
        for folder in (self.path.resolve(), self.draws, self.checkpoint, self.kept):
            remove_temporary_files(folder)

    def read_history(self) -> list[dict[str, Any]]:
        """Return the rows of the history; with a warm start, those of the last active method."""
        stages = stage_folders(self.path)
        self.signature.require(self.history)
        self.signature.check(
            self.history, *(folder / name for folder in stages for name in (TABLE, COST))
        )
        return last_stage(self.path)

    def evaluation_path(self, name: str, content: Mapping[str, Any]) -> Path:
        """Return the path of an evaluation, which replaces only an evaluation of the same data.

        Args:
            name: the stem of the file name.
            content: the content of the evaluation.
        """
        number = 1
        while True:
            path = self.evaluations / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
            if not path.exists():
                return path
            former = self.read_json(path)
            if all(former.get(key) == content.get(key) for key in ("data", "shift", "ood")):
                return path
            number += 1

    def read_metrics(self) -> dict[str, Any] | None:
        """Return the content of `metrics.json`; None for a run that is not complete.

        Raises:
            InvalidRun: if the file is damaged or not the run's.
        """
        if not self.signature.has(self.metrics):
            return None
        content = self.read_json(self.metrics)
        check_file(self.metrics, content, MetricsFile)
        return content

    def finish_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `history.parquet`, the last file of a complete run; see `is_finished`.

        Args:
            rows: the rows of the history.
        """
        import pandas

        frame = pandas.DataFrame(rows)
        write_atomically(self.history, lambda temporary: frame.to_parquet(temporary, index=False))

    def is_finished(self) -> bool:
        """Return whether all files of a complete run exist, whatever the status in `run.json`."""
        return self.has_posterior() and self.metrics.exists() and self.history.exists()

    def write_result(
        self,
        posterior: Posterior,
        metrics: Mapping[str, Any],
        max_megabytes: float = 200.0,
        **changes: Any,
    ) -> None:
        """Write the final files of a run that is created complete.

        Args:
            posterior: the posterior.
            metrics: content of `metrics.json`.
            max_megabytes: the limit on draws of a closed-form posterior.
            changes: keys of `run.json` that change with it.
        """
        save_posterior(posterior, self.posterior, max_megabytes=max_megabytes)
        write_json(self.metrics, metrics)
        self.finish_history(posterior.history)
        self.finish(**changes)

    def finish(self, **changes: Any) -> None:
        """Remove the working files of a finished run, and set its status to complete.

        Args:
            changes: keys of `run.json` that change with it.
        """
        self._remove_leftovers()
        self.sign()
        self.remove_working_files()
        self.update_record(**{"error": None, **changes, "status": "complete"})

    def sign(self) -> None:
        """Sign the final files, so that files of another run cannot take their place."""
        self.signature.add(*self._final_files)

    def remove_working_files(self) -> None:
        """Remove the working files of a run whose final files exist, and nothing else."""
        self.history_log.unlink(missing_ok=True)
        remove_files(self.draws, lambda name: is_temporary(name) or is_draw_file(name))
        remove_files(
            self.checkpoint, lambda name: is_temporary(name) or _STATE.fullmatch(name) is not None
        )
        remove_if_empty(self.draws)
        remove_if_empty(self.checkpoint)
        sync_folder(self.path)


def _safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file of tensors."""
    return save({name: value.detach().cpu().numpy() for name, value in tensors.items()})
