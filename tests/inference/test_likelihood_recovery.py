"""Likelihoods find the distribution that targets were simulated from."""

import math

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Dataset
from bnn_symm.inference import MAP
from bnn_symm.likelihoods import Gaussian, GaussianMixture, NegativeBinomial, Poisson, StudentT
from bnn_symm.models import BayesianModel, Prior

POINTS = 1200


def simulated(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "counts":  # dispersion 1.5
        return rng.poisson(np.exp(1 + x) * rng.gamma(1 / 1.5, 1.5, size=len(x)))
    if name == "tails":
        return 2 * x + 0.2 * rng.normal(size=len(x)) * np.where(rng.random(len(x)) < 0.1, 8, 1)
    return rng.choice([-1.0, 1.0], len(x)) * (2 + x) + 0.2 * rng.normal(size=len(x))


@pytest.mark.parametrize(
    ("name", "own", "simple"),
    [
        ("counts", NegativeBinomial(), Poisson()),
        ("tails", StudentT(), Gaussian()),
        ("modes", GaussianMixture(num_components=2), Gaussian()),
    ],
)
def test_it_predicts_better_than_the_simple_likelihood(name, own, simple):
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, POINTS)
    y = simulated(name, x, rng)
    data = Dataset.from_arrays(
        x, y, task=own.task, test_fraction=0.5, validation_fraction=0.0, dtype=torch.float64
    )
    nll, latents = {}, {}
    for likelihood in (own, simple):
        outputs = likelihood.num_net_outputs(1)
        net = build_network(MLPConfig(widths=()), input_shape=(1,), num_outputs=outputs).double()
        method = MAP(num_steps=400, learning_rate=0.05)
        model = BayesianModel(net, Prior(scale=3.0), likelihood)
        posterior = method.fit(model, data, seed=0)
        predictive = posterior.predict(data.test.x)
        nll[likelihood.name] = -predictive.log_prob(data.test.y)
        latents |= {key: float(value) for key, value in predictive.latents.items()}
    gain = nll[simple.name] - nll[own.name]
    assert float(gain.mean()) > 4 * float(gain.std()) / math.sqrt(len(gain))
    if name == "counts":  # the dispersion of 600 points has a standard error of about 0.1
        assert math.exp(latents["log_dispersion"]) == pytest.approx(1.5, abs=0.4)
    if name == "tails":
        assert 2 + math.exp(latents["log_excess"]) < 4
