"""Data sets in files: equal to those in memory, in bounded memory, and refusals."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from bnn_symm import Dataset
from bnn_symm.errors import ConfigError, InvalidData

RANDOM = np.random.default_rng(0)
X = torch.from_numpy(RANDOM.integers(0, 256, size=(90, 1, 4, 4)).astype(np.uint8))
Y = torch.from_numpy(RANDOM.integers(0, 3, size=90))
POINTS = TensorDataset(X, Y)


@pytest.mark.parametrize("points", [POINTS, DataLoader(POINTS, batch_size=32)])
@pytest.mark.parametrize("standardize", [True, False])
def test_a_data_set_in_files_equals_one_in_memory(tmp_path, points, standardize):
    wanted = Dataset.from_arrays(X, Y, standardize=standardize)
    got = Dataset.from_torch(points, directory=tmp_path / "new", standardize=standardize)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(got, part).x, getattr(wanted, part).x)
        assert torch.equal(getattr(got, part).y, getattr(wanted, part).y)
    assert got.provenance.sha256 == wanted.provenance.sha256
    in_memory = Dataset.from_torch(points, standardize=standardize)
    assert torch.equal(in_memory.train.x, wanted.train.x)


def test_an_empty_split_in_files(tmp_path):
    data = Dataset.from_torch(POINTS, directory=tmp_path, test_fraction=0.0)
    assert data.test.x.shape == (0, 1, 4, 4)


class Broken:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return (np.zeros(2 + index), 0)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (Broken(), InvalidData, "expected one; pad, resize or convert"),
        ([1.0, 2.0], ConfigError, "pairs of an input and a target"),
        (iter([]), ConfigError, "a data set with a length"),
        ([], InvalidData, "no points"),
    ],
)
@pytest.mark.parametrize("in_files", [True, False])
def test_points_that_are_no_data_set(tmp_path, points, error, message, in_files):
    with pytest.raises(error, match=message):
        Dataset.from_torch(points, directory=tmp_path if in_files else None)


def test_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected an empty directory"):
        Dataset.from_torch(POINTS, directory=tmp_path)
    with pytest.raises(ConfigError, match="cannot be stored"):
        Dataset.from_torch(POINTS, directory=tmp_path / "file" / "new")


LARGE = """
import resource, sys
import numpy as np, torch
from torch import nn
from bnn_symm import BayesianModel, Dataset, Prior
from bnn_symm.inference import MeanFieldVI
from bnn_symm.likelihoods import Categorical

class Points:
    def __len__(self):
        return 12_000

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=(100, 100)).astype(np.float32)
        return x, int(x[0, 0] > 0)

torch.set_num_threads(1)
used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + 300_000_000,) * 2)
data = Dataset.from_torch(Points(), directory=sys.argv[1], layout="image")
net = nn.Sequential(nn.Flatten(), nn.Linear(10_000, 2))
model = BayesianModel(net, Prior(), Categorical())
posterior = MeanFieldVI(num_steps=20, batch_size=64, num_draws=4).fit(model, data, seed=0)
print(sum(p.outputs.numel() for p in posterior.iter_predict(data.test.x)))
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process of Linux")
def test_a_fit_of_more_data_than_memory(tmp_path):
    """480 MB of inputs are standardized, fitted and predicted within 300 MB of private memory."""
    result = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / "data")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) == 4 * 2400 * 2
