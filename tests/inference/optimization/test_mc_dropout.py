"""MC dropout against ridge regression, which dropping the inputs of a linear model is."""

import math

import jaxtyping
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network, drop_inputs
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, MCDropout
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.inference.optimization.map import mode_problem
from bnn_symm.inference.optimization.mc_dropout import _Drop
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.testing import (
    TEMPERINGS,
    all_draws,
    design_matrix,
    exact_posterior,
    linear_regression,
)
from bnn_symm.testing.exact_targets import NOISE

RATE = 0.3


@pytest.fixture(autouse=True)
def unchecked():
    """Thousands of steps on eleven numbers spend most of their time in the checks of
    annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def ridge(data, temperature: float = 1.0, tempering: str = "likelihood") -> torch.Tensor:
    """Return the minimum of E|y - X (w k)|^2 = |y - X w|^2 + p / (1 - p) sum_j |x_j|^2 w_j^2.

    Wager, Wang & Liang 2013, arXiv:1307.1493. The prior is charged at w k too:
    E|w k|^2 = |w|^2 / (1 - p).
    """
    x, y = design_matrix(data)
    dropped = torch.tensor([1.0] * 10 + [0.0]).double()  # all but the bias
    gram, noise = x.T @ x, RATE / (1 - RATE)
    prior_weight = 1.0 if tempering == "likelihood" else 1 / temperature
    penalty = (gram.diag() / NOISE**2 / temperature + prior_weight) * noise * dropped
    precision = gram / NOISE**2 / temperature + torch.diag(prior_weight + penalty)
    return torch.linalg.solve(precision, x.T @ y / NOISE**2 / temperature)


@pytest.mark.thorough
@pytest.mark.parametrize(("temperature", "tempering"), TEMPERINGS[1:])
def test_dropping_the_inputs_of_linear_regression_is_ridge_regression(temperature, tempering):
    """At the ridge solution, and there alone, gradients are 0 on average: within five standard
    errors."""
    model, data = linear_regression()
    drop_inputs(model.net.head, RATE)
    method = MCDropout(temperature=temperature, tempering=tempering)
    drop = _Drop(model, 0, "dropped units of step")
    density = MinibatchDensity(method, model, len(data.train), compile=False)
    errors = []
    for where in (
        ridge(data, temperature, tempering),
        exact_posterior(data, temperature, tempering).mean,
    ):
        problem = mode_problem(method, density, data, 0, 0, where, transform=drop)
        gradients = []
        for step in range(400):
            objective, _ = problem.objective(step, data.train.x, data.train.y)
            gradients += torch.autograd.grad(objective, problem.tensors["position"])
        mean, sd = torch.stack(gradients).mean(0)[:10], torch.stack(gradients).std(0)[:10]
        errors.append(float((mean.abs() / sd).max() * math.sqrt(400)))
    assert errors[0] < 5 < errors[1]


def test_a_fit_goes_from_the_mode_to_the_ridge_solution():
    model, data = linear_regression()
    drop_inputs(model.net.head, RATE)
    mode = exact_posterior(data).mean
    start = SamplePosterior.from_draws(model, mode[None, None])
    number = 1000
    method = MCDropout(num_steps=800, learning_rate=0.02, num_draws=number)
    draws = all_draws(method.fit(model, data, seed=0, initial=start))
    # A draw is 0 or theta / (1 - p).
    zero = draws[:, :10] == 0
    theta = draws[:, :10].abs().amax(0) * draws[:, :10].sum(0).sign() * (1 - RATE)
    torch.testing.assert_close(draws[:, :10], torch.where(zero, 0.0, theta / (1 - RATE)))
    shares = zero.double().mean(0)
    assert (shares - RATE).abs().max() < 5 * math.sqrt(RATE * (1 - RATE) / number)  # binomial
    wanted = ridge(data)[:10]
    assert (theta - wanted).norm() < 0.2 * (mode[:10] - wanted).norm()


def test_draws_drop_whole_units_of_every_layer():
    data = load_dataset("iris")
    net = build_network(
        MLPConfig(widths=(6, 5), dropout=RATE), input_shape=data.input_shape, num_outputs=3
    )
    model = BayesianModel(net, Prior(), Categorical())
    posterior = MCDropout(num_steps=5, num_draws=40).fit(model, data, seed=0)
    values = model.unflatten(all_draws(posterior))
    for name in ("layers.1.weight", "head.weight"):
        gone = values[name] == 0
        assert torch.equal(
            gone.all(1), gone.any(1)
        )  # a unit is dropped for all that read it, or for none
        assert 0.1 < gone.double().mean() < 0.5
    for name in ("layers.0.weight", "layers.0.bias", "layers.1.bias", "head.bias"):
        assert (values[name] == values[name][0]).all()


def test_to_other_methods_dropout_is_nothing():
    data = load_dataset("iris")
    fits = []
    for rate in (0.0, 0.5):
        net = build_network(
            MLPConfig(widths=(4,), dropout=rate), input_shape=data.input_shape, num_outputs=3
        )
        fits.append(MAP(num_steps=20).fit(BayesianModel(net, Prior(), Categorical()), data, seed=0))
    assert torch.equal(*(all_draws(posterior) for posterior in fits))


def test_a_network_without_dropout_is_refused():
    data = load_dataset("iris")
    for config in (MLPConfig(widths=(4,)), MLPConfig(widths=(), dropout=0.5)):
        net = build_network(config, input_shape=data.input_shape, num_outputs=3)
        with pytest.raises(
            ConfigError,
            match=r"needs a hidden layer with dropout, got none",
        ):
            MCDropout(num_steps=1).fit(BayesianModel(net, Prior(), Categorical()), data, seed=0)
