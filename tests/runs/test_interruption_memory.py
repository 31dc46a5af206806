"""Draws are stored only on disk: the memory of a fit does not grow with their number."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.inference import Callback, HistoryRecorder
from bnn_symm.posteriors import DrawChunk
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.directory.writer import RunWriter

from .fits import IRIS, fit, history

pytestmark = pytest.mark.thorough

# A run in a process of its own that reports its peak memory. What is held at a time by
# design, 16 MB here and there, is set to 1 MB, so that a small run already needs all of it.
_CHILD = """
import sys
import torch
import bnn_symm.runs.directory.writer as run_writer, bnn_symm.posteriors.io.draw_log as draw_log
import bnn_symm.posteriors.posterior as posterior, bnn_symm.posteriors.io.netcdf as storage
from bnn_symm.runs import fit_run, load_config

run_writer._BUFFER_BYTES = draw_log._BYTES_PER_READ = 2**20
storage._NUMBERS_PER_WRITE = posterior._NUMBERS_PER_CHUNK = 2**18
torch.set_num_threads(1)
run = fit_run(load_config(None, sys.argv[2:]), sys.argv[1])
assert run.status == "complete"
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def _peak_megabytes(path: Path, draws: int) -> float:
    keys = [
        "data.name=iris",
        "architecture.widths=[256,256]",
        f"inference={{name: hmc, num_draws: {draws}}}",
    ]
    keys += ["inference.num_chains=1", "inference.num_warmup=1", "inference.max_num_steps=1"]
    keys += [
        "inference.adapt_step_size=false",
        "inference.initial_step_size=1e-3",
        "inference.compile=false",
    ]
    command = [sys.executable, "-c", _CHILD, str(path), *keys]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout) / 1000


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="the system does not report the peak memory of a process",
)
def test_the_memory_of_a_run_does_not_grow_with_its_draws(tmp_path):
    few, many = 40, 240
    small, large = (_peak_megabytes(tmp_path / f"{draws}", draws) for draws in (few, many))
    run = load_run(tmp_path / f"{many}")
    chains, draws, parameters = run.posterior.shape
    assert (chains, draws) == (1, many)
    more = 4 * (many - few) * parameters / 1e6
    assert (
        more > 50
    )  # what one copy of the draws would add, in MB; a fit in memory has two or three
    assert large - small < 0.2 * more


def test_draws_that_a_callback_keeps_are_not_kept_twice(tmp_path):
    class Keeps(Callback):
        def __init__(self):
            self.draws = {}

        def on_draws(self, chunk):
            self.draws[chunk.chain] = chunk

        def stored_draws(self):
            return self.draws

    draw_store, chunk = Keeps(), DrawChunk(2, 0, np.ones((3, 4)), {"lp": np.zeros(3)})
    for recorder, kept in ((HistoryRecorder(draw_store=draw_store), 0), (HistoryRecorder(), 1)):
        recorder.on_draws(chunk)
        assert len(recorder._chunks) == kept
    assert HistoryRecorder(draw_store=draw_store).fit_state().draws == {}
    draw_store.on_draws(chunk)
    assert HistoryRecorder(draw_store=draw_store).fit_state().draws[2] is chunk


def _writer(path: Path, every: float | str) -> RunWriter:
    directory = RunDirectory(fit(path, [*IRIS, "inference.num_steps=1"]).path)
    directory.draws.mkdir()
    directory.checkpoint.mkdir()
    return RunWriter(directory, every)


@pytest.mark.parametrize("essential", [True, False])
def test_no_state_is_ahead_of_its_draws(tmp_path, essential):
    """Draws and history are on disk before the state that depends on them."""
    writer = _writer(tmp_path / "run", every=0.01 if not essential else 1e6)
    directory = writer._directory
    on_disk = []
    save = directory.save_state

    def watched(chain, state):
        chains = directory.fit_state().draws
        on_disk.append({chain: len(chunk.positions) for chain, chunk in chains.items()})
        save(chain, state)

    directory.save_state = watched  # type: ignore[method-assign]
    for first in range(0, 6, 2):
        for chain in (0, 1):
            writer.on_draws(
                DrawChunk(chain, first, np.ones((2, 3), np.float32), {"lp": np.zeros(2)})
            )
        writer._last_state.clear()
        writer.on_state(0, lambda: {"iteration": np.asarray(1)}, essential=essential)
    writer.close()
    assert on_disk == [{0: 2, 1: 2}, {0: 4, 1: 4}, {0: 6, 1: 6}]


def test_draws_reported_at_once_make_one_file(tmp_path):
    """Draws of many chains share one file, too."""
    writer = _writer(tmp_path / "run", every=1e6)
    for first in range(5):
        for chain in range(20):
            writer.on_draws(
                DrawChunk(chain, first, np.full((1, 3), first, np.float32), {"lp": np.zeros(1)})
            )
    kept = writer.stored_draws()
    writer.close()
    assert len(list(writer._directory.draws.iterdir())) == 1
    assert sorted(kept) == list(range(20))
    assert all(
        np.asarray(chunk.positions)[:, 0].tolist() == [0, 1, 2, 3, 4] for chunk in kept.values()
    )


def test_states_are_saved_every_so_many_steps_of_each_chain(tmp_path):
    writer = _writer(tmp_path / "run", every="50 steps")
    saved = []
    writer._directory.save_state = lambda chain, state: saved.append((chain, state["step"]))  # type: ignore
    for step in range(0, 201, 20):
        for chain in (0, 1):
            if step <= 100 or chain == 0:
                writer.on_history({"chain": chain, "step": step})
                writer.on_state(chain, lambda step=step: {"step": step})
    writer.on_state(1, lambda: {"step": 101}, essential=True)
    writer.close()
    assert [step for chain, step in saved if chain == 0] == [0, 60, 120, 180]
    assert [step for chain, step in saved if chain == 1] == [0, 60, 101]


def test_an_interval_in_steps_resumes_to_the_same_bits(tmp_path):
    keys = [
        *IRIS,
        "inference={name: map, num_steps: 300, log_every: 10}",
        "checkpoint.every=40 steps",
    ]

    class Stop(Callback):
        def on_history(self, row):
            self.step = row["step"]

        def should_stop(self):
            return getattr(self, "step", 0) >= 100

    run = fit_run(load_config(None, keys), tmp_path / "run", callbacks=[Stop()])
    assert run.status == "interrupted"
    assert history(resume_run(tmp_path / "run")) == history(fit(tmp_path / "undisturbed", keys))


@pytest.mark.parametrize("every", ["0 steps", "-1", "steps", "5 epochs"])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(
        ConfigError, match=r"checkpoint\.every: .* expected seconds, such as 5, or steps, such as"
    ):
        load_config(None, [f"checkpoint.every={every}"])
