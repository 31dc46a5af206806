"""Every density that is fitted counts a point of an integer weight as that many points."""

import dataclasses

import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Dataset
from bnn_symm.diagnostics import elbo
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, NUTS, LaplaceApproximation, LowRankVI, MeanFieldVI
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.laplace.curvature import blocks, tensor_blocks
from bnn_symm.inference.laplace.kronecker import kronecker_factors, kronecker_layers
from bnn_symm.inference.mcmc.pyro_engine import _Potential
from bnn_symm.inference.minibatches import Minibatches, minibatch_potential
from bnn_symm.inference.variational.low_rank_objective import LowRankObjective
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.testing.exact_targets import NOISE

COUNTS = torch.tensor([2, 0, 1, 3, 1, 1])
KEYS = {"test_fraction": 0, "validation_fraction": 0, "dtype": torch.float64}


def model_of(likelihood=None, num_outputs=3, widths=(4,)) -> BayesianModel:
    config = MLPConfig(widths=widths, activation="tanh")
    net = build_network(config, input_shape=(2,), num_outputs=num_outputs).double()
    return BayesianModel(net, Prior(), likelihood or Categorical())


def datasets(task: str) -> tuple[Dataset, Dataset]:
    """Return points with weights, and the same points repeated."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(COUNTS), 2, generator=generator, dtype=torch.float64)
    y = torch.randn(len(COUNTS), generator=generator, dtype=torch.float64)
    if task == "classification":
        y = torch.tensor([0, 1, 2, 0, 1, 2])
    where = torch.arange(len(COUNTS)).repeat_interleave(COUNTS)
    return (
        Dataset.from_arrays(x, y, weight=COUNTS, task=task, **KEYS),
        Dataset.from_arrays(x[where], y[where], task=task, **KEYS),
    )


CLASSES = datasets("classification")
NUMBERS = datasets("regression")
CASES = [(model_of(), CLASSES), (model_of(Gaussian(), 1), NUMBERS)]


def flat_of(model: BayesianModel, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, model.num_parameters, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("model", "pair"), CASES, ids=["classes", "numbers"])
@pytest.mark.parametrize(
    "way",
    ["batched_mlp", "vmap", "sequential", pytest.param("compiled", marks=pytest.mark.thorough)],
)
def test_the_density_of_samplers(model, pair, way) -> None:
    found = []
    for data in pair:
        like = flat_of(model, 3)
        density = TemperedDensity(
            model,
            data.train,
            temperature=0.5,
            prior_weight=1.0,
            like=like,
            compile=way == "compiled",
        )
        if way == "sequential":
            density._calls = [density._sequential]
        elif way == "vmap":
            energy = torch.func.grad_and_value(density._energy)
            density._calls = [torch.func.vmap(energy, in_dims=(0, None, None, None))]
        found.append(density(like))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("model", "pair"), CASES, ids=["classes", "numbers"])
def test_the_objectives_of_minibatches_and_of_pyro(model, pair) -> None:
    flat, values = flat_of(model), []
    for data in pair:
        x, y = Minibatches(data.train, len(data.train), 0).take(0)
        potential = minibatch_potential(MAP(), model, flat, x, y, len(data.train))[0]
        values.append((potential, _Potential(NUTS(), model, data)({"flat": flat})))
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("model", "pair"), CASES, ids=["classes", "numbers"])
@pytest.mark.parametrize("num_samples", [1, 4])
def test_the_objective_of_variational_inference(model, pair, num_samples) -> None:
    loc, log_scale = flat_of(model), flat_of(model) - 2
    factors = 0.1 * flat_of(model, 2)
    method = MeanFieldVI(estimator="weight", num_samples=num_samples)
    low_rank = LowRankVI(estimator="weight", num_samples=num_samples)
    found = []
    for data in pair:
        leaves = [value.clone().requires_grad_() for value in (loc, log_scale)]
        objective = VariationalObjective(method, model, data, 0, *leaves)
        x, y = data.train.x, data.train.targets
        value, terms = objective(0, x, y)
        gradients = [len(data.train) * leaf.grad for leaf in leaves]
        value_2, terms_2 = LowRankObjective(low_rank, model, data, 0, loc, log_scale, factors)(
            0, x, y
        )
        found.append((value, dict(terms), gradients, value_2, dict(terms_2)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("model", "pair"), CASES, ids=["classes", "numbers"])
def test_curvatures(model, pair) -> None:
    flat, found = flat_of(model), []
    for data in pair:
        every = torch.arange(model.num_parameters)
        full = sum(blocks(model, flat, every, data.train))
        last = sum(blocks(model, flat, every[-(5 * model.num_outputs) :], data.train))
        (tensors,) = tensor_blocks(model, flat, [every[:8], every[8:12]], 6, data.train)
        layers = kronecker_layers(model, data.train.x)
        (factors,) = kronecker_factors(model, flat, layers, data.train)
        found.append((full, last, tensors, factors))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_the_elbo_and_its_terms() -> None:
    model, (weighted, repeated) = CASES[1]
    found = []
    for data in (weighted, repeated):
        loc = flat_of(model)
        posterior = GaussianPosterior(
            model, data.scaling, loc=loc, scale=torch.full_like(loc, 1e-3)
        )
        found.append(elbo(posterior, data.train).value)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@pytest.mark.thorough
def test_a_fit_of_a_linear_model_is_the_posterior_of_repeated_points() -> None:
    weighted, repeated = NUMBERS
    x = torch.cat([repeated.train.x, torch.ones(len(repeated.train), 1)], 1).double()
    precision = x.T @ x / NOISE**2 + torch.eye(3).double()
    mean = torch.linalg.solve(precision, x.T @ repeated.train.y / NOISE**2)
    model = model_of(Gaussian(noise=NOISE), 1, widths=())
    steps = {"num_steps": 400, "learning_rate": 0.05}
    mode = MAP(**steps).fit(model, weighted, seed=0).mean()
    torch.testing.assert_close(mode, mean, rtol=1e-5, atol=1e-6)
    method = LaplaceApproximation(structure="full", num_draws=2, **steps)
    evidence = method.fit(model, weighted, seed=0).info["log_evidence"]
    covariance = NOISE**2 * torch.eye(len(x)).double() + x @ x.T
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(x)).double(), covariance)
    expected = normal.log_prob(repeated.train.y) - len(x) * torch.log(
        torch.tensor(repeated.scaling.y_scale)
    )
    assert evidence == pytest.approx(float(expected), rel=1e-6)


def test_weights_that_cannot_be_fitted_are_errors() -> None:
    data = CLASSES[0]
    for weight in (-COUNTS.double(), torch.zeros(len(COUNTS)), torch.ones(3)):
        train = dataclasses.replace(data.train, weight=weight)
        with pytest.raises(ConfigError, match=r"dataset\.train\.weight"):
            MAP(num_steps=1).fit(model_of(), dataclasses.replace(data, train=train), seed=0)
