"""Low-rank VI: its KL, its estimators, and what its settings do. Its exact target is in
`test_exact_targets`."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from bnn_symm.architectures import CNNConfig, MLPConfig, asymmetrize, build_network
from bnn_symm.data import load_dataset
from bnn_symm.inference import LowRankVI, MeanFieldVI
from bnn_symm.inference.variational.low_rank_objective import FactorNoise, LowRankObjective
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.models.priors.prior import PriorOverride
from bnn_symm.posteriors import LowRankGaussianPosterior
from bnn_symm.posteriors.low_rank import layer_sizes
from bnn_symm.randomness import torch_generator

RANK = 3


def randn(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(0, key), dtype=torch.float64)


def made(kind: str, prior: Prior | None = None):
    data = load_dataset("digits" if kind == "cnn" else "iris", dtype=torch.float64, limit=60)
    config = CNNConfig(widths=(2,)) if kind == "cnn" else MLPConfig(widths=(4,), norm="layer")
    net = build_network(config, input_shape=data.input_shape, num_outputs=data.num_outputs)
    if kind == "asymmetric":
        net = asymmetrize(net, fixed_per_row=(1, 1))
    return BayesianModel(net.double(), prior or Prior(), Categorical()), data


def placed(model: BayesianModel) -> dict[str, Tensor]:
    number = model.num_parameters
    return {
        "loc": (model.initial() + 0.1 * randn(number, key="loc")).requires_grad_(),
        "log_scale": (0.3 * randn(number, key="scale") - 2).requires_grad_(),
        "factors": (0.2 * randn(RANK, number, key="factors")).requires_grad_(),
    }


# -- the KL


@pytest.mark.parametrize("kind", ["mlp", "asymmetric"])
def test_the_kl_is_torchs_layer_by_layer_of_free_entries_alone(kind) -> None:
    model, data = made(kind, Prior(scale=0.7, overrides={"head.*": PriorOverride(scale=2.0)}))
    tensors = placed(model)
    objective = LowRankObjective(LowRankVI(), model, data, 0, **tensors)
    _, terms = objective(0, data.train.x, data.train.y)
    sizes, wanted = layer_sizes(model), 0.0
    parts = zip(
        *(tensor.detach().split(list(sizes.values()), dim=-1) for tensor in tensors.values()),
        strict=True,
    )
    for layer, (loc, log_scale, factors) in zip(sizes, parts, strict=True):
        own = LowRankMultivariateNormal(loc, factors.T / math.sqrt(RANK), (2 * log_scale).exp())
        scale = 2.0 if layer == "head" else 0.7
        prior = MultivariateNormal(torch.zeros_like(loc), scale**2 * torch.eye(len(loc)).double())
        wanted += float(kl_divergence(own, prior))
    assert float(terms["kl"].detach()) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(
    "prior", [Prior(name="laplace"), Prior(name="student_t", degrees_of_freedom=3.0)]
)
def test_the_kl_of_other_priors_is_that_of_its_draws(prior) -> None:
    model, data = made("mlp", prior)
    tensors = placed(model)
    _, terms = LowRankObjective(LowRankVI(), model, data, 0, **tensors)(
        0, data.train.x, data.train.y
    )
    values = {name: tensor.detach() for name, tensor in tensors.items()}
    own = LowRankGaussianPosterior(
        model,
        data.scaling,
        loc=values["loc"],
        scale=values["log_scale"].exp(),
        factors=values["factors"] / math.sqrt(RANK),
    )
    draws = own.draws(800)
    sampled = own.log_prob(draws) - torch.stack([model.log_prior(draw) for draw in draws])
    assert (
        abs(float(terms["kl"].detach()) - float(sampled.mean()))
        < 4 * float(sampled.std()) / len(draws) ** 0.5
    )


# -- estimators

LAYERS = {
    "dense": (lambda: nn.Linear(4, 3), (5, 4)),
    "dense, over positions": (lambda: nn.Linear(4, 3, bias=False), (5, 2, 4)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3, stride=2), (5, 4, 6, 6)),
    "grouped convolution": (lambda: nn.Conv1d(4, 6, 3, groups=2), (5, 4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_point_has_the_outputs_of_factors_times_noise_of_its_own(name) -> None:
    """Of every filter its own factor, whatever the layout of the layer's channels."""
    make, shape = LAYERS[name]
    layer, x = make().double(), randn(*shape, key="x")
    factors = {own: randn(RANK, *value.shape, key=own) for own, value in layer.named_parameters()}
    drawn: list[Tensor] = []

    def noise(size: torch.Size) -> Tensor:
        drawn.append(randn(*size, key="noise"))
        return drawn[-1]

    known = {id(layer.weight): (factors["weight"], factors.get("bias"))}
    with torch.no_grad(), FactorNoise([layer.weight], known, noise):
        got = layer(x)
    (shared,) = drawn
    assert shared.shape == (len(x), RANK)
    for point in range(len(x)):
        values = {
            own: value.detach() + torch.tensordot(shared[point], factors[own], 1)
            for own, value in layer.named_parameters()
        }
        wanted = torch.func.functional_call(layer, values, (x[point : point + 1],))
        torch.testing.assert_close(got[point : point + 1], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "estimator"), [("asymmetric", "local"), ("asymmetric", "flipout"), ("cnn", "flipout")]
)
def test_estimators_agree_on_the_objective_and_its_gradient(kind, estimator) -> None:
    """In their means over steps; those with noise of each point vary less."""
    model, data = made(kind)
    steps, found = 120, {}
    for name in (estimator, "weight"):
        tensors = placed(model)
        objective = LowRankObjective(
            LowRankVI(estimator=name, num_samples=1), model, data, 0, **tensors
        )
        rows = []
        for step in range(steps):
            value, _ = objective(step, data.train.x, data.train.y)
            gradient = torch.autograd.grad(value, list(tensors.values()))
            rows.append(torch.cat([value.detach()[None], *(part.flatten() for part in gradient)]))
        found[name] = torch.stack(rows)
    own, weight = found[estimator], found["weight"]
    error = ((own.var(0) + weight.var(0)) / steps).sqrt()
    # Some hundred or thousand numbers: the largest of as many standard normals is below 5 with
    # probability 0.999.
    assert ((own.mean(0) - weight.mean(0)).abs() <= 5 * error + 1e-10).all()
    assert own.var(0)[0] < weight.var(0)[0]
    assert own.var(0)[1:].sum() < weight.var(0)[1:].sum()


def test_noise_is_a_function_of_the_step_alone() -> None:
    model, data = made("mlp")
    for estimator in ("local", "flipout", "weight"):
        objective = LowRankObjective(
            LowRankVI(estimator=estimator), model, data, 5, **placed(model)
        )
        values = [objective(step, data.train.x, data.train.y)[0].item() for step in (0, 1, 1, 0)]
        assert values[:2] == values[:1:-1]
        assert values[0] != values[1]


# -- settings


@pytest.mark.thorough
def test_a_fixed_diagonal_stays_and_factors_learn() -> None:
    data = load_dataset("gap", limit=30)
    net = build_network(MLPConfig(widths=(3,)), input_shape=data.input_shape, num_outputs=1)
    model = BayesianModel(net, Prior(), Gaussian())
    method = LowRankVI(
        learn_diagonal=False, initial_scale=0.0067, rank=2, num_steps=60, learning_rate=0.05
    )
    posterior = method.fit(model, data, seed=0)
    assert isinstance(posterior, LowRankGaussianPosterior)
    torch.testing.assert_close(posterior.scale, torch.full_like(posterior.scale, 0.0067))
    # The noise is learned too: it is a layer of one coordinate, whose width is that of its factors.
    assert posterior.standard_deviation()[-1] > 0.03


@pytest.mark.thorough
def test_it_starts_from_another_fit() -> None:
    model, data = made("mlp")
    method = LowRankVI(num_steps=1, learning_rate=1e-12, rank=2)
    mean_field = MeanFieldVI(num_steps=30).fit(model, data, seed=0)
    first = method.fit(model, data, seed=1, initial=mean_field)
    torch.testing.assert_close(first.loc, mean_field.loc, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first.scale, mean_field.scale, rtol=1e-9, atol=1e-9)
    again = method.fit(model, data, seed=2, initial=first)
    torch.testing.assert_close(again.factors, first.factors, rtol=1e-9, atol=1e-9)
    other = LowRankVI(num_steps=1, learning_rate=1e-12, rank=3).fit(
        model, data, seed=2, initial=first
    )
    assert other.factors.shape == (3, model.num_parameters)
    torch.testing.assert_close(
        other.factors.std(), torch.tensor(0.01 / 3**0.5).double(), rtol=0.3, atol=0
    )
