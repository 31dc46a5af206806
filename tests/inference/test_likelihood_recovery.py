"""Likelihoods find the distribution that targets were simulated from."""

import math

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Dataset
from bnn_symm.inference import MAP
from bnn_symm.likelihoods import (
    Gaussian,
    GaussianMixture,
    HeteroscedasticGaussian,
    HeteroscedasticStudentT,
    LogNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
    Weibull,
)
from bnn_symm.models import BayesianModel, Prior

POINTS = 1200


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["weibull", "lognormal", "poisson"])
def test_coefficients_of_censored_times_and_exposed_counts_are_recovered(name):
    rng = np.random.default_rng(3)
    x, end, noise = rng.normal(size=POINTS), rng.exponential(80, POINTS), 0.6
    normal, extreme = rng.normal(size=POINTS), np.log(rng.exponential(size=POINTS))
    time = np.exp(3 + 0.8 * x + noise * (normal if name == "lognormal" else extreme))
    y, second = np.minimum(time, end), {"event": time <= end}
    if name == "poisson":
        y, second = rng.poisson(end * np.exp(-3 + 0.8 * x)), {"exposure": end}
    data = Dataset.from_arrays(
        x, y, **second, test_fraction=0, validation_fraction=0, dtype=torch.float64
    )
    likelihood = {
        "weibull": Weibull(log_shape_sd=3.0),
        "lognormal": LogNormal(log_noise_sd=3.0),
        "poisson": Poisson(exposure=True),
    }[name]
    net = build_network(MLPConfig(widths=()), input_shape=(1,), num_outputs=1).double()
    model = BayesianModel(net, Prior(scale=30.0), likelihood)
    flat = MAP(num_steps=600, learning_rate=0.05).fit(model, data, seed=0).draws()[0]
    hessian = torch.func.hessian(model.potential)(flat, data.train.x, data.train.targets)
    errors = hessian.inverse().diagonal().sqrt()  # those of the posterior, at its mode
    scaling = data.scaling
    level = 3 - math.log(scaling.y_scale)
    if name == "poisson":
        level = -3 + math.log(scaling.exposure_scale)
    truth = {
        "head.weight": 0.8 * float(scaling.x_scale[0]),
        "head.bias": level + 0.8 * float(scaling.x_mean[0]),
        "likelihood.log_noise": math.log(noise),
        "likelihood.log_shape": -math.log(noise),
    }
    for key, where in model.slices().items():
        assert float(errors[where]) < 0.05
        assert abs(float(flat[where]) - truth[key]) < 4 * float(errors[where]), key


def simulated(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "counts":  # dispersion 1.5
        return rng.poisson(np.exp(1 + x) * rng.gamma(1 / 1.5, 1.5, size=len(x)))
    if name == "tails":
        return 2 * x + 0.2 * rng.normal(size=len(x)) * np.where(rng.random(len(x)) < 0.1, 8, 1)
    return rng.choice([-1.0, 1.0], len(x)) * (2 + x) + 0.2 * rng.normal(size=len(x))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "own", "simple"),
    [
        ("counts", NegativeBinomial(), Poisson()),
        ("tails", StudentT(), Gaussian()),
        ("tails", HeteroscedasticStudentT(), HeteroscedasticGaussian()),
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
