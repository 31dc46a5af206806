"""The ELBO of linear regression is known exactly, and so is every part of it."""

import math
import sys

import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Split
from bnn_symm.diagnostics import elbo
from bnn_symm.diagnostics.elbo.elbo import kl_by_coordinate, kl_by_tensor
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.testing import (
    design_matrix,
    exact_posterior,
    kl_from_diagonal,
    linear_regression,
    log_evidence,
)
from bnn_symm.testing import log_jacobian as jacobian
from bnn_symm.testing.exact_targets import NOISE
from tests.models.cases import normal

PRIORS = [
    Prior(),
    Prior(name="laplace", scale=0.5),
    Prior(name="student_t"),
    Prior(name="scale_mixture"),
    Prior(scale="fan_in"),
]


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch):
    """Errors of 0.1 to 1 nat are enough here: what is tested is set against them."""
    import bnn_symm.diagnostics  # noqa: F401

    monkeypatch.setattr(sys.modules["bnn_symm.diagnostics.elbo.elbo"], "_MAX_SAMPLES", 400)


def test_the_elbo_of_a_mean_field_posterior_is_the_evidence_less_the_divergence():
    model, data = linear_regression()
    exact = exact_posterior(data)
    loc = exact.mean + 0.01 * normal(len(exact.mean))
    posterior = GaussianPosterior(model, data.scaling, loc=loc, scale=exact.mean_field_sd)
    found = elbo(posterior, data.train)
    assert found is not None
    wanted = log_evidence(data) + jacobian(data) - kl_from_diagonal(loc, exact.mean_field_sd, exact)
    # Four standard errors: one seed in 16,000 fails.
    assert abs(found.value - wanted) < 4 * found.standard_error
    assert found.standard_error < 0.3
    x, y = design_matrix(data)
    square = (y - x @ loc).square().sum() + (x.square() @ exact.mean_field_sd.square()).sum()
    density = -0.5 * square / NOISE**2 - len(y) * math.log(NOISE * math.sqrt(2 * math.pi))
    assert (
        abs(found.expected_log_likelihood - float(density) - jacobian(data))
        < 4 * found.standard_error
    )


def test_the_split_of_a_normal_prior_is_the_closed_form_of_each_tensor():
    model, data = linear_regression(noise="learned")
    loc, scale = normal(model.num_parameters, seed=1), normal(model.num_parameters, seed=2).exp()
    posterior = GaussianPosterior(model, data.scaling, loc=loc, scale=scale)
    found = elbo(posterior, data.train)
    assert found is not None
    latent_mean, latent_sd = next(iter(model.likelihood.latents.values()))
    prior_mean = torch.zeros(model.num_parameters, dtype=torch.float64)
    prior_sd = torch.ones(model.num_parameters, dtype=torch.float64)
    prior_mean[-1], prior_sd[-1] = latent_mean, latent_sd
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(loc, scale), torch.distributions.Normal(prior_mean, prior_sd)
    )
    torch.testing.assert_close(kl_by_coordinate(posterior), kl, rtol=1e-12, atol=1e-12)
    for name, where in model.slices().items():
        assert found.by_tensor[name].kl == pytest.approx(float(kl[where].sum()), rel=1e-12)
        assert found.by_tensor[name].num_parameters == where.stop - where.start
    assert list(found.by_layer) == ["head", "likelihood"]
    assert found.by_layer["likelihood"].kl == pytest.approx(float(kl[-1]), rel=1e-12)
    assert found.by_layer["head"].num_parameters == model.num_parameters - 1
    assert found.by_layer["head"].nats_per_parameter == pytest.approx(
        float(kl[:-1].mean()), rel=1e-12
    )
    assert found.by_layer["head"].bits_per_parameter == pytest.approx(
        float(kl[:-1].mean()) / math.log(2), rel=1e-12
    )


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: f"{prior.name}-{prior.scale}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_split_adds_up_to_the_whole(prior, dtype):
    net = build_network(MLPConfig(widths=(5, 4)), input_shape=(3,), num_outputs=1).to(dtype)
    model = BayesianModel(net, prior, Gaussian())
    loc, scale = (
        normal(model.num_parameters).to(dtype),
        normal(model.num_parameters, seed=1).exp().to(dtype),
    )
    posterior = GaussianPosterior(model, linear_regression()[1].scaling, loc=loc, scale=scale)
    part = Split(x=normal(6, 3).to(dtype), y=normal(6).to(dtype))
    found = elbo(posterior, part)
    assert found is not None
    assert math.fsum(share.kl for share in found.by_tensor.values()) == pytest.approx(
        found.kl, rel=1e-12
    )
    assert math.fsum(share.kl for share in found.by_layer.values()) == pytest.approx(
        found.kl, rel=1e-12
    )
    assert sum(share.num_parameters for share in found.by_layer.values()) == model.num_parameters
    assert found.value == found.expected_log_likelihood - found.kl


def test_a_posterior_that_is_the_prior_has_no_kl_anywhere():
    net = build_network(MLPConfig(widths=(5,)), input_shape=(3,), num_outputs=3).double()
    model = BayesianModel(net, Prior(), Categorical())
    size = model.num_parameters
    posterior = GaussianPosterior(
        model,
        linear_regression()[1].scaling,
        loc=torch.zeros(size).double(),
        scale=torch.ones(size).double(),
    )
    assert all(abs(share.kl) < 1e-12 for share in kl_by_tensor(posterior).values())


def test_draws_have_no_elbo():
    model, data = linear_regression()
    posterior = SamplePosterior.from_draws(model, normal(1, 5, model.num_parameters), data.scaling)
    assert elbo(posterior, data.train) is None
