import math

import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import nn

from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.models.likelihoods import condition, num_classes, num_columns
from bnn_symm.randomness import global_seed
from tests.models.cases import CASES, normal


@pytest.fixture(autouse=True)
def _clean_parameter_store():
    with pyro.get_param_store().scope():
        yield


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_svi_with_an_automatic_guide_moves_every_parameter(case) -> None:
    model = case.model()
    x, y = normal(6, 2), case.targets(6)
    with global_seed(0, "svi"):
        guide = AutoNormal(model)
        svi = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        losses = [svi.step(x, y, data_size=12)]
        before = {name: value.clone() for name, value in guide.median(x, y).items()}
        losses += [svi.step(x, y, data_size=12) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
    after = guide.median(x, y)
    assert set(after) == set(model.shapes)
    assert {name: value.shape for name, value in after.items()} == model.shapes
    assert all(not torch.equal(after[name], before[name]) for name in after)


@pytest.mark.thorough
def test_nuts_finds_the_exact_posterior_of_one_weight() -> None:
    net = nn.Linear(1, 1, bias=False).double()
    model = BayesianModel(net, Prior(scale=2.0), Gaussian(noise=0.5))
    x, y = torch.tensor([[1.5]]).double(), torch.tensor([0.9]).double()
    precision = 1 / 2.0**2 + 1.5**2 / 0.5**2
    mean, sd = 1.5 * 0.9 / 0.5**2 / precision, precision**-0.5
    num_samples = 150
    with global_seed(0, "nuts"):
        mcmc = MCMC(NUTS(model), num_samples=num_samples, warmup_steps=80, disable_progbar=True)
        mcmc.run(x, y)
    draws = mcmc.get_samples()["weight"].flatten()
    # An effective sample size of a third of the draws is what NUTS does at worst on one normal; 4
    # standard errors.
    effective = num_samples / 3
    assert abs(float(draws.mean()) - mean) < 4 * sd / math.sqrt(effective)
    assert abs(float(draws.std()) / sd - 1) < 4 / math.sqrt(2 * effective)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian-learned", "poisson"])
def test_nuts_takes_networks_with_every_kind_of_site(name) -> None:
    case = CASES[name]
    model = case.model(Prior(name="scale_mixture"))
    with global_seed(0, "nuts"):
        kernel = NUTS(model, step_size=0.01, adapt_step_size=False, max_tree_depth=2)
        mcmc = MCMC(kernel, num_samples=3, warmup_steps=0, disable_progbar=True)
        mcmc.run(normal(2, 2), case.targets(2))
    samples = mcmc.get_samples()
    assert {key: value.shape for key, value in samples.items()} == {
        key: (3, *shape) for key, shape in model.shapes.items()
    }
    flat = model.flatten(samples)
    assert torch.isfinite(flat).all()
    assert not torch.equal(flat[0], flat[-1])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prior_predictive_samples_have_the_support_of_the_target(case) -> None:
    model = case.model(Prior(scale=0.5))
    with global_seed(0, "prior predictive"):
        samples = Predictive(model, num_samples=20)(normal(4, 2))
    assert set(samples) == {*model.shapes, "y"}
    y = samples["y"]
    # Events and exposures are given, not predicted.
    columns = 1 if condition(case.likelihood) else num_columns(case.likelihood)
    assert y.shape == ((20, 4) if columns == 1 else (20, 4, columns))
    if case.likelihood.task == "classification":
        number = num_classes(case.likelihood, case.num_outputs)
        assert set(y.flatten().long().tolist()) == set(range(number))
    elif case.likelihood.task == "count":
        assert torch.equal(y, y.round())
        assert (y >= 0).all()
    else:
        assert len(set(y.flatten().tolist())) == y.numel()
    for name in case.likelihood.latents:
        assert samples[f"likelihood.{name}"].unique().numel() == 20


@pytest.mark.thorough
def test_prior_predictive_variance_of_a_linear_model_is_exact() -> None:
    model = BayesianModel(nn.Linear(2, 1).double(), Prior(scale=0.8), Gaussian(noise=0.3))
    x = torch.tensor([[1.0, -2.0]]).double()
    expected = 0.8**2 * (1 + 4 + 1) + 0.3**2
    num_samples = 800
    with global_seed(0, "prior predictive"):
        y = Predictive(model, num_samples=num_samples)(x)["y"]
    # The variance of n normals has a relative standard error of sqrt(2 / n); 4 of them.
    assert abs(float(y.square().mean()) / expected - 1) < 4 * math.sqrt(2 / num_samples)


def test_the_model_returns_the_outputs_at_what_it_sampled() -> None:
    model = CASES["categorical"].model()
    x = normal(3, 2)
    flat = normal(model.num_parameters)
    outputs = pyro.condition(model, data=model.unflatten(flat))(x, torch.tensor([0, 1, 2]))
    torch.testing.assert_close(outputs, model.outputs(flat, x))
    assert isinstance(model.likelihood, Categorical)
