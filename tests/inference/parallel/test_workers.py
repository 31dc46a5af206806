"""Worker processes: as new ones, whatever the script; how they end, and how their parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cloudpickle
import psutil
import pytest
import torch

from bnn_symm.inference.parallel.workers import Worker
from tests.runs.fits import wait_until

# No `if __name__ == "__main__":`, a network class of its own, and a value of the script that it
# reads.
SCRIPT = """
print("begins")
from torch import nn
from bnn_symm import BayesianModel, DeepEnsemble, Gaussian, Prior, load_dataset

SCALE = 2.0

class Net(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.linear = nn.Linear(inputs, 1)

    def forward(self, x):
        return self.linear(x) * SCALE

data = load_dataset("diabetes")
model = BayesianModel(Net(data.train.x.shape[1]), Prior(), Gaussian(noise=0.5))
method = DeepEnsemble(num_members=2, num_steps=3, chain_method="parallel")
print(method.fit(model, data, seed=0).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["file", "standard input", "command"])
def test_a_script_without_a_guard_runs_once(how, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    arguments = {"file": [str(path)], "standard input": ["-"], "command": ["-c", SCRIPT]}[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=SCRIPT if how == "standard input" else None,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["begins", "(2, 1, 11)"]


@pytest.mark.parametrize("is_new", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_worker_has_the_present_state_of_its_parent(is_new, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNN_SYMM_LATE", "set late")
    if is_new:  # libraries read this one when they are loaded
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
    Path("module_of_the_user.py").write_text("VALUE = 3")

    def work(message, parent):
        value = __import__("module_of_the_user").VALUE
        group = os.getpgid(0) == os.getpid()
        state = (torch.get_num_threads(), torch.cuda.is_initialized(), parent.stop_requested)
        return message, value, os.environ["BNN_SYMM_LATE"], group, *state

    worker = Worker(cloudpickle.dumps(work), threads=None if is_new else 5)
    threads = min(2, os.cpu_count() or 1) if is_new else 5
    for message in ("stop", 1):
        worker.send(message)
    assert worker.pipe.recv() == ("done", (1, 3, "set late", True, threads, False, True))
    worker.send(None)
    assert worker.wait() == 0


@pytest.mark.parametrize("status", [3, -signal.SIGKILL])
def test_a_worker_that_dies_while_it_sends_is_reported(status) -> None:
    def work(_, parent):
        os.write(parent._pipe.fileno(), b"\0\0\1\0a part of 256 bytes")
        if status < 0:
            os.kill(os.getpid(), -status)
        os._exit(status)

    worker = Worker(cloudpickle.dumps(work))
    worker.send(0)
    with pytest.raises((EOFError, OSError)):
        worker.pipe.recv()
    assert worker.wait() == status


@pytest.mark.thorough
def test_a_busy_worker_ends_with_its_parent() -> None:
    code = """
from bnn_symm.inference.parallel.workers import *
def work(_, parent):
    parent.send(os.getpid())
    while True:
        pass
worker = Worker(cloudpickle.dumps(work))
worker.send(0)
print(worker.pipe.recv(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not psutil.pid_exists(int(done.stdout)))


@pytest.mark.thorough
def test_what_the_server_imports_leaves_the_devices_alone() -> None:
    code = """
import importlib, torch
from bnn_symm.inference.parallel.workers import _PRELOAD
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, None)
for name in _PRELOAD:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
