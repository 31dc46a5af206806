"""Networks of a zoo depend on their number only, and are trained by the stated objective."""

import math

import numpy as np
import pytest
import torch

from bnn_symm import BayesianModel, Dataset, MLPConfig, Prior, build_network, load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.likelihoods import Categorical, Gaussian
from bnn_symm.zoo import ZooConfig, load_zoo_plan
from bnn_symm.zoo.scores import midpoint_barriers, score_networks
from bnn_symm.zoo.training import train_networks

SHORT = ZooConfig(num_steps=(5, 15))


@pytest.fixture(scope="module")
def iris():
    dataset = load_dataset("iris")
    net = build_network(MLPConfig(widths=(3,)), input_shape=(4,), num_outputs=3, seed=0)
    return BayesianModel(net, Prior(), Categorical()), dataset


def test_a_network_does_not_depend_on_its_batch(iris):
    model, dataset = iris
    together = train_networks(model, dataset, SHORT, 0, range(6))
    assert torch.equal(together, train_networks(model, dataset, SHORT, 0, range(6)))
    apart = torch.cat(
        [train_networks(model, dataset, SHORT, 0, own) for own in ([0, 1], [2], [3, 4, 5])]
    )
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together, train_networks(model, dataset, SHORT, 1, range(6)))


@pytest.mark.thorough
def test_training_finds_the_mode():
    x = torch.linspace(-1, 1, 60)[:, None]
    dataset = Dataset.from_arrays(x, 2 * x[:, 0] + 0.1 * torch.sin(50 * x[:, 0]), test_fraction=0.2)
    net = build_network(MLPConfig(widths=()), input_shape=(1,), num_outputs=1, seed=0)
    model = BayesianModel(net, Prior(scale=0.1), Gaussian(noise=1.0))
    config = ZooConfig(
        learning_rate=0.05,
        prior_weight=3.0,
        num_steps=300,
        train_fraction=1.0,
        label_noise=0.0,
        batch_size=400,
    )
    slope = train_networks(model, dataset, config, 0, [0, 1])[:, 0]
    features, target = dataset.train.x[:, 0].double(), dataset.train.y.double()
    # Ridge regression: the precision of the prior is 3 / 0.1^2.
    expected = (features * target).sum() / (features.square().sum() + 300)
    torch.testing.assert_close(slope.double(), expected.expand(2), rtol=0.05, atol=0)


def test_label_noise_raises_the_test_nll(iris):
    model, dataset = iris
    common = {"learning_rate": 0.05, "num_steps": 60, "prior_weight": 0.1}
    nll = {
        noise: score_networks(
            model,
            dataset,
            train_networks(model, dataset, ZooConfig(label_noise=noise, **common), 0, range(8)),
        )["nll"].mean()
        for noise in (0.0, 0.9)
    }
    assert nll[0.9] > nll[0.0] + 0.3


def test_scores_are_those_of_each_network(iris):
    model, dataset = iris
    weights = torch.stack([model.initial(seed) for seed in range(3)])
    scores = score_networks(model, dataset, weights)
    for number, flat in enumerate(weights):
        with torch.no_grad():
            outputs = model.outputs(flat, dataset.test.x)
        nll = torch.nn.functional.cross_entropy(outputs, dataset.test.y)
        assert scores["nll"][number] == pytest.approx(float(nll), rel=1e-5)
        right = (outputs.argmax(1) == dataset.test.y).double().mean()
        assert scores["accuracy"][number] == pytest.approx(float(right))
    barriers = midpoint_barriers(model, dataset, weights, scores["nll"])
    best = int(np.argmin(scores["nll"]))
    assert barriers[best] == pytest.approx(0, abs=1e-6)


def test_hyperparameters_are_in_their_ranges_and_log_uniform():
    config = ZooConfig(learning_rate=(1e-4, 1e-2), num_steps=(7, 9), label_noise=0.25)
    own = [config.hyperparameters(0, number) for number in range(400)]
    assert {values["num_steps"] for values in own} == {7.0, 8.0, 9.0}
    assert {values["label_noise"] for values in own} == {0.25}
    logarithms = [math.log10(values["learning_rate"]) for values in own]
    assert min(logarithms) > -4
    assert max(logarithms) < -2
    assert np.mean(logarithms) == pytest.approx(-3, abs=0.1)
    assert own[3] == config.hyperparameters(0, 3)


def test_a_plan_survives_its_file(tmp_path):
    plan = load_zoo_plan(None, ["zoo.label_noise=0.1", "architecture.widths=[5]", "seed=4"])
    (tmp_path / "config.yaml").write_text(plan.to_yaml())
    assert load_zoo_plan(tmp_path / "config.yaml") == plan


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("zoo.learning_rat=1", "did you mean 'learning_rate'?"),
        ("zoo.learning_rate=[0.1, 0.01]", "the lower end of the range first"),
        ("zoo.learning_rate=[0, 0.01]", "zoo.learning_rate: got"),
        ("zoo.label_noise=1.5", "zoo.label_noise: got"),
        ("zoo.batch_size=0", "zoo.batch_size: got 0"),
        ("zoo=3", "expected a section with keys"),
        ("inference.name=map", "remove the section inference"),
    ],
)
def test_wrong_keys_are_named(override, words):
    with pytest.raises(ConfigError, match="zoo") as caught:
        load_zoo_plan(None, [override])
    assert words in str(caught.value)
