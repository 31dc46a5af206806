"""Roots of Fisher information against the likelihoods' own densities."""

import math

import pytest
import torch

from bnn_symm.errors import ConfigError
from bnn_symm.models import HeteroscedasticGaussian
from bnn_symm.models.fisher import fisher_root
from bnn_symm.models.likelihoods import without_exposure
from tests.models.cases import CASES, normal

POINTS = 4
# Gauss-Hermite: exact for the expectation of a quadratic in y, which the Hessian of a Gaussian's
# log density is.
NODES, WEIGHTS = (-math.sqrt(3), 0.0, math.sqrt(3)), (1 / 6, 2 / 3, 1 / 6)


def variables(case, model):
    """Outputs, latents, and both in one vector a point."""
    outputs = normal(
        POINTS,
        model.likelihood.num_net_outputs(2 if case == "bernoulli" else CASES[case].num_outputs),
    )
    latents = {name: torch.tensor(-0.4, dtype=torch.float64) for name in model.likelihood.latents}
    return outputs, latents


def hessian(likelihood, outputs, latents, y):
    """Of -log p(y), by point, in outputs and latents."""

    def minus_log_prob(z, own):
        values = dict(zip(latents, z[outputs.shape[1] :], strict=True))
        return -likelihood.log_prob(z[None, : outputs.shape[1]], own[None], values)[0]

    z = torch.cat([outputs, *(value.expand(POINTS, 1) for value in latents.values())], 1)
    return torch.stack(
        [torch.func.hessian(minus_log_prob)(*point) for point in zip(z, y, strict=True)]
    )


@pytest.mark.parametrize("name", ["categorical", "bernoulli", "poisson", "gaussian-fixed"])
def test_of_natural_parameters_it_is_the_hessian_whatever_the_target(name):
    model = CASES[name].model()
    outputs, latents = variables(name, model)
    root = fisher_root(model.likelihood, outputs, latents)
    for seed in range(3):
        wanted = hessian(model.likelihood, outputs, latents, CASES[name].targets(POINTS, seed))
        torch.testing.assert_close(root.mT @ root, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian-learned", "heteroscedastic"])
def test_of_learned_and_predicted_noise_it_is_the_expected_hessian(name):
    model = CASES[name].model()
    outputs, latents = variables(name, model)
    mean = model.likelihood.mean(outputs, latents)
    sd = model.likelihood.variance(outputs, latents).sqrt()
    wanted = sum(
        weight * hessian(model.likelihood, outputs, latents, mean + node * sd)
        for node, weight in zip(NODES, WEIGHTS, strict=True)
    )
    root = fisher_root(model.likelihood, outputs, latents)
    torch.testing.assert_close(root.mT @ root, wanted, rtol=1e-10, atol=1e-12)
    # And the Hessian itself will not do: far from the mean it has a negative eigenvalue.
    assert (
        torch.linalg.eigvalsh(hessian(model.likelihood, outputs, latents, mean + 2 * sd)).min()
        < -0.1
    )


def expectation(likelihood, outputs, latents):
    """E[s s^T] by point: a sum over all targets, or a fine grid of them, of scores by autograd."""
    if likelihood.task == "classification":
        grid = torch.arange(likelihood.num_classes)
        weights = torch.ones(len(grid)).double()
    elif likelihood.task == "count":
        grid = torch.arange(400).double()
        weights = torch.ones(len(grid)).double()
    else:  # y = sinh(u): dense in the middle, and far into the tails
        u = torch.linspace(-12, 12, 6001, dtype=torch.float64)
        grid, weights = u.sinh(), u.cosh() * (u[1] - u[0])

    def log_prob(z, y):
        values = dict(zip(latents, z[outputs.shape[1] :], strict=True))
        return likelihood.log_prob(z[None, : outputs.shape[1]], y[None], values)[0]

    over_grid = torch.vmap(torch.func.grad_and_value(log_prob), in_dims=(None, 0))
    z = torch.cat([outputs, *(value.expand(POINTS, 1) for value in latents.values())], 1)
    result = []
    for point in z:
        scores, value = over_grid(point, grid)
        result.append((scores.mT * (value.exp() * weights)) @ scores)
    return torch.stack(result)


NEW = ["student-fixed", "student-learned", "mixture", "ordinal"]
NEW += [name for name, case in CASES.items() if case.likelihood.task == "count"]


@pytest.mark.parametrize("name", NEW)
def test_it_is_the_expectation_of_the_squared_score(name):
    case = CASES[name]
    outputs = normal(POINTS, case.num_outputs)
    latents = {
        latent: torch.tensor(-0.4 + 0.3 * k, dtype=torch.float64)
        for k, latent in enumerate(case.likelihood.latents)
    }
    y = case.targets(POINTS)
    root = fisher_root(case.likelihood, outputs, latents, y)
    likelihood, outputs, _ = without_exposure(case.likelihood, outputs, y)
    wanted = expectation(likelihood, outputs, latents)
    torch.testing.assert_close(root.mT @ root, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].likelihood.task == "survival"]
)
def test_of_censored_times_its_expectation_is_that_of_the_squared_score(name):
    likelihood, ends = CASES[name].likelihood, torch.tensor([0.4, 1.5, 30.0]).double()
    latents = {latent: torch.tensor(0.3).double() for latent in likelihood.latents}
    z = torch.cat([torch.tensor([0.2]).double(), *(value[None] for value in latents.values())])

    def log_prob(own, y):
        values = dict(zip(latents, own[1:], strict=True))
        return likelihood.log_prob(own[None, :1], y[None], values)[0]

    over = torch.vmap(torch.func.grad_and_value(log_prob), in_dims=(None, 0))
    for end in ends:  # each time is observed up to this one: density below, and mass at it
        u = torch.linspace(-14, float(end.log()), 4001).double()
        times = u.exp()
        y = torch.stack([torch.cat([times, end[None]]), torch.ones(4002).double()], 1)
        y[-1, 1] = 0
        step = (u[1] - u[0]) * torch.ones(4001).double()
        step[[0, -1]] *= 0.5
        weights = torch.cat([times * step, torch.ones(1).double()])
        scores, value = over(z, y)
        mass = (value.exp() * weights)[:, None]
        wanted = (scores * mass).mT @ scores
        root = fisher_root(likelihood, z[None, :1].expand(len(y), 1), latents, y)
        got = (root.mT @ root * mass[..., None]).sum(0)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_a_likelihood_without_it_is_refused():
    class Own:
        name = "own"

    with pytest.raises(ConfigError, match=r"own has no fisher_root"):
        fisher_root(Own(), torch.zeros(1, 1), {})


def test_predicted_noise_beyond_its_bounds_tells_nothing():
    outputs = torch.tensor([[0.3, 10.5], [0.3, 9.5]], dtype=torch.float64)
    root = fisher_root(HeteroscedasticGaussian(), outputs, {})
    assert root[:, 1, 1].tolist() == [0.0, math.sqrt(2.0)]
