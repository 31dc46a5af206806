"""The directory of one run: created whole, owned by one writer, readable at any moment.

    config.yaml  run.json  preprocessing.json  history.jsonl  draws/  checkpoint/      while it runs
    config.yaml  run.json  preprocessing.json  history.parquet  posterior.nc  metrics.json      when it is complete

and throughout symmetry.safetensors, the masks and fixed values of a network that has them, and prior_mean.safetensors,
what a prior is centred on. What the methods of a warm start reach is in folders of their own (`stages`).

A directory is made under a temporary name and renamed, so it never exists without its configuration. While a fit runs
it only appends. A lock names the writer (host, process, start of the process); a run whose status is `running` but
whose writer is gone reads as `interrupted`.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from bnn_symm.errors import InvalidRun
from bnn_symm.experiments.output_directory import check_free
from bnn_symm.experiments.processes import is_alive, this_process
from bnn_symm.experiments.run_history import LOG, TABLE, last_stage, own_rows
from bnn_symm.inference import Reached, State
from bnn_symm.io.atomic import write_atomically, write_json
from bnn_symm.models import PriorMean
from bnn_symm.posteriors import DrawLog

RUN_SCHEMA = 1
# What `run.json` has from the start.
_KEYS = ("status", "threads", "versions", "num_outputs", "dataset", "mask_fingerprint")


class RunDirectory:
    """Paths and files of a run; see the module for the layout."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    config = property(lambda self: self.path / "config.yaml")
    record = property(lambda self: self.path / "run.json")
    preprocessing = property(lambda self: self.path / "preprocessing.json")
    fixed = property(lambda self: self.path / "symmetry.safetensors")
    prior_mean = property(lambda self: self.path / "prior_mean.safetensors")
    history_log = property(lambda self: self.path / LOG)
    history = property(lambda self: self.path / TABLE)
    draws = property(lambda self: self.path / "draws")
    checkpoint = property(lambda self: self.path / "checkpoint")
    kept = property(lambda self: self.path / "checkpoints")
    posterior = property(lambda self: self.path / "posterior.nc")
    metrics = property(lambda self: self.path / "metrics.json")
    evaluations = property(lambda self: self.path / "evaluations")
    lock = property(lambda self: self.path / "lock.json")

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
    ) -> "RunDirectory":
        """Makes a new run directory, complete with its first files and this process's lock.

        Args:
            path: where.
            config: text of `config.yaml`.
            record: content of `run.json`.
            preprocessing: content of `preprocessing.json`.
            fixed: what is fixed at random in the network, by name; may be empty.
            prior_mean: what the prior of the model is centred on.

        Raises:
            InvalidRun: if it exists, or its parent cannot be written.
        """
        check_free(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_unborn(path)
            temporary = cls(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        except OSError as error:
            raise InvalidRun(
                f"{path.parent} cannot be written ({error.strerror}); choose another place with --out DIR"
            ) from None
        try:
            write_json(temporary.lock, this_process())
            temporary.path.chmod(0o755)
            temporary.config.write_text(config, encoding="utf-8")
            write_json(temporary.preprocessing, preprocessing)
            write_json(temporary.record, {"run_schema": RUN_SCHEMA, "status": "running", **record})
            if fixed:
                # Fixed values are float32 numbers in networks of any dtype.
                arrays = {name: value.cpu() for name, value in fixed.items()}
                single = {name: v if v.dtype == torch.bool else v.float() for name, v in arrays.items()}
                temporary.fixed.write_bytes(save({name: value.numpy() for name, value in single.items()}))
            if prior_mean is not None:
                temporary.prior_mean.write_bytes(
                    save({name: value.numpy() for name, value in prior_mean.weights.items()})
                )
            temporary.draws.mkdir()
            temporary.checkpoint.mkdir()
            check_free(path)
            os.rename(temporary.path, path)
        except BaseException as error:
            shutil.rmtree(temporary.path, ignore_errors=True)
            if isinstance(error, OSError):
                check_free(path)  # another process was faster
            raise
        return cls(path)

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
                f"{self.path} has run schema {schema}, this version reads up to {RUN_SCHEMA}; upgrade bnn_symm"
            )
        missing = [key for key in _KEYS if key not in record]
        if missing:
            raise InvalidRun(f"{self.record} is damaged: it has no {', '.join(missing)}")
        if record.get("status") == "running" and not self.is_owned():
            record["status"] = "interrupted"
        return record

    def update_record(self, **changes: Any) -> None:
        """Changes keys of `run.json`, atomically."""
        record = {**self.read_json(self.record), **changes}
        write_json(self.record, {key: value for key, value in record.items() if value is not None or key in _KEYS})

    def read_fixed(self) -> dict[str, Tensor]:
        """Masks, fixed values and matrices by name, as they were when the run was made.

        Raises:
            InvalidRun: if the file is missing or damaged.
        """
        try:
            return {name: torch.from_numpy(value) for name, value in load_file(self.fixed).items()}
        except FileNotFoundError:
            raise InvalidRun(
                f"{self.path} has no {self.fixed.name}, which holds what is fixed of its weights; copy the whole "
                f"directory, or fit again"
            ) from None
        except Exception as error:
            raise InvalidRun(f"{self.fixed} is damaged: {error}") from None

    def read_prior_mean(self, record: Mapping[str, Any]) -> PriorMean | None:
        """What the prior is centred on, as it was when the run was made; None for zero.

        Raises:
            InvalidRun: if the file is missing or damaged, or was changed.
        """
        wanted = record.get("prior_mean")
        if wanted is None:
            return None
        try:
            mean = PriorMean({name: torch.from_numpy(value) for name, value in load_file(self.prior_mean).items()})
        except FileNotFoundError:
            raise InvalidRun(
                f"{self.path} has no {self.prior_mean.name}, on which its prior is centred; copy the whole directory, "
                f"or fit again"
            ) from None
        except Exception as error:
            raise InvalidRun(f"{self.prior_mean} is damaged: {error}") from None
        if mean.sha256 != wanted:
            raise InvalidRun(
                f"{self.prior_mean} was changed since the fit (sha256 {mean.sha256[:12]}, {self.record.name} says "
                f"{str(wanted)[:12]}); put it back, or fit again"
            )
        return mean

    @staticmethod
    def read_json(path: Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidRun(
                f"{path.parent} is not a run of bnn_symm: it has no {path.name}; name a directory that "
                f"`bnn-symm fit` made"
            ) from None
        except NotADirectoryError:
            raise InvalidRun(f"{path.parent} is a file, wanted the directory of a run") from None
        except OSError as error:
            raise InvalidRun(f"{path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise InvalidRun(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise InvalidRun(f"{path} is damaged: it holds no object")
        return content

    # -- the one writer ---------------------------------------------------------------------------------

    def is_owned(self) -> bool:
        """Whether a live process holds the lock; of a process on another host, we believe that it lives."""
        try:
            owner = json.loads(self.lock.read_text(encoding="utf-8"))
            host, pid, start = str(owner["host"]), int(owner["pid"]), float(owner["start"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return is_alive(host, pid, start)

    def acquire(self) -> None:
        """Takes over the lock of a dead writer.

        Raises:
            InvalidRun: if a live process holds it.
        """
        with _one_at_a_time(self.path):
            if self.is_owned():
                owner = self.read_json(self.lock)
                raise InvalidRun(
                    f"{self.path} is being written by process {owner['pid']} on {owner['host']}; wait for it, or if "
                    f"that host is gone, remove {self.lock}"
                )
            try:
                write_json(self.lock, this_process())
            except OSError as error:
                raise InvalidRun(
                    f"{self.path} cannot be written ({error.strerror}); make room, or copy it to where you may write"
                ) from None

    def release(self) -> None:
        """Gives up the lock."""
        self.lock.unlink(missing_ok=True)

    # -- what a running fit has reached -----------------------------------------------------------------

    def save_state(self, chain: int, state: State) -> None:
        """Replaces the checkpoint of a chain."""
        target = self.checkpoint / f"chain-{chain:04d}.safetensors"
        # `save_file` would report a full disk with an exception of its own.
        write_atomically(target, lambda temporary: temporary.write_bytes(save(state)))

    def keep_state(self, chain: int, step: int, state: State) -> None:
        """Writes a state that is kept for good; of the same step, the same again."""
        self.kept.mkdir(exist_ok=True)
        target = self.kept / f"step-{step:09d}-chain-{chain:04d}.safetensors"
        write_atomically(target, lambda temporary: temporary.write_bytes(save(state)))

    def kept_states(self) -> dict[int, dict[int, State]]:
        """Step -> chain -> state, of all that were kept for good.

        Raises:
            InvalidRun: if a file is damaged.
        """
        found: dict[int, dict[int, State]] = {}
        for path in sorted(self.kept.glob("step-*-chain-*.safetensors")):
            _, step, _, chain = path.stem.split("-")
            try:
                found.setdefault(int(step), {})[int(chain)] = load_file(path)
            except Exception as error:
                raise InvalidRun(f"{path} is damaged: {error}") from None
        return found

    def reached(self) -> Reached:
        """Everything that a run in progress, or one that was killed, has on disk.

        Raises:
            InvalidRun: if a file is damaged.
        """
        states = {}
        for path in sorted(self.checkpoint.glob("chain-*.safetensors")):
            try:
                states[int(path.stem.split("-")[1])] = load_file(path)
            except Exception as error:
                raise InvalidRun(f"{path} is damaged: {error}") from None
        try:
            draws = DrawLog(self.draws).chains() if self.draws.exists() else {}
        except (OSError, ValueError) as error:
            raise InvalidRun(f"{self.draws} is damaged: {error}") from None
        return Reached(states, draws, own_rows(self.path))

    def rewrite(self, reached: Reached) -> Reached:
        """Takes off the disk what is beyond `reached`, so that a resumed fit appends in the right place.

        Killed at any moment, it leaves something from which the same can be reached again.

        Returns:
            The same, its draws as they now lie on disk.
        """
        self._remove_leftovers()
        lines = "".join(json.dumps(row) + "\n" for row in reached.history)
        write_atomically(self.history_log, lambda temporary: temporary.write_text(lines))
        self.history.unlink(missing_ok=True)
        log = DrawLog(self.draws)
        log.cut({chain: len(chunk.positions) for chain, chunk in reached.draws.items()})
        self.checkpoint.mkdir(exist_ok=True)
        for path in self.checkpoint.glob("chain-*.safetensors"):
            if int(path.stem.split("-")[1]) not in reached.states:
                path.unlink()
        return dataclasses.replace(reached, draws=log.chains())

    def _remove_leftovers(self) -> None:
        """The temporary files of a process that was killed."""
        for folder in (self.path, self.draws, self.checkpoint, self.kept):
            for leftover in folder.glob(".*"):
                if leftover.is_file():
                    leftover.unlink()

    def read_history(self) -> list[dict[str, Any]]:
        """The rows of the history, of a run with a warm start those of the last method that has any."""
        return last_stage(self.path)

    def evaluation_path(self, name: str, content: Mapping[str, Any]) -> Path:
        """Where an evaluation goes: it replaces one of the same data, and leaves one of other data alone."""
        number = 1
        while True:
            path = self.evaluations / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
            if not path.exists():
                return path
            former = self.read_json(path)
            if all(former.get(key) == content.get(key) for key in ("data", "shift", "ood")):
                return path
            number += 1

    def finish_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `history.parquet`, the last of the files of a complete run; see `is_finished`."""
        import pandas

        frame = pandas.DataFrame(rows)
        write_atomically(self.history, lambda temporary: frame.to_parquet(temporary, index=False))

    def is_finished(self) -> bool:
        """Whether all files of a complete run are there, whatever `run.json` says of it yet."""
        return all(path.exists() for path in (self.posterior, self.metrics, self.history))

    def finish(self) -> None:
        """Once `is_finished`: removes the files that led to the posterior, then calls the run complete."""
        self._remove_leftovers()
        self.remove_working_files()
        self.update_record(status="complete", error=None)

    def remove_working_files(self) -> None:
        """Once all files of a complete run are in place: those that led to them."""
        self.history_log.unlink(missing_ok=True)
        shutil.rmtree(self.draws, ignore_errors=True)
        shutil.rmtree(self.checkpoint, ignore_errors=True)


def _remove_unborn(path: Path) -> None:
    """What processes left that were killed while they made this directory, before they gave it its name."""
    for unborn in path.parent.glob(f".{path.name}.*"):
        directory = RunDirectory(unborn)
        if directory.lock.exists() and not directory.is_owned():
            shutil.rmtree(unborn, ignore_errors=True)


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Of processes on this machine, one at a time within; a file system that cannot lock gives no such promise."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which unlocks
