"""Methods that start processes work in scripts as people write them."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bnn_symm.errors import ConfigError
from bnn_symm.inference.parallel.spawning import pickle_by_value, without_main

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


def test_the_main_module_is_put_back() -> None:
    before = sys.modules["__main__"]
    with without_main():
        assert not hasattr(sys.modules["__main__"], "__file__")
    assert sys.modules["__main__"] is before


def test_what_cannot_be_sent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be sent to another process .*; use one job"):
        pickle_by_value(threading.Lock(), "use one job")
