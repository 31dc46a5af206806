"""The directory of one run: created whole, owned by one writer, readable at any moment.

    config.yaml  run.json  preprocessing.json  history.jsonl  draws/  checkpoint/      while it runs
    config.yaml  run.json  preprocessing.json  history.parquet  posterior.nc  metrics.json      when it is complete

A directory is made under a temporary name and renamed, so it never exists without its configuration. While a fit runs it only
appends. A lock names the writer (host, process, start of the process); a run whose status is `running` but whose writer is gone
reads as `interrupted`.
"""

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from safetensors.numpy import load_file, save_file

from bnn_symm.errors import BnnSymmError, InvalidRun
from bnn_symm.files import write_atomically, write_json
from bnn_symm.inference import Reached, State
from bnn_symm.posteriors import DrawLog

RUN_SCHEMA = 1


class RunDirectory:
    """Paths and files of a run; see the module for the layout."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    config = property(lambda self: self.path / "config.yaml")
    record = property(lambda self: self.path / "run.json")
    preprocessing = property(lambda self: self.path / "preprocessing.json")
    history_log = property(lambda self: self.path / "history.jsonl")
    history = property(lambda self: self.path / "history.parquet")
    draws = property(lambda self: self.path / "draws")
    checkpoint = property(lambda self: self.path / "checkpoint")
    posterior = property(lambda self: self.path / "posterior.nc")
    metrics = property(lambda self: self.path / "metrics.json")
    evaluations = property(lambda self: self.path / "evaluations")
    lock = property(lambda self: self.path / "lock.json")

    @classmethod
    def create(
        cls, path: Path, *, config: str, record: Mapping[str, Any], preprocessing: Mapping[str, Any]
    ) -> "RunDirectory":
        """Makes a new run directory, complete with its first files and this process's lock.

        Raises:
            InvalidRun: if it exists, or its parent cannot be written.
        """
        check_free(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = cls(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        except OSError as error:
            raise InvalidRun(
                f"{path.parent} cannot be written ({error.strerror}); choose another place with --out DIR"
            ) from None
        try:
            temporary.path.chmod(0o755)
            temporary.config.write_text(config, encoding="utf-8")
            write_json(temporary.preprocessing, preprocessing)
            write_json(temporary.record, {"run_schema": RUN_SCHEMA, "status": "running", **record})
            write_json(temporary.lock, _owner())
            temporary.draws.mkdir()
            temporary.checkpoint.mkdir()
            os.rename(temporary.path, path)
        except BaseException:
            shutil.rmtree(temporary.path, ignore_errors=True)
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
            raise InvalidRun(f"{self.path} has run schema {schema}, this version reads up to {RUN_SCHEMA}; upgrade")
        if record.get("status") == "running" and not self.is_owned():
            record["status"] = "interrupted"
        return record

    def update_record(self, **changes: Any) -> None:
        """Changes keys of `run.json`, atomically."""
        write_json(self.record, {**self.read_json(self.record), **changes})

    @staticmethod
    def read_json(path: Path) -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InvalidRun(f"{path.parent} is not a run of bnn_symm: it has no {path.name}") from None
        except NotADirectoryError:
            raise InvalidRun(f"{path.parent} is a file, wanted the directory of a run") from None
        except (OSError, ValueError) as error:
            raise InvalidRun(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise InvalidRun(f"{path} is damaged: it holds no object")
        return content

    # -- the one writer ---------------------------------------------------------------------------------

    def is_owned(self) -> bool:
        """Whether a live process holds the lock; of a process on another host, we believe that it lives."""
        try:
            owner = json.loads(self.lock.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if owner["host"] != socket.gethostname():
            return True
        try:
            return abs(psutil.Process(owner["pid"]).create_time() - owner["start"]) < 1.0
        except psutil.Error:
            return False

    def acquire(self) -> None:
        """Takes over the lock of a dead writer.

        Raises:
            InvalidRun: if a live process holds it.
        """
        if self.is_owned():
            owner = self.read_json(self.lock)
            raise InvalidRun(
                f"{self.path} is being written by process {owner['pid']} on {owner['host']}; wait for it, or if that "
                f"host is gone, remove {self.lock}"
            )
        # The rename leaves exactly one winner among processes that find the same dead lock.
        stale = self.lock.with_name(f".lock.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.lock, stale)
            stale.unlink()
        try:
            with self.lock.open("x", encoding="utf-8") as file:
                json.dump(_owner(), file)
        except FileExistsError:
            raise InvalidRun(f"{self.path} was just taken by another process; wait for it") from None
        except OSError as error:
            raise InvalidRun(f"{self.path} cannot be written ({error.strerror})") from None

    def release(self) -> None:
        """Gives up the lock."""
        self.lock.unlink(missing_ok=True)

    # -- what a running fit has reached -----------------------------------------------------------------

    def save_state(self, chain: int, state: State) -> None:
        """Replaces the checkpoint of a chain."""
        target = self.checkpoint / f"chain-{chain:04d}.safetensors"
        write_atomically(target, lambda temporary: save_file(state, temporary))

    def reached(self) -> Reached:
        """Everything that a run in progress, or one that was killed, has on disk."""
        states = {}
        for path in sorted(self.checkpoint.glob("chain-*.safetensors")):
            try:
                states[int(path.stem.split("-")[1])] = load_file(path)
            except Exception as error:
                raise InvalidRun(f"{path} is damaged: {error}") from None
        draws = DrawLog(self.draws).chains() if self.draws.exists() else {}
        return Reached(states, draws, self.read_history())

    def rewrite(self, reached: Reached) -> None:
        """Replaces what is on disk by exactly this, so that a resumed fit appends in the right place."""
        lines = "".join(json.dumps(row) + "\n" for row in reached.history)
        write_atomically(self.history_log, lambda temporary: temporary.write_text(lines) and None)
        fresh = self.path / "draws.new"
        shutil.rmtree(fresh, ignore_errors=True)
        log = DrawLog(fresh)
        for chunk in reached.draws.values():
            log.append(chunk)
        shutil.rmtree(self.draws, ignore_errors=True)
        os.rename(fresh, self.draws)
        for path in self.checkpoint.glob("chain-*.safetensors"):
            if int(path.stem.split("-")[1]) not in reached.states:
                path.unlink()

    def read_history(self) -> list[dict[str, Any]]:
        """The rows of the history, in either form; a last line cut off by a kill is left out."""
        if self.history.exists():
            import pandas

            frame = pandas.read_parquet(self.history)
            return [
                {name: None if pandas.isna(value) else value for name, value in row.items()}
                for row in frame.to_dict("records")
            ]
        rows = []
        if self.history_log.exists():
            for line in self.history_log.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return rows

    def finish_history(self, rows: list[dict[str, Any]]) -> None:
        """Writes `history.parquet` and removes the log."""
        import pandas

        frame = pandas.DataFrame(rows)
        write_atomically(self.history, lambda temporary: frame.to_parquet(temporary, index=False))
        self.history_log.unlink(missing_ok=True)

    def remove_working_files(self) -> None:
        """Once the posterior is in place: the draws and checkpoints that led to it."""
        shutil.rmtree(self.draws, ignore_errors=True)
        shutil.rmtree(self.checkpoint, ignore_errors=True)


def check_free(path: Path) -> None:
    """Raises InvalidRun if a run directory of that name exists: none is ever overwritten."""
    if path.exists():
        raise InvalidRun(
            f"{path} exists and is never overwritten; choose another --out, or go on with it: "
            f"bnn-symm fit --resume {path}"
        )


def next_free(parent: Path, stem: str) -> Path:
    """`parent/stem-1`, or with the first number that is free."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an error of the file system, such as a full disk, into one line that names the run."""
    try:
        yield
    except OSError as error:
        raise BnnSymmError(
            f"{path} could not be written ({error.strerror or error}); what was written before is kept; make room "
            f"and go on with: bnn-symm fit --resume {path}"
        ) from error


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "start": process.create_time()}
