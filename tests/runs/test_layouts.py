"""Networks on sequences and on tokens: fit, stored run, symmetry and scores."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm import BayesianModel, Dataset, Prior
from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.errors import ConfigError
from bnn_symm.inference import HMC, IVON, NUTS, LaplaceApproximation, MeanFieldVI
from bnn_symm.likelihoods import Categorical
from bnn_symm.runs import load_run
from bnn_symm.symmetry import permutation_spec
from tests.runs.fits import fit

pytestmark = pytest.mark.thorough

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 2, size=80)
# Tokens below 3 are frequent in class 1.
TOKENS = np.where(
    RANDOM.random((80, 6)) < 0.1 + 0.5 * LABELS[:, None],
    RANDOM.integers(0, 3, (80, 6)),
    RANDOM.integers(3, 12, (80, 6)),
)
SEQUENCES = RANDOM.normal(size=(80, 6, 2)) + LABELS[:, None, None]
FACTORIES = """
from torch import nn


class Tokens(nn.Module):
    def __init__(self, num_outputs, num_tokens=12):
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, 4)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, x):
        return self.head(self.embedding(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.rnn = nn.GRU(input_shape[1], 3, batch_first=True)
        self.head = nn.Linear(3, num_outputs)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "layout_networks.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    yield "layout_networks"
    sys.modules.pop("layout_networks", None)


@pytest.mark.parametrize(
    ("layout", "x", "factory"),
    [("tokens", TOKENS, "Tokens"), ("sequence", SEQUENCES, "Recurrent")],
)
def test_a_run_of_a_network_of_the_users_own(tmp_path, factories, layout, x, factory):
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=LABELS)
    keys = [f"data.name={path}", f"data.layout={layout}", "architecture.name=module"]
    keys += [f"architecture.factory={factories}:{factory}", "inference.name=mean_field_vi"]
    keys += ["inference.num_steps=60", "inference.learning_rate=0.05", "inference.num_draws=20"]
    run = fit(tmp_path / "run", keys)
    again = load_run(tmp_path / "run", module=f"{factories}:{factory}")
    points = again.dataset().test.x
    assert points.is_floating_point() == (layout == "sequence")
    assert torch.equal(
        again.posterior.predict(points).outputs, run.posterior.predict(points).outputs
    )
    assert np.isfinite(again.predict(x)["probability_1"]).all()


def token_model(num_tokens=12):
    net = nn.Sequential(nn.Embedding(num_tokens, 3), nn.Flatten(), nn.Linear(18, 2))
    return BayesianModel(net, Prior(), Categorical())


@pytest.mark.parametrize(
    "method",
    [
        MeanFieldVI(num_steps=20, num_draws=5),
        LaplaceApproximation(num_steps=20, num_draws=5),
        IVON(num_steps=20, num_draws=5),
        NUTS(num_warmup=5, num_draws=5, num_chains=2, max_tree_depth=2),
        HMC(num_warmup=5, num_draws=5, num_chains=2, max_num_steps=5),
    ],
    ids=lambda method: method.name,
)
def test_methods_on_tokens(method):
    data = Dataset.from_arrays(TOKENS, LABELS, layout="tokens")
    posterior = method.fit(token_model(), data, seed=0)
    assert posterior.predict(data.test.x).outputs.shape[2:] == (len(data.test), 2)


def test_the_symmetry_of_a_network_of_tokens():
    net = nn.Sequential(
        nn.Embedding(5, 4), nn.Flatten(), nn.Linear(24, 3), nn.Tanh(), nn.Linear(3, 2)
    )
    spec = permutation_spec(net, input_shape=(6,))
    assert sorted(group.size for group in spec.groups.values()) == [3, 4]


def test_networks_that_do_not_embed_the_tokens():
    data = Dataset.from_arrays(TOKENS, LABELS, layout="tokens")
    with pytest.raises(ConfigError, match="the network embeds those from 0 to 4"):
        MeanFieldVI(num_steps=5).fit(token_model(num_tokens=5), data, seed=0)
    with pytest.raises(ConfigError, match="mlp takes numbers"):
        build_network(MLPConfig(), input_shape=(6,), num_outputs=2, points=data.train.x)
