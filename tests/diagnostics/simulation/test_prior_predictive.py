"""What a prior means: a linear model and a softmax of known moments, and limits of wide and narrow
priors."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics.simulation.prior_predictive import prior_predictive
from bnn_symm.errors import ConfigError
from bnn_symm.models import (
    BayesianModel,
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Poisson,
    Prior,
)

DRAWS = 4000


def test_functions_of_a_linear_model_have_their_known_variances():
    """Var f(x) = s^2 (1 + |x|^2), and E var over points = s^2 tr cov(x), in target units.

    A variance of N normal numbers has a relative standard error of sqrt(2 / N); five of these are
    11 %.
    """
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=1).double()
    scale, noise = 0.7, 0.4
    model = BayesianModel(net, Prior(scale=scale), Gaussian(noise=noise))
    found = prior_predictive(model, data, num_draws=DRAWS, num_points=200)
    unit, x = data.scaling.y_scale, data.train.x[:200].numpy()
    wanted = (unit * scale) ** 2 * (1 + (x**2).sum(1))
    tolerance = 5 * math.sqrt(2 / DRAWS)
    assert found.sd_at_points is not None
    assert np.abs(found.sd_at_points**2 / wanted - 1).max() < tolerance
    covariance = np.cov(x.T, bias=True)
    variation = found.functions["variation"] ** 2
    expected = (unit * scale) ** 2 * np.trace(covariance)
    error = variation.std() / math.sqrt(DRAWS)
    assert abs(variation.mean() - expected) < 4 * error
    np.testing.assert_allclose(found.functions["noise"], unit * noise, rtol=1e-12)
    np.testing.assert_allclose(
        found.functions["targets"] ** 2, variation + (unit * noise) ** 2, rtol=1e-10
    )
    targets = data.scaling.y_mean + unit * data.train.y[:200].numpy()
    assert found.data["variation"] == pytest.approx(targets.std())
    assert found.data["range"] == pytest.approx(np.ptp(targets))
    assert found.overflowing == 0


def test_a_learned_noise_is_log_normal():
    """Its median is exp of the mean of its logarithm; in logarithms the standard error is sd
    sqrt(pi / 2 N)."""
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=1).double()
    model = BayesianModel(net, Prior(), Gaussian(log_noise_mean=-0.7, log_noise_sd=0.6))
    found = prior_predictive(model, data, num_draws=DRAWS, num_points=20)
    (median,) = found.quantiles("noise", [0.5])
    error = 0.6 * math.sqrt(math.pi / (2 * DRAWS))
    assert abs(math.log(median / data.scaling.y_scale) + 0.7) < 4 * error


class Bias(nn.Module):
    """The same logits everywhere."""

    def __init__(self, outputs):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float64))

    def forward(self, x):
        return self.bias.expand(len(x), -1)


def test_of_two_classes_the_confidence_is_that_of_a_logistic_of_a_normal():
    """By quadrature; one point is like another, so that the mean over points is the value
    itself."""
    data = load_dataset("breast_cancer", dtype=torch.float64)
    found = prior_predictive(
        BayesianModel(Bias(1), Prior(scale=2.0), Bernoulli()), data, num_draws=DRAWS
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(101)
    p = 1 / (1 + np.exp(-2.0 * nodes))
    wanted = (weights * np.maximum(p, 1 - p)).sum() / weights.sum()
    confidence = found.functions["confidence"]
    # The kink at 0 costs the rule some digits.
    assert abs(confidence.mean() - wanted) < 4 * confidence.std() / math.sqrt(DRAWS) + 2e-3
    larger = np.log(confidence / (1 - confidence))  # the size of the logit
    assert np.quantile(larger, 0.5) == pytest.approx(
        2.0 * 0.6745, abs=4 * 2.0 * 0.79 / math.sqrt(DRAWS) + 0.01
    )
    shares = np.bincount(data.train.y[:500].numpy()) / min(500, len(data.train))
    entropy = -(shares * np.log(shares)).sum()
    assert found.data["entropy"] == pytest.approx(entropy)
    assert found.data["confidence"] == pytest.approx(shares.max())
    # A function that is the same everywhere makes use of as many classes as it leaves open.
    np.testing.assert_allclose(
        found.functions["classes"], np.exp(found.functions["entropy"]), rtol=1e-10
    )


def test_narrow_priors_leave_classes_open_and_wide_ones_decide():
    data = load_dataset("iris", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=(8,)), input_shape=data.input_shape, num_outputs=3
    ).double()
    narrow, wide = (
        prior_predictive(BayesianModel(net, Prior(scale=scale), Categorical()), data, num_draws=50)
        for scale in (1e-4, 1e4)
    )
    np.testing.assert_allclose(narrow.functions["entropy"], math.log(3), atol=1e-6)
    np.testing.assert_allclose(narrow.functions["classes"], 3, atol=1e-6)
    assert narrow.functions["certain"].max() == 0
    assert wide.functions["certain"].min() > 0.95
    assert wide.functions["confidence"].min() > 0.99


def test_rates_of_counts_that_overflow_are_left_out_and_told():
    data = load_dataset("diabetes", dtype=torch.float32)
    net = build_network(MLPConfig(widths=(16,)), input_shape=data.input_shape, num_outputs=1)
    found = prior_predictive(BayesianModel(net, Prior(scale=4.0), Poisson()), data, num_draws=100)
    assert 0 < found.overflowing < 1
    assert len(found.functions["variation"]) == round(100 * (1 - found.overflowing))
    assert all(np.isfinite(values).all() for values in found.functions.values())
    with pytest.raises(
        ConfigError, match=r"every function of this prior overflows; lower prior\.scale"
    ):
        prior_predictive(BayesianModel(net, Prior(scale=1e4), Poisson()), data, num_draws=20)


def test_a_noise_that_differs_from_point_to_point_is_averaged():
    data = load_dataset("diabetes", dtype=torch.float64)
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=2).double()
    model = BayesianModel(net, Prior(scale=1e-8), HeteroscedasticGaussian())
    found = prior_predictive(model, data, num_draws=10)
    assert np.ptp(found.functions["noise"]) < 1e-4 * found.functions["noise"].mean()
    assert found.functions["variation"].max() < 1e-4


@pytest.mark.parametrize(("draws", "points"), [(1, 10), (10, 1)])
def test_one_function_or_point_has_no_spread(draws, points):
    data = load_dataset("iris")
    model = BayesianModel(Bias(3).float(), Prior(), Categorical())
    with pytest.raises(ConfigError, match="a spread needs at least two functions and points"):
        prior_predictive(model, data, num_draws=draws, num_points=points)
