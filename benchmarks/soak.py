"""Run a soak test: fits by every method are killed at random, resumed, loaded and used to predict.

    python -m benchmarks.soak [--minutes 60] [--seed 0] [--out benchmarks/soak.json]

In every cycle a small fit by one method runs in a separate process and is killed by signal 9 one to
four times, at random moments of the whole fit (including imports and the last files). It is then
resumed to its end. After every kill and at the end, the files are compared with those of an
uninterrupted fit of the same seed:

- draws are the first draws of the uninterrupted chains, bitwise, none missing, none repeated; at
  the end all of them;
- the same holds for the rows of the history, except columns that measure time, and at the end for
  posterior, predictions and scores;
- there are no additional files, no zombies, and no processes of the chains of a killed fit.

One process lives during the whole test, and loads and predicts after every kill. Its resident
memory must not grow. The methods are those of `AnyMethod`, with each of their engines and
estimators; new methods are included automatically.
"""

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import torch
from scipy.stats import theilslopes

from benchmarks.timing import machine
from bnn_symm.errors import BnnSymmError, InvalidRun
from bnn_symm.inference import AnyMethod
from bnn_symm.io.atomic import write_json
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs import Run, load_run

# Each method uses the settings that it has: fits of one or two seconds.
_SMALL = {
    "num_steps": 800,
    "num_members": 2,
    "num_warmup": 60,
    "num_draws": 120,
    "num_chains": 4,
    "max_tree_depth": 3,
    "max_num_steps": 8,
    "chain_method": "sequential",
}
_COMMON = ["data.name=gap", "architecture.widths=[4]", "checkpoint.every=0.02"]
# Settings that a method requires.
_NEEDED = {
    "mc_dropout": ["architecture.dropout=0.2"],
    "mixture": ["inference.member.num_steps=800", "inference.member.num_draws=120"],
}
# Settings of which every choice is tested.
_CHOICES = ("engine", "estimator")
# Files in the directory of a complete run that do not belong to its results.
AFTERWARDS = {"lock.json", "writer.lock", "figures"}
# Number of seeds per method: each needs one uninterrupted fit.
_SEEDS = 2
_MOST_KILLS = 4
# One in this number of cycles runs its chains in separate processes.
_PARALLEL_EVERY = 5
# Relative growth of resident memory that is allowed from the second quarter to the end.
_GROWTH = 0.03
# Seconds for the chains of a killed fit to end, and for other short waits.
_PATIENCE = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["bnn_symm.cli", "bnn_symm.runs", "bnn_symm.studies", "bnn_symm.report.progress"]
)


def cases() -> dict[str, list[str]]:
    """Return name -> overrides of a small fit, for every method, engine and estimator."""
    found = {}
    for method in get_args(get_args(AnyMethod)[0]):
        fields = {field.name: field for field in dataclasses.fields(method)}
        (name,) = get_args(fields["name"].type)
        keys = [f"inference.{key}={value}" for key, value in _SMALL.items() if key in fields]
        variants: dict[str, list[str]] = {name: []}
        for key in _CHOICES:
            if key in fields:
                variants = {
                    f"{former}-{choice}": [*own, f"inference.{key}={choice}"]
                    for former, own in variants.items()
                    for choice in get_args(fields[key].type)
                }
        for variant, own in variants.items():
            fewer = (
                ["inference.num_chains=2"] if "inference.engine=pyro" in own else []
            )  # chains run one after another
            found[variant] = [
                *_COMMON,
                f"inference.name={name}",
                *_NEEDED.get(name, []),
                *keys,
                *own,
                *fewer,
            ]
    return found


# -- the process that loads and predicts


def _reader(connection: Connection) -> None:
    """Answer each (run, uninterrupted run, must be complete) with its comparison, until None."""
    torch.set_num_threads(1)
    while (question := connection.recv()) is not None:
        path, undisturbed, complete = question
        try:
            found = _compare(load_run(path), load_run(undisturbed), complete)
        except Exception:
            found = {"problems": [traceback.format_exc()], "phase": "unreadable"}
        connection.send({**found, "memory": psutil.Process().memory_info().rss})


def _compare(run: Run, undisturbed: Run, complete: bool) -> dict[str, Any]:
    """Return the problems of a run compared with an uninterrupted one, and its phase."""
    problems: list[str] = []
    whole = undisturbed.posterior
    drawn = 0
    if run.status == "complete":
        problems += _compare_complete(run, undisturbed)
    else:
        if complete:
            problems.append(f"the status is {run.status} after it was resumed to its end")
        if run.status != "interrupted":
            problems.append(f"the status is {run.status} after a kill")
        draws = whole.draws().unflatten(0, whole.shape[:2]).numpy()
        for chain, chunk in run.directory.fit_state().draws.items():
            positions = np.asarray(chunk.positions)
            drawn += len(positions)
            if not np.array_equal(positions, draws[chain, : len(positions)]):
                problems.append(
                    f"chain {chain}: its {len(positions)} draws are not the first of the "
                    "uninterrupted run"
                )
        problems += _compare_rows(run.directory.read_history(), whole.history, whole=False)
    try:
        predictive = run.posterior.predict(undisturbed.dataset().test.x)
    except InvalidRun as error:
        if run.status == "complete" or "has no posterior" not in str(error):
            raise
        return {"problems": problems, "phase": "nothing reached", "drawn": drawn}
    if not bool(torch.isfinite(predictive.outputs).all()):
        problems.append("predictions are not finite")
    if run.status == "complete":
        if not torch.equal(predictive.outputs, whole.predict(undisturbed.dataset().test.x).outputs):
            problems.append("predictions differ")
        return {"problems": problems, "phase": "complete", "drawn": drawn}
    phase = (
        "last files"
        if run.directory.posterior.exists()
        else "sampling"
        if drawn
        else "warm-up or optimizing"
    )
    return {"problems": problems, "phase": phase, "drawn": drawn}


def _compare_complete(run: Run, undisturbed: Run) -> list[str]:
    problems = []
    one, other = run.posterior, undisturbed.posterior
    if one.shape != other.shape:
        problems.append(
            f"draws: chains x draws x parameters is {one.shape}, uninterrupted {other.shape}"
        )
    elif not torch.equal(one.draws(), other.draws()):
        problems.append("draws differ")
    for name in ("loc", "scale"):
        if hasattr(other, name) and not torch.equal(getattr(one, name), getattr(other, name)):
            problems.append(f"{name} differs")
    for name, values in getattr(other, "sample_stats", {}).items():
        if not np.array_equal(one.sample_stats[name], values):  # type: ignore[attr-defined]
            problems.append(f"sample_stats {name} differ")
    problems += _compare_rows(one.history, other.history, whole=True)
    if run.metrics != undisturbed.metrics:
        problems.append("metrics differ")
    # A process that is killed after the last file of the run leaves its lock, which has no owner,
    # and an incomplete figure, which the command adds to a complete run.
    files, wanted = (
        {file.name for file in r.path.iterdir()} - AFTERWARDS for r in (run, undisturbed)
    )
    if files != wanted:
        problems.append(
            f"files are {', '.join(sorted(files))}, uninterrupted {', '.join(sorted(wanted))}"
        )
    if "resumed_with_changes" in run.record:
        problems.append("the record has `resumed_with_changes`")
    return problems


def _compare_rows(
    rows: list[dict[str, Any]], whole_rows: list[dict[str, Any]], *, whole: bool
) -> list[str]:
    """Return problems of rows, which must be unique rows of the uninterrupted run.

    A whole run has all of them, in the same order.
    """

    def without_seconds(row: dict[str, Any]) -> str:
        return json.dumps(
            {key: value for key, value in row.items() if key != "seconds"},
            sort_keys=True,
            default=float,
        )

    got, wanted = (
        [without_seconds(row) for row in rows],
        [without_seconds(row) for row in whole_rows],
    )
    if whole:
        return [] if got == wanted else ["the history differs"]
    if len(set(got)) < len(got):
        return ["rows of the history are repeated"]
    return [] if set(got) <= set(wanted) else ["rows of the history differ"]


# -- fits that are killed


def _command_line(arguments: list[str], log: str) -> None:
    from bnn_symm.cli import main

    os.setpgrp()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    torch.set_num_threads(1)
    sys.exit(main(arguments))


class _Command:
    """Run the command in a separate interpreter, with the methods of a `multiprocessing.Process`.

    It is used for fits whose chains have processes: the resource tracker of a killed interpreter
    releases its semaphores.
    """

    def __init__(self, arguments: list[str], log: str):
        with open(log, "ab") as file:
            command = [sys.executable, "-m", "bnn_symm.cli", *arguments]
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        self.pid, self.kill = self._process.pid, self._process.kill

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def join(self, timeout: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)


class Soak:
    """Run one soak test, with its folder, its reader and the problems so far."""

    def __init__(self, folder: Path, seed: int):
        self._folder, self._seed = folder, seed
        self._cases = cases()
        self._references: dict[tuple[str, int], tuple[Path, float]] = {}
        self._connection, other = multiprocessing.get_context("spawn").Pipe()
        self._reader = multiprocessing.get_context("spawn").Process(
            target=_reader, args=(other,), daemon=True
        )
        self._reader.start()
        self.memory: list[int] = []
        self.own_memory: list[int] = []
        self.problems: list[dict[str, Any]] = []
        self.cycles: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()

    def safe_cycle(self, number: int) -> None:
        """Run a cycle and record any failure as a problem, so that the test continues."""
        try:
            self._cycle(number)
        except (BnnSymmError, OSError, psutil.Error):
            self._problem(f"cycle {number}", traceback.format_exc())
            shutil.rmtree(self._folder / f"run-{number:06d}", ignore_errors=True)
            (self._folder / f"run-{number:06d}.log").unlink(missing_ok=True)

    def _cycle(self, number: int) -> None:
        """Run one fit, with its kills and its resumed end."""
        chance = numpy_generator(self._seed, "soak", number)
        names = list(self._cases)
        name = names[number % len(names)]
        seed = int(chance.integers(_SEEDS))
        undisturbed, seconds = self._undisturbed(name, seed)
        parallel = number // len(names) % _PARALLEL_EVERY == _PARALLEL_EVERY - 1
        keys = [*self._cases[name], f"seed={seed}"]
        if parallel and any(key.startswith("inference.chain_method") for key in keys):
            keys.append("inference.chain_method=parallel")
        path = self._folder / f"run-{number:06d}"
        begun = time.monotonic()
        for _ in range(int(chance.integers(1, _MOST_KILLS + 1))):
            if not self._killed(path, keys, seconds * float(chance.uniform(0, 1.1))):
                break
            self.kills[name] += 1
            if not path.exists():
                self.phases["before the directory"] += 1
                continue
            found = self._ask(name, path, undisturbed, complete=False)
            self.phases[found["phase"]] += 1
            if found["phase"] == "complete":
                break
        if not path.exists() or load_run(path).status != "complete":
            self._to_the_end(path, keys)
        self._ask(name, path, undisturbed, complete=True)
        self._look_around(name, path)
        self.cycles[name] += 1
        shutil.rmtree(path)
        path.with_suffix(".log").unlink()
        print(f"{number:6d} {name:24s} seed {seed} {time.monotonic() - begun:6.1f} s", flush=True)

    def close(self) -> None:
        """End the reader."""
        self._connection.send(None)
        self._reader.join()

    def _undisturbed(self, name: str, seed: int) -> tuple[Path, float]:
        """Return the uninterrupted run of a method and seed, and the seconds of its process."""
        if (name, seed) not in self._references:
            path = self._folder / f"undisturbed-{name}-{seed}"
            begun = time.monotonic()
            self._to_the_end(path, [*self._cases[name], f"seed={seed}"])
            path.with_suffix(".log").unlink()
            self._references[name, seed] = path, time.monotonic() - begun
        return self._references[name, seed]

    def _start(self, path: Path, keys: list[str]) -> Any:
        words = ["--resume", str(path)]
        if not path.exists():
            words = [*(word for key in keys for word in ("--set", key)), "--out", str(path)]
        arguments = (["fit", *words, "--quiet"], str(path.with_suffix(".log")))
        if "inference.chain_method=parallel" in keys:
            return _Command(*arguments)
        process = _CONTEXT.Process(target=_command_line, args=arguments)
        process.start()
        return process

    def _killed(self, path: Path, keys: list[str], seconds: float) -> bool:
        """Return whether a fit was killed after these seconds; it may have ended before."""
        process = self._start(path, keys)
        process.join(seconds)
        try:
            chains = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            chains = []
        process.kill()
        process.join()
        _, alive = psutil.wait_procs(chains, timeout=_PATIENCE)
        if alive:
            self._problem(
                path.name, f"chains of a killed fit live on: {[chain.pid for chain in alive]}"
            )
        if process.exitcode not in (0, -9):
            self._problem(
                path.name, f"exit status {process.exitcode}: {path.with_suffix('.log').read_text()}"
            )
        return process.exitcode == -9

    def _to_the_end(self, path: Path, keys: list[str]) -> None:
        process = self._start(path, keys)
        process.join()
        if process.exitcode != 0:
            log = path.with_suffix(".log").read_text()
            raise BnnSymmError(
                f"the fit {path.name} ended with exit status {process.exitcode}: {log}"
            )

    def _ask(self, name: str, path: Path, undisturbed: Path, *, complete: bool) -> dict[str, Any]:
        self._connection.send((path, undisturbed, complete))
        found = self._connection.recv()
        self.memory.append(found["memory"])
        self.own_memory.append(psutil.Process().memory_info().rss)
        for problem in found["problems"]:
            self._problem(f"{name}, {path.name}", problem)
        return found

    def _look_around(self, name: str, path: Path) -> None:
        """Check for additional files, zombies and processes without a parent that waits."""
        known = {
            path.name,
            f"{path.name}.log",
            *(reference.name for reference, _ in self._references.values()),
        }
        strays = {file.name for file in self._folder.iterdir()} - known
        if strays:
            self._problem(f"{name}, {path.name}", f"stray files: {', '.join(sorted(strays))}")
        for process in psutil.Process().children(recursive=True):
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    self._problem(f"{name}, {path.name}", f"a zombie: process {process.pid}")
            except psutil.NoSuchProcess:
                continue

    def _problem(self, where: str, what: str) -> None:
        print(f"PROBLEM: {where}: {what}", flush=True)
        self.problems.append({"where": where, "what": what})


def growth(memory: list[int]) -> dict[str, Any]:
    """Return the growth of resident memory: quarters in megabytes, and a slope per thousand loads.

    The first quarter, in which imports, caches and the allocator grow, is excluded.
    """
    megabytes = [value / 1e6 for value in memory]
    quarter = len(megabytes) // 4
    if quarter < 5:
        return {"grows": None, "reason": f"{len(megabytes)} loads are too few"}
    early, late = (
        statistics.median(part) for part in (megabytes[quarter : 2 * quarter], megabytes[-quarter:])
    )
    slope, _, low, high = theilslopes(megabytes[quarter:], alpha=0.95)
    return {
        "loads": len(megabytes),
        "second_quarter": early,
        "last_quarter": late,
        "highest": max(megabytes),
        "per_1000_loads": {
            "slope": 1000 * float(slope),
            "low": 1000 * float(low),
            "high": 1000 * float(high),
        },
        "grows": late > early * (1 + _GROWTH),
        "series": megabytes[:: max(1, len(megabytes) // 200)],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/soak.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soak = Soak(Path(folder), options.seed)
        number = 0
        while time.monotonic() - begun < 60 * options.minutes:
            soak.safe_cycle(number)
            number += 1
        soak.close()
    memory = growth(soak.memory)
    result = {
        "minutes": (time.monotonic() - begun) / 60,
        "seed": options.seed,
        "machine": machine(),
        "cycles": dict(soak.cycles),
        "kills": dict(soak.kills),
        "killed_in": dict(soak.phases),
        "problems": soak.problems,
        "memory_of_the_reader": memory,
        "memory_of_the_parent": growth(soak.own_memory),
        "passed": not soak.problems and not memory["grows"],
    }
    write_json(options.out, result)
    print(
        f"{sum(soak.cycles.values())} fits of {len(soak.cycles)} kinds, {sum(soak.kills.values())} "
        "kills:"
    )
    for phase, count in soak.phases.most_common():
        print(f"  {count:6d} while: {phase}")
    print(f"memory of the process that loads and predicts: {_describe_memory(memory)}")
    print(f"{len(soak.problems)} problems; written to {options.out}")
    return 0 if result["passed"] else 1


def _describe_memory(memory: dict[str, Any]) -> str:
    if memory["grows"] is None:
        return memory["reason"]
    slope = memory["per_1000_loads"]
    return (
        f"{memory['second_quarter']:.1f} MB in the second quarter of {memory['loads']} loads, "
        f"{memory['last_quarter']:.1f} MB in the last; {slope['slope']:.1f} MB per thousand loads "
        f"(95 %: {slope['low']:.1f} to {slope['high']:.1f})"
    )


if __name__ == "__main__":
    sys.exit(main())
