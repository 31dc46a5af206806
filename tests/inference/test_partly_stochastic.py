"""Methods are exact where only a linear last layer is stochastic, on any fixed features."""

import jaxtyping
import pytest
import torch
from torch import nn

from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import elbo
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.inference import (
    HMC,
    MAP,
    Automatic,
    DeepEnsemble,
    LaplaceApproximation,
    MCDropout,
    MeanFieldVI,
    Mixture,
    stochastic_part,
)
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.testing import ExactPosterior, kl_from_diagonal, log_jacobian

NOISE = 0.7
LAST = ("2.*",)


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def target():
    """A network of three features, its data, and the exact posterior of its last layer."""
    data = load_dataset("diabetes", dtype=torch.float64)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    model = BayesianModel(net, Prior(), Gaussian(noise=NOISE))
    with torch.no_grad():
        features = net[:2](data.train.x)
    x = torch.cat([features, torch.ones(len(features), 1).double()], 1)
    y = data.train.y.double()
    precision = x.T @ x / NOISE**2 + torch.eye(4).double()
    exact = ExactPosterior(torch.linalg.solve(precision, x.T @ y / NOISE**2), precision)
    covariance = NOISE**2 * torch.eye(len(y)).double() + x @ x.T
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(y)).double(), covariance)
    return model, data, exact, float(normal.log_prob(y))


@pytest.mark.thorough
def test_laplace_is_the_exact_posterior(target):
    model, data, exact, _ = target
    method = LaplaceApproximation(
        parameters=LAST, structure="full", num_draws=2000, num_steps=300, learning_rate=0.05
    )
    posterior = method.fit(model, data, seed=0)
    covariance = torch.linalg.inv(exact.precision)
    assert float(((posterior.mean() - exact.mean) / exact.sd).abs().max()) < 0.3
    torch.testing.assert_close(
        posterior.standard_deviation(), covariance.diag().sqrt(), rtol=0.06, atol=0
    )
    assert list(posterior.model.shapes) == ["2.weight", "2.bias"]


@pytest.mark.thorough
def test_mean_field_vi_ends_at_its_optimum_and_its_elbo_has_the_last_layer_only(target):
    model, data, exact, evidence = target
    method = MeanFieldVI(parameters=LAST, num_steps=500, learning_rate=0.05, num_draws=20)
    posterior = method.fit(model, data, seed=0)
    assert float(((posterior.mean() - exact.mean) / exact.sd).abs().max()) < 0.1
    ratio = posterior.standard_deviation() / exact.mean_field_sd
    assert float((ratio - 1).abs().max()) < 0.1
    found = elbo(posterior, data.train)
    expected = evidence - kl_from_diagonal(posterior.loc, posterior.scale, exact)
    assert found.value == pytest.approx(expected + log_jacobian(data), abs=1)


@pytest.mark.thorough
def test_hmc_has_the_exact_moments(target):
    model, data, exact, _ = target
    method = HMC(parameters=LAST, num_chains=2, num_warmup=50, num_draws=150, compile=False)
    mode = MAP(parameters=LAST, num_steps=100, learning_rate=0.05).fit(model, data, seed=0)
    draws = method.fit(model, data, seed=0, initial=mode).draws()
    assert float(((draws.mean(0) - exact.mean) / exact.sd).abs().max()) < 0.4
    assert float((draws.std(0) / exact.sd - 1).abs().max()) < 0.3


def test_features_of_a_first_fit_are_kept_to_the_bit(target):
    model, data, _, _ = target
    first = MAP(num_steps=20, learning_rate=0.05).fit(model, data, seed=0)
    fitted = model.unflatten(first.mean())
    for method in (
        MAP(parameters=LAST, num_steps=5),
        DeepEnsemble(parameters=LAST, num_steps=5, num_members=2, chain_method="sequential"),
        Mixture(
            parameters=LAST,
            num_members=2,
            chain_method="sequential",
            member={"name": "swag", "num_steps": 5, "num_draws": 2},
        ),
    ):
        posterior = method.fit(model, data, seed=0, initial=first)
        assert posterior.shape[2] == 4
        for name, value in posterior.model.fixed_values().items():
            assert torch.equal(value, fitted[name])
    # All parameters again, from the posterior of a part.
    thawed = MAP(num_steps=1, learning_rate=1e-9).fit(
        model, data, seed=0, initial=posterior_of(first, model)
    )
    values = model.unflatten(thawed.mean())
    assert all(torch.allclose(values[name], fitted[name], atol=1e-6) for name in fitted)


def posterior_of(first, model):
    return stochastic_part(model, LAST, first)[1]


def test_the_automatic_method_infers_the_same_parameters_in_all_stages():
    stages = Automatic(parameters=LAST).stages(100, 10)
    assert {stage.parameters for stage in stages} == {LAST}


def test_what_cannot_start_a_fit_is_refused(target):
    model, data, _, _ = target
    ensemble = DeepEnsemble(num_steps=2, num_members=2, chain_method="sequential")
    several = ensemble.fit(model, data, seed=0)
    with pytest.raises(ConfigError, match="2 chains"):
        MAP(parameters=LAST, num_steps=2).fit(model, data, seed=0, initial=several)
    with pytest.raises(ConfigError, match=r"inference\.parameters.*'2\.weight'"):
        MAP(parameters=("2.weigt",), num_steps=2).fit(model, data, seed=0)
    with pytest.raises(ConfigError, match="with dropout and stochastic weights"):
        MCDropout(parameters=LAST, num_steps=2).fit(model, data, seed=0)
    net = nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    other = BayesianModel(net, Prior(), Gaussian(noise=NOISE))
    start = MAP(parameters=("0.*",), num_steps=1).fit(other, data, seed=0)
    with pytest.raises(IncompatiblePosteriors, match="another network"):
        MAP(parameters=LAST, num_steps=2).fit(model, data, seed=0, initial=start)
