"""Every method is bitwise identical after kills by signal 9 at random times in one fit.

The times are rows of the history, drawn by a seed over the whole fit, plus a few milliseconds.
`benchmarks/soak.py` runs the same fits for an hour and kills at arbitrary times.
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.soak import AFTERWARDS, cases
from bnn_symm.randomness import numpy_generator
from bnn_symm.runs import Run, load_run

from .fits import flags, history, lines, run_elsewhere, same_bits, start, wait_until

pytestmark = pytest.mark.thorough

CASES = cases()
# The longest pause after the row at which a fit is to be killed, in seconds.
_PAUSE = 0.02


def _killed(path: Path, keys: list[str], row: int, pause: float) -> bool:
    """Return whether the fit was killed soon after a row of its history, before its end."""
    words = ["--resume", str(path)] if path.exists() else [*flags(keys), "--out", str(path)]
    process = start(["fit", "--quiet", *words], path.with_suffix(".log"))
    wait_until(lambda: lines(path / "history.jsonl") >= row or not process.is_alive())
    time.sleep(pause)
    parent = psutil.Process(process.pid)
    children = parent.children(recursive=True) if process.is_alive() else []
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    psutil.wait_procs(children, timeout=40)
    assert process.exitcode in (0, -signal.SIGKILL), path.with_suffix(".log").read_text()
    return process.exitcode != 0


def _draws_so_far_are_the_first(run: Run, undisturbed: Run) -> None:
    chains, draws, _ = undisturbed.posterior.shape
    whole = undisturbed.posterior.draws().unflatten(0, (chains, draws)).numpy()
    for chain, chunk in run.directory.fit_state().draws.items():
        positions = np.asarray(chunk.positions)
        np.testing.assert_array_equal(positions, whole[chain, : len(positions)])


def _check(tmp_path: Path, name: str, kills: int, seed: int, extra: list[str]) -> None:
    keys = [*CASES[name], f"seed={seed}", *extra]
    run_elsewhere(
        ["fit", "--quiet", *flags(keys), "--out", str(tmp_path / "undisturbed")], tmp_path / "log"
    )
    undisturbed = load_run(tmp_path / "undisturbed")
    chance = numpy_generator(seed, "kills", name)
    path = tmp_path / "run"
    hit = 0
    for row in sorted(chance.integers(0, len(history(undisturbed)), kills).tolist()):
        if not _killed(path, keys, row, float(chance.uniform(0, _PAUSE))):
            break
        hit += 1
        if path.exists():
            _draws_so_far_are_the_first(load_run(path), undisturbed)
    if not path.exists():
        run_elsewhere(["fit", "--quiet", *flags(keys), "--out", str(path)], tmp_path / "log")
    elif load_run(path).status != "complete":
        run_elsewhere(["fit", "--quiet", "--resume", str(path)], tmp_path / "log")
    resumed = load_run(path)
    assert hit > 0
    assert resumed.status == "complete"
    assert same_bits(resumed, undisturbed)
    for statistic, values in getattr(undisturbed.posterior, "sample_stats", {}).items():
        np.testing.assert_array_equal(resumed.posterior.sample_stats[statistic], values)  # type: ignore[attr-defined]
    assert history(resumed) == history(undisturbed)
    assert resumed.metrics == undisturbed.metrics
    assert "resumed_with_changes" not in resumed.record
    files, wanted = (
        {file.name for file in run.path.iterdir()} - AFTERWARDS for run in (resumed, undisturbed)
    )
    assert files == wanted
    assert {entry.name for entry in tmp_path.iterdir()} == {"log", "run", "run.log", "undisturbed"}


# One method of each kind of loop; the others share theirs with one of these.
_QUICK = (
    *("mean_field_vi-local", "ivon-flipout", "hmc-batched", "nuts-pyro", "mclmc"),
    *("deep_ensemble", "laplace", "sghmc", "mixture"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in CASES]
)
def test_killed_at_random_moments(tmp_path, name):
    short = {"inference.num_draws=": 60, "inference.num_warmup=": 40, "inference.num_steps=": 300}
    extra = [
        f"{key}{value}"
        for key, value in short.items()
        if any(own.startswith(key) for own in CASES[name])
    ]
    if name == "hmc-batched":  # compiled chains are those of mclmc
        extra.append("inference.compile=false")
    if name == "sghmc":
        extra += ["inference.num_chains=2", "inference.num_draws=30"]
    _check(tmp_path, name, kills=2, seed=1, extra=extra)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_killed_many_times(tmp_path, name, seed):
    _check(tmp_path, name, kills=8, seed=seed, extra=[])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name, keys in CASES.items() if "inference.chain_method=sequential" in keys]
)
def test_killed_with_chains_in_processes_of_their_own(tmp_path, name):
    _check(tmp_path, name, kills=3, seed=5, extra=["inference.chain_method=parallel"])
