import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

from bnn_symm.models import BayesianModel, Prior, PriorOverride
from bnn_symm.models.priors.families import FAMILIES
from tests.models.cases import CASES, normal

FAMILY_NAMES = list(FAMILIES)
NUM_POINTS = 5


def priors() -> dict[str, Prior]:
    result = {}
    for family, other in zip(FAMILY_NAMES, FAMILY_NAMES[1:] + FAMILY_NAMES[:1], strict=True):
        result[f"{family}-0.7"] = Prior(name=family, scale=0.7)
        result[f"{family}-fan_in"] = Prior(name=family, scale="fan_in", degrees_of_freedom=3.0)
        overrides = {"*.bias": PriorOverride(name=other), "head.*": PriorOverride(scale="fan_in")}
        result[f"{family}-overrides"] = Prior(
            name=family, scale=1.3, narrow_weight=0.2, narrow_ratio=0.3, overrides=overrides
        )
    return result


PRIORS = priors()


def pyro_trace(model: BayesianModel, flat: Tensor, x: Tensor, y: Tensor, data_size: int | None):
    conditioned = pyro.condition(model, data=model.unflatten(flat))
    return poutine.trace(conditioned).get_trace(x, y, data_size=data_size)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_pyro_and_flat_density_agree_in_value_and_gradient(prior, case) -> None:
    model = case.model(prior)
    x, y = normal(NUM_POINTS, 2, seed=1), case.targets(NUM_POINTS)
    flat = normal(model.num_parameters, seed=2).requires_grad_()
    log_prior, log_likelihood = model.log_prior(flat), model.log_likelihood(flat, x, y).sum()
    for data_size in (None, 37):
        ours = log_prior + (1.0 if data_size is None else data_size / NUM_POINTS) * log_likelihood
        trace = pyro_trace(model, flat, x, y, data_size)
        theirs = trace.log_prob_sum()

        sites = {
            name
            for name, node in trace.nodes.items()
            if node["type"] == "sample" and name != "data"
        }
        assert sites == {*model.shapes, "y"}
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0.0)
        (our_gradient,) = torch.autograd.grad(ours, flat, retain_graph=True)
        (their_gradient,) = torch.autograd.grad(theirs, flat)
        size = float(their_gradient.abs().max())
        torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-10, atol=1e-10 * size)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_log_prior_is_the_sum_of_the_pyro_sites_one_by_one(case) -> None:
    model = case.model(PRIORS["student_t-overrides"])
    flat = normal(model.num_parameters, seed=3)
    base = model.log_prior(flat)
    trace = pyro_trace(model, flat, normal(2, 2), case.targets(2), None)
    trace.compute_log_prob()
    for name, where in model.slices().items():
        moved = flat.clone()
        moved[where] = 0.0
        moved_trace = pyro_trace(model, moved, normal(2, 2), case.targets(2), None)
        moved_trace.compute_log_prob()
        expected = moved_trace.nodes[name]["log_prob_sum"] - trace.nodes[name]["log_prob_sum"]
        torch.testing.assert_close(model.log_prior(moved) - base, expected, rtol=1e-10, atol=1e-12)


def test_log_prior_of_a_float32_vector_is_summed_in_float64() -> None:
    net = torch.nn.Linear(1000, 50)
    model = BayesianModel(net, Prior(), CASES["gaussian-fixed"].likelihood)
    flat = normal(model.num_parameters).float()
    assert model.log_prior(flat).dtype == torch.float64
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(flat.double()).sum()
    # Each of the 5e4 terms, of size about 1.4, is rounded to 6e-8 of itself at worst: 5e-3; by
    # chance far less.
    assert abs(float(model.log_prior(flat) - exact)) < 1e-3


@pytest.mark.parametrize("tempering", ["likelihood", "posterior"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_potential_is_the_tempered_negative_log_density(case, temperature, tempering) -> None:
    model = case.model()
    x, y = normal(NUM_POINTS, 2, seed=1), case.targets(NUM_POINTS)
    flat = normal(model.num_parameters, seed=2)
    likelihood, prior = model.log_likelihood(flat, x, y).sum(), model.log_prior(flat)
    expected = -likelihood / temperature - (
        prior if tempering == "likelihood" else prior / temperature
    )
    got = model.potential(flat, x, y, temperature=temperature, tempering=tempering)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0.0)


def test_potential_is_untempered_unless_told_and_has_the_dtype_of_the_vector() -> None:
    model = CASES["gaussian-learned"].model()
    x, y = normal(NUM_POINTS, 2), normal(NUM_POINTS)
    flat = normal(model.num_parameters)
    joint = model.log_prior(flat) + model.log_likelihood(flat, x, y).sum()
    torch.testing.assert_close(model.potential(flat, x, y), -joint, rtol=1e-12, atol=0.0)
    single = BayesianModel(model.net.float(), model.prior, model.likelihood)
    potential = single.potential(flat.float(), x.float(), y.float())
    assert potential.dtype == torch.float32
    assert float(potential) == pytest.approx(float(-joint), rel=1e-5)  # 1e2 roundings of 6e-8
