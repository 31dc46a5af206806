"""The directory of one run: created whole, owned by one writer, readable at any moment.

    config.yaml  run.json  preprocessing.json  history.jsonl  draws/  checkpoint/      while it runs
    config.yaml  run.json  preprocessing.json  history.parquet  posterior.nc  metrics.json      when
    it is complete

and throughout symmetry.safetensors, the masks and fixed values of a network that has them,
prior_mean.safetensors, what a prior is centerd on, and network.safetensors, what a user's own
network is besides its parameters. What the methods of a warm start reach is in folders of their own
(`stages`).

A directory is made under a temporary name and renamed, so it never exists without its
configuration. While a fit runs it only appends. The writer holds a lock; a run whose status is
`running` but whose writer is gone reads as `interrupted`. Everything is on the disk, names in
folders included, before what builds on it is written and before what it replaces is removed, so
that a power cut leaves what a kill leaves. Only files whose names are a run's own are ever removed,
and symbolic links are not followed: a run may be a link to a folder elsewhere, its folders may not.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save
from torch import Tensor

from bnn_symm.errors import InvalidRun
from bnn_symm.inference import FitState, State
from bnn_symm.io.arrays import read_arrays
from bnn_symm.io.atomic import (
    NAME_LENGTH,
    TEMPORARY,
    is_real_folder,
    is_temporary,
    make_folder,
    make_temporary_folder,
    publish_folder,
    remove_files,
    remove_if_empty,
    remove_temporary_files,
    sync_folder,
    write_atomically,
    write_json,
    write_text,
)
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.documents import read_json
from bnn_symm.io.locks import LOCK, FolderLock
from bnn_symm.models import PriorMean
from bnn_symm.posteriors import DrawLog
from bnn_symm.posteriors.io.draw_log import is_draw_file
from bnn_symm.runs.directory.file_schemas import MetricsFile, RunRecord, check_file
from bnn_symm.runs.directory.history import COST, LOG, TABLE, last_stage, own_rows, stage_folders
from bnn_symm.runs.directory.output_directory import check_free
from bnn_symm.runs.directory.signature import FILES, ID, RunSignature, check_state, metadata, new_id

RUN_SCHEMA = 1
# What `run.json` has from the start.
_KEYS = ("status", "threads", "versions", "num_outputs", "dataset", "mask_fingerprint")
# Names of the states and draws of a run that has not been completed yet.
_STATE = re.compile(r"chain-\d{4,}\.safetensors")
_KEPT = re.compile(r"step-\d{9,}-chain-\d{4,}\.safetensors")
# What a study adds to the runs that it is made of.
MEASURES = "measures.json"


class RunDirectory:
    """Paths and files of a run; see the module for the layout."""

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
    ) -> "RunDirectory":
        """Makes a new run directory, complete with its first files and this process's lock.

        Args:
            path: where.
            config: text of `config.yaml`.
            record: content of `run.json`.
            preprocessing: content of `preprocessing.json`.
            fixed: what is fixed at random in the network, by name; may be empty.
            prior_mean: what the prior of the model is centerd on.
            network: content of `network.safetensors`, what a user's own network is besides its
                parameters.

        Raises:
            InvalidRun: if it exists, or its parent cannot be written.
        """
        check_free(path)
        try:
            make_folder(path.parent)
            _remove_incomplete(path)
            temporary = cls(make_temporary_folder(path))
        except OSError as error:
            raise InvalidRun(
                f"{path.parent} cannot be written ({error.strerror}); choose another place with "
                "--out DIR"
            ) from None
        try:
            temporary._lock.acquire()
            temporary.path.chmod(0o755)
            write_text(temporary.config, config, sync_parent=False)
            write_json(temporary.preprocessing, preprocessing, sync_parent=False)
            if fixed:
                # Fixed values are float32 numbers in networks of any dtype.
                arrays = {name: value.cpu() for name, value in fixed.items()}
                single = {
                    name: v if v.dtype == torch.bool else v.float() for name, v in arrays.items()
                }
                _write_arrays(
                    temporary.fixed, {name: value.numpy() for name, value in single.items()}
                )
            if prior_mean is not None:
                means = {name: value.numpy() for name, value in prior_mean.weights.items()}
                _write_arrays(temporary.prior_mean, means)
            if network is not None:
                write_atomically(
                    temporary.network, lambda path: path.write_bytes(network), sync_parent=False
                )
            bound = {ID: new_id(), FILES: temporary.signature.hashes(*temporary._written_at_first)}
            content = {"run_schema": RUN_SCHEMA, "status": "running", **record, **bound}
            write_json(temporary.record, content, sync_parent=False)
            temporary.draws.mkdir()
            temporary.checkpoint.mkdir()
            check_free(path)
            publish_folder(temporary.path, path)
        except BaseException as error:
            temporary._lock.release()
            shutil.rmtree(temporary.path, ignore_errors=True)
            if isinstance(error, OSError):
                check_free(path)  # another process was faster
            raise
        return cls(path, temporary._lock.moved(path))

    def read_record(self) -> dict[str, Any]:
        """`run.json`, with the true status.

        Raises:
            InvalidRun: if this is not a run directory, or one of a newer schema.
        """
        if not self.path.exists():
            raise InvalidRun(f"no run at {self.path}; `bnn-symm fit --out DIR` makes one")
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
        """Changes keys of `run.json`, atomically."""
        record = {**self.read_json(self.record), **changes}
        write_json(
            self.record,
            {key: value for key, value in record.items() if value is not None or key in _KEYS},
        )

    def read_fixed(self) -> dict[str, Tensor]:
        """Masks, fixed values and matrices by name, as they were when the run was made.

        Raises:
            InvalidRun: if the file is missing or damaged.
        """
        try:
            return {
                name: torch.from_numpy(value) for name, value in read_arrays(self.fixed).items()
            }
        except FileNotFoundError:
            raise InvalidRun(
                f"{self.path} has no {self.fixed.name}, which holds what is fixed of its weights; "
                "copy the whole "
                f"directory, or fit again"
            ) from None

    def read_prior_mean(self, record: Mapping[str, Any]) -> PriorMean | None:
        """What the prior is centerd on, as it was when the run was made; None for zero.

        Raises:
            InvalidRun: if the file is missing or damaged, or was changed.
        """
        wanted = record.get("prior_mean")
        if wanted is None:
            return None
        try:
            mean = PriorMean(
                {
                    name: torch.from_numpy(value)
                    for name, value in read_arrays(self.prior_mean).items()
                }
            )
        except FileNotFoundError:
            raise InvalidRun(
                f"{self.path} has no {self.prior_mean.name}, on which its prior is centerd; copy "
                "the whole directory, "
                f"or fit again"
            ) from None
        if mean.sha256 != wanted:
            raise InvalidRun(
                f"{self.prior_mean} was changed since the fit (sha256 {mean.sha256[:12]}, "
                f"{self.record.name} says {str(wanted)[:12]}); put it back, or fit again"
            )
        return mean

    @staticmethod
    def read_json(path: Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            return read_json(path)
        except FileNotFoundError:
            if path.parent.exists() and not path.parent.is_dir():
                raise InvalidRun(
                    f"{path.parent} is a file, wanted the directory of a run"
                ) from None
            raise InvalidRun(
                f"{path.parent} is not a run of bnn_symm: it has no {path.name}; name a directory "
                "that "
                f"`bnn-symm fit` made"
            ) from None

    # -- the files that belong to it

    @property
    def _written_at_first(self) -> list[Path]:
        return [self.config, self.preprocessing, self.fixed, self.prior_mean, self.network]

    @property
    def _written_at_last(self) -> list[Path]:
        return [self.posterior, self.metrics, self.history, self.path / COST, *self._kept_files()]

    def check_first_files(self) -> None:
        """Compare the files that a run has from the start with its signature.

        Raises:
            InvalidRun: if one is not the run's.
        """
        self.signature.check(*self._written_at_first)

    def has_posterior(self) -> bool:
        """Return whether there is a posterior of this run, and not only a file of that name.

        Raises:
            InvalidRun: if the file is not the run's.
        """
        if not self.posterior.exists() or not self.signature.is_signed(self.posterior):
            return False
        self.signature.check(self.posterior)
        return True

    def sign_again(self) -> list[str]:
        """Sign all files as they are now, and return the names of those that had changed.

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
            last = [path for directory in (*stages, self) for path in directory._written_at_last]
            return self.signature.renew(*self._written_at_first, self.path / MEASURES, *last)
        finally:
            self.release()

    def draw_log(self) -> DrawLog:
        """Return the log of the draws of a fit that has not been completed yet."""
        return DrawLog(self.draws, run=self.signature.token(self.draws))

    def _kept_files(self) -> list[Path]:
        return sorted(
            path for path in self.kept.glob("step-*.safetensors") if _KEPT.fullmatch(path.name)
        )

    # -- the one writer

    def is_owned(self) -> bool:
        """Return whether a live process writes this run; one on another machine is believed to
        live.
        """
        return self._lock.is_held()

    def acquire(self) -> None:
        """Take the lock of this run, which may be that of a dead writer.

        Raises:
            InvalidRun: if a live process holds it, or the run cannot be written.
        """
        self.check_folders()
        self._lock.acquire()

    def release(self) -> None:
        """Give the lock up."""
        self._lock.release()

    def check_folders(self) -> None:
        """Refuse to write where a folder of this run is a symbolic link, which may lead to files of
        others.

        Raises:
            InvalidRun: if one is.
        """
        warm_start = self.path / "warm_start"
        for folder in (self.draws, self.checkpoint, self.kept, warm_start, *warm_start.glob("*")):
            if folder.is_symlink():
                raise InvalidRun(
                    f"{folder} is a symbolic link; a run writes and removes files in folders of "
                    "its own only: put the "
                    f"folder itself there (the run as a whole may be a link)"
                )

    # -- what a running fit has reached

    def save_state(self, chain: int, state: State) -> None:
        """Replace the checkpoint of a chain."""
        self._write_state(self.checkpoint / f"chain-{chain:04d}.safetensors", state)

    def keep_state(self, chain: int, step: int, state: State) -> None:
        """Write a state that is kept for good; of the same step, the same again."""
        make_folder(self.kept)
        self._write_state(self.kept / f"step-{step:09d}-chain-{chain:04d}.safetensors", state)

    def _write_state(self, path: Path, state: State) -> None:
        # `save_file` would report a full disk with an exception of its own.
        content = save(state, metadata(self.signature.token(path.parent), state))
        write_atomically(path, lambda temporary: temporary.write_bytes(content))

    def kept_states(self) -> dict[int, dict[int, State]]:
        """Step -> chain -> state, of all that were kept for good.

        Raises:
            InvalidRun: if a file is damaged.
        """
        self.signature.check(*self._kept_files())
        found: dict[int, dict[int, State]] = {}
        for path in sorted(self.kept.glob("step-*-chain-*.safetensors")):
            _, step, _, chain = path.stem.split("-", 3)
            if not (step.isascii() and step.isdecimal() and chain.isascii() and chain.isdecimal()):
                raise InvalidRun(f"{path} is no state of this run; take it out of its folder")
            found.setdefault(int(step), {})[int(chain)] = state = read_arrays(path)
            check_state(path, self.signature.token(self.kept), state)
        return found

    def fit_state(self) -> FitState:
        """Everything that a run in progress, or one that was killed, has on disk.

        Raises:
            InvalidRun: if a file is damaged.
        """
        states = {}
        for path in sorted(self.checkpoint.glob("chain-*.safetensors")):
            chain = path.stem.removeprefix("chain-")
            if not (chain.isascii() and chain.isdecimal()):
                raise InvalidRun(f"{path} is no state of this run; take it out of its folder")
            states[int(chain)] = read_arrays(path)
            check_state(path, self.signature.token(self.checkpoint), states[int(chain)])
        with parser_errors(
            self.draws, "put back the draws as they were written", problem="is damaged"
        ):
            draws = self.draw_log().chains() if self.draws.exists() else {}
        self.signature.check(self.history)
        return FitState(states, draws, own_rows(self.path))

    def rewrite(self, fit_state: FitState) -> FitState:
        """Takes off the disk what is beyond `fit_state`, so that a resumed fit appends in the right
        place.

        Killed at any moment, it leaves something from which the same can be reached again.

        Returns:
            The same, its draws as they now lie on disk.
        """
        self.check_folders()
        self._remove_leftovers()
        write_text(self.history_log, "".join(json.dumps(row) + "\n" for row in fit_state.history))
        if self.history.exists():
            self.history.unlink()
            sync_folder(self.path)
        log = self.draw_log()
        log.cut({chain: len(chunk.positions) for chain, chunk in fit_state.draws.items()})
        make_folder(self.checkpoint)
        kept = {f"chain-{chain:04d}.safetensors" for chain in fit_state.states}
        remove_files(
            self.checkpoint, lambda name: _STATE.fullmatch(name) is not None and name not in kept
        )
        sync_folder(self.checkpoint)
        sync_folder(self.path)
        return dataclasses.replace(fit_state, draws=log.chains())

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of a process that was killed."""
        for folder in (self.path.resolve(), self.draws, self.checkpoint, self.kept):
            remove_temporary_files(folder)

    def read_history(self) -> list[dict[str, Any]]:
        """The rows of the history, of a run with a warm start those of the last method that has
        any.
        """
        stages = stage_folders(self.path)
        self.signature.require(self.history)
        self.signature.check(
            self.history, *(folder / name for folder in stages for name in (TABLE, COST))
        )
        return last_stage(self.path)

    def evaluation_path(self, name: str, content: Mapping[str, Any]) -> Path:
        """Where an evaluation goes: it replaces one of the same data, and leaves one of other data
        alone.
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
        """Return the content of `metrics.json`; None of a run that is not complete.

        Raises:
            InvalidRun: if the file is damaged or not the run's.
        """
        self.signature.require(self.metrics)
        if not self.metrics.exists() or not self.signature.is_signed(self.metrics):
            return None
        self.signature.check(self.metrics)
        content = self.read_json(self.metrics)
        check_file(self.metrics, content, MetricsFile)
        return content

    def finish_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `history.parquet`, the last of the files of a complete run; see `is_finished`."""
        import pandas

        frame = pandas.DataFrame(rows)
        write_atomically(self.history, lambda temporary: frame.to_parquet(temporary, index=False))

    def is_finished(self) -> bool:
        """Whether all files of a complete run are there, whatever `run.json` says of it yet."""
        return self.has_posterior() and self.metrics.exists() and self.history.exists()

    def finish(self, **changes: Any) -> None:
        """Once `is_finished`: remove the files that led to the posterior, then call the run
        complete.

        Args:
            changes: keys of `run.json` that change with it.
        """
        self._remove_leftovers()
        self.sign()
        self.remove_working_files()
        self.update_record(**{"error": None, **changes, "status": "complete"})

    def sign(self) -> None:
        """Sign the files that are finished, so that none of another run takes their place."""
        self.signature.add(*self._written_at_last)

    def remove_working_files(self) -> None:
        """Once all files of a complete run are in place: remove those that led to them, and nothing
        else.
        """
        self.history_log.unlink(missing_ok=True)
        remove_files(self.draws, lambda name: is_temporary(name) or is_draw_file(name))
        remove_files(
            self.checkpoint, lambda name: is_temporary(name) or _STATE.fullmatch(name) is not None
        )
        remove_if_empty(self.draws)
        remove_if_empty(self.checkpoint)
        sync_folder(self.path)


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays of a directory that is not published yet."""
    write_atomically(
        path, lambda temporary: temporary.write_bytes(save(dict(arrays))), sync_parent=False
    )


def _remove_incomplete(path: Path) -> None:
    """Remove what processes left that were killed while they made this directory, before they gave
    it its name.
    """
    for unborn in path.parent.glob(f".*.{TEMPORARY}"):
        own = is_temporary(unborn.name) and unborn.name.startswith(f".{path.name[:NAME_LENGTH]}.")
        if (
            own
            and is_real_folder(unborn)
            and (unborn / LOCK).exists()
            and not FolderLock(unborn).is_held()
        ):
            shutil.rmtree(unborn, ignore_errors=True)
