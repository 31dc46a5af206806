"""Arguments of the wrong type raise one sentence with the argument and a remedy."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bnn_symm
from bnn_symm import (
    BayesianModel,
    BnnSymmError,
    Categorical,
    MeanFieldVI,
    Prior,
    SamplePosterior,
    load_dataset,
)
from bnn_symm.arguments import checked
from bnn_symm.diagnostics.barriers.interpolation import couple
from bnn_symm.errors import ConfigError, NotEnoughMemory


class Things:
    def __init__(self):
        self.data = load_dataset("iris")
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.model = BayesianModel(self.net, Prior(), Categorical())
        self.method = MeanFieldVI(num_steps=2)
        self.flat = self.model.initial()
        self.posterior = SamplePosterior.from_draws(
            self.model, torch.stack([self.flat, self.flat + 1])[None]
        )
        self.array = np.zeros((3, 4), np.float32)
        self.table = pd.DataFrame(self.array)
        self.loader = DataLoader(TensorDataset(torch.zeros(3, 4)))

    def fit(self, **changes):
        data = replace(self.data, train=replace(self.data.train, **changes))
        return self.method.fit(self.model, data, seed=0)

    def with_nan(self):
        x = self.data.train.x.clone()
        x[2, 1] = float("nan")
        return x


@pytest.fixture(scope="module")
def things() -> Things:
    return Things()


CALLS = {
    "fit of an array": (
        lambda t: t.method.fit(t.model, t.array, seed=0),
        "dataset: got an object of type ndarray",
    ),
    "fit of a table": (lambda t: t.method.fit(t.model, t.table, seed=0), "BNNClassifier"),
    "fit of a loader": (lambda t: t.method.fit(t.model, t.loader, seed=0), "DataLoader"),
    "fit of a part": (
        lambda t: t.method.fit(t.model, t.data.train, seed=0),
        "pass the whole data set",
    ),
    "fit of a network": (lambda t: t.method.fit(t.net, t.data, seed=0), r"BayesianModel\(net"),
    "fit of x and y": (lambda t: t.method.fit(t.model, t.array, t.array), "too many positional"),
    "fit without a seed": (lambda t: t.method.fit(t.model, t.data), "'seed'"),
    "a seed of another type": (
        lambda t: t.method.fit(t.model, t.data, seed=0.5),
        "seed: got an object of type float",
    ),
    "an initial tensor": (
        lambda t: t.method.fit(t.model, t.data, seed=0, initial=t.flat),
        "initial",
    ),
    "NaN in x": (lambda t: t.fit(x=t.with_nan()), "row 2 has NaN"),
    "classes out of range": (
        lambda t: t.fit(y=t.data.train.y + 1),
        "from 1 to 3, expected indices from 0 to 2",
    ),
    "negative classes": (lambda t: t.fit(y=t.data.train.y - 1), "from -1 to 1"),
    "classes that are floats": (lambda t: t.fit(y=t.data.train.y.float()), "class indices"),
    "fewer outputs": (
        lambda t: t.method.fit(
            BayesianModel(nn.Linear(4, 2), Prior(), Categorical()), t.data, seed=0
        ),
        "2 outputs, expected 3",
    ),
    "fewer inputs": (
        lambda t: t.method.fit(
            BayesianModel(nn.Linear(3, 3), Prior(), Categorical()), t.data, seed=0
        ),
        r"points of shape \(4, 4\)",
    ),
    "predict an array": (lambda t: t.posterior.predict(t.array), "torch.as_tensor"),
    "predict a table": (lambda t: t.posterior.predict(t.table), "DataFrame"),
    "predict a list": (lambda t: t.posterior.predict([[0.0] * 4]), "type list"),
    "predict a part": (lambda t: t.posterior.predict(t.data.test), "pass its tensor x"),
    "predict a data set": (lambda t: t.posterior.predict(t.data), "dataset.test.x"),
    "predict other columns": (
        lambda t: t.posterior.predict(torch.zeros(3, 5)),
        r"points of shape \(3, 5\)",
    ),
    "predict NaN": (lambda t: t.posterior.predict(t.with_nan()), "row 2"),
    "draws by a word": (lambda t: t.posterior.draws("3"), "num_samples"),
    "permute by a list": (lambda t: t.posterior.permute([0, 1]), "Permutation"),
    "draws in an array": (
        lambda t: SamplePosterior.from_draws(t.model, np.zeros((1, 1, 43))),
        "torch.as_tensor",
    ),
    "one checkpoint": (
        lambda t: SamplePosterior.from_state_dicts(t.model, t.net),
        "such as a list",
    ),
    "score of a data set": (lambda t: bnn_symm.score(t.posterior, t.data), "dataset.test"),
    "score of a model": (lambda t: bnn_symm.score(t.model, t.data.test), "fit it first"),
    "score the other way": (
        lambda t: bnn_symm.score(t.data.test, t.posterior),
        "posterior: got an object of type Split",
    ),
    "merge of one": (lambda t: bnn_symm.merge(t.posterior), "a sequence of Posterior"),
    "merge of a model": (
        lambda t: bnn_symm.merge([t.posterior, t.model]),
        "with an object of type BayesianModel",
    ),
    "elbo without data": (lambda t: bnn_symm.elbo(t.posterior), "'train'"),
    "align a path": (lambda t: bnn_symm.align(t.posterior, "runs/a"), "load_run"),
    "mixing of draws": (
        lambda t: bnn_symm.mixing(t.flat, t.data.test),
        "posterior: got an object of type Tensor",
    ),
    "posterior of a network": (
        lambda t: bnn_symm.GaussianPosterior(t.net, t.data.scaling, loc=t.flat, scale=t.flat),
        "model:",
    ),
    "posterior of arrays": (
        lambda t: bnn_symm.GaussianPosterior(t.model, t.data.scaling, loc=t.array, scale=t.array),
        "loc: got an object of type ndarray",
    ),
    "posterior of two lengths": (
        lambda t: bnn_symm.GaussianPosterior(
            t.model, t.data.scaling, loc=t.flat, scale=torch.ones(1)
        ),
        r"scale \(1,\)",
    ),
    "posterior without scales": (
        lambda t: bnn_symm.LowRankGaussianPosterior(t.model),
        "missing a required argument",
    ),
    "posterior of positions": (
        lambda t: SamplePosterior(t.model, t.data.scaling, positions=t.flat),
        "SamplePosterior.from_draws",
    ),
    "mean of a network": (
        lambda t: bnn_symm.PriorMean(t.net),
        "weights: got an object of type Sequential",
    ),
    "mean of arrays": (
        lambda t: bnn_symm.PriorMean({"0.weight": t.array}),
        "under '0.weight', expected a tensor",
    ),
    "statistics of a matrix": (
        lambda t: bnn_symm.chain_statistics(t.array),
        r"\(chain, draw, column\)",
    ),
    "statistics of a tensor": (
        lambda t: bnn_symm.chain_statistics(torch.zeros(2, 9, 3)),
        r"\.numpy\(\)",
    ),
    "spec of a model": (lambda t: bnn_symm.permutation_spec(t.model), "model.net"),
    "asymmetrize a model": (lambda t: bnn_symm.asymmetrize(t.model), "torch.nn.Module"),
    "build by name": (
        lambda t: bnn_symm.build_network("mlp", input_shape=(3,), num_outputs=2),
        "MLPConfig",
    ),
    "load an array": (lambda t: bnn_symm.load_dataset(t.array), "ndarray"),
    "run of a file": (lambda t: bnn_symm.fit_run("config.yaml"), "load_config"),
    "run of keys": (lambda t: bnn_symm.fit_run({"seed": 1}), "parse_config"),
    "keys as text": (lambda t: bnn_symm.parse_config("seed: 1"), "Mapping"),
    "a run with a null character": (
        lambda t: bnn_symm.fit_run(bnn_symm.Config(), "a\0b"),
        "null character",
    ),
    "open a number": (lambda t: bnn_symm.load_run(3), "path"),
    "names of an array": (lambda t: bnn_symm.match_names(t.array, t.model), "Mapping"),
    "verdicts of a posterior": (lambda t: bnn_symm.verdicts(t.posterior), "Mixing"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments(name, things) -> None:
    call, words = CALLS[name]
    with pytest.raises(BnnSymmError, match=words) as caught:
        call(things)
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_more_draws_than_memory(things) -> None:
    for method in (bnn_symm.HMC(num_draws=10**11), bnn_symm.DeepEnsemble(num_members=10**12)):
        with pytest.raises(NotEnoughMemory, match=r"needs .*TB of memory"):
            method.fit(things.model, things.data, seed=0)


@pytest.mark.parametrize("widths", [(10**6, 10**6), (10**7, 10**7, 10**7), (10**12, 10**12)])
@pytest.mark.parametrize("config", [bnn_symm.MLPConfig, bnn_symm.CNNConfig])
def test_wider_networks_than_memory(widths, config) -> None:
    with pytest.raises(NotEnoughMemory, match=r"architecture\.widths"):
        bnn_symm.build_network(config(widths=widths), input_shape=(1, 8, 8), num_outputs=2)


def test_public_functions_can_be_pickled_and_are_one_object() -> None:
    assert bnn_symm.score is bnn_symm.score
    assert pickle.loads(pickle.dumps(bnn_symm.score)) is bnn_symm.score


def test_what_is_not_looked_at_passes() -> None:
    @checked
    def function(x: int | None, y: "float" = 1.0, *rest: object, **more: object) -> str:
        return f"{x} {y} {rest} {more}"

    assert function(None, 2, 3, z=4) == "None 2 (3,) {'z': 4}"
    with pytest.raises(ConfigError, match="function: x"):
        function(True)


def test_words_that_a_literal_does_not_allow_are_refused(things) -> None:
    posterior = things.posterior
    calls = {
        "synchronize: cost: got 'precision', expected w2 or means": lambda: bnn_symm.synchronize(
            [posterior, posterior], cost="precision"
        ),
        "barrier: path: got 'lines', expected geodesic, line or bezier": lambda: bnn_symm.barrier(
            posterior, posterior, things.data, path="lines"
        ),
        "couple: coupling: got 'moments', expected moment": lambda: couple(
            [posterior, posterior], num_draws=1, coupling="moments"
        ),
        "align_samples: per: got 1, expected chain or draw": lambda: bnn_symm.align_samples(
            posterior, per=1
        ),
        "tempering: got 'prior'": lambda: things.model.potential(
            things.flat, things.data.train.x, things.data.train.y, tempering="prior"
        ),
    }
    for message, call in calls.items():
        with pytest.raises(ConfigError) as caught:
            call()
        assert message in str(caught.value)


def test_numbers_that_are_too_small_are_refused(things) -> None:
    posterior = things.posterior
    normal = things.method.fit(things.model, things.data, seed=0)
    calls = {
        "restarts: got -1, expected 0 or more": (
            lambda: bnn_symm.align(posterior, posterior, restarts=-1),
            lambda: bnn_symm.synchronize([posterior, posterior], restarts=-1),
            lambda: bnn_symm.align_samples(posterior, restarts=-1),
        ),
        "num_samples: got 0, expected 1 or more": (
            lambda: posterior.draws(0),
            lambda: normal.draws(0),
        ),
    }
    for message, own in calls.items():
        for call in own:
            with pytest.raises(ConfigError, match=message):
                call()
