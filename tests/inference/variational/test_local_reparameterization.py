import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnn_symm.architectures import CNNConfig, MLPConfig, build_network
from bnn_symm.data import load_dataset
from bnn_symm.diagnostics import elbo
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MAP, EarlyStopping, MeanFieldVI
from bnn_symm.inference.variational.local_reparameterization import (
    LocalReparameterization,
    _LocalLinear,
    local_layers,
)
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior
from bnn_symm.randomness import torch_generator


def randn(*shape, key="local"):
    return torch.randn(*shape, generator=torch_generator(0, key), dtype=torch.float64)


def layers(net, x):
    return local_layers(net, {name: value.detach() for name, value in net.named_parameters()}, x)


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        x = F.linear(self.a(x).tanh(), self.a.weight.t())  # a's weight once more
        x = self.b(self.b(x))  # b twice
        return self.c(x)


class Prototypes(nn.Module):
    """A layer whose input is a table of the network's own, of as many rows as a class has."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 3)
        self.register_buffer("table", torch.ones(2, 3))

    def forward(self, x):
        return x @ self.embed(self.table).T


class Field(nn.Module):
    """The gradient of a learned potential."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            potential = self.head(torch.tanh(self.first(x))).sum()
            return torch.autograd.grad(potential, x, create_graph=True)[0]


def test_only_layers_used_once_a_point_are_local():
    mlp = build_network(MLPConfig(widths=(4,), norm="layer"), input_shape=(3,), num_outputs=2)
    assert layers(mlp, torch.ones(2, 3)) == [
        ("layers.0.weight", "layers.0.bias"),
        ("head.weight", "head.bias"),
    ]
    cnn = build_network(CNNConfig(widths=(2,)), input_shape=(1, 8, 8), num_outputs=2)
    assert layers(cnn, torch.ones(2, 1, 8, 8)) == [("head.weight", "head.bias")]
    assert layers(Reused(), torch.ones(2, 3)) == [("c.weight", "c.bias")]
    over_positions = nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.Linear(2, 2), nn.Flatten(), nn.Linear(6, 2, bias=False)
    )
    assert layers(over_positions, torch.ones(2, 6)) == [("3.weight", None)]
    assert layers(Prototypes(), torch.ones(2, 3)) == []
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert layers(tied, torch.ones(2, 3)) == []
    assert layers(Field(), torch.ones(2, 3)) == []


def test_written_out_gradient_is_the_gradient():
    x, weight, scale = randn(5, 3), randn(2, 3, key="w"), randn(2, 3, key="s").exp()
    bias, bias_scale, noise = randn(2, key="b"), randn(2, key="bs").exp(), randn(5, 2, key="n")
    leaves = [value.requires_grad_() for value in (x, weight, scale, bias, bias_scale)]
    assert torch.autograd.gradcheck(lambda *v: _LocalLinear.apply(*v, noise), leaves)
    no_bias = leaves[:3]
    assert torch.autograd.gradcheck(lambda *v: _LocalLinear.apply(*v, None, None, noise), no_bias)


@pytest.mark.thorough
def test_pre_activations_have_the_moments_of_sampled_weights():
    layer = nn.Linear(3, 2).double()
    x, scale, bias_scale = randn(4, 3), randn(2, 3, key="s").exp(), randn(2, key="bs").exp()
    generator = torch_generator(0, "noise")

    def noise(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    number = 20_000
    with (
        LocalReparameterization([(layer.weight, scale)], [(layer.bias, bias_scale)], noise),
        torch.no_grad(),
    ):
        samples = torch.stack([layer(x) for _ in range(number)])
    mean = x @ layer.weight.t() + layer.bias
    sd = (x.square() @ scale.square().t() + bias_scale.square()).sqrt()
    # Standard errors: sd / sqrt(n) of a mean, sd / sqrt(2 n) of a standard deviation; five of them.
    assert ((samples.mean(0) - mean).abs() / sd).max() < 5 / number**0.5
    assert (samples.std(0) / sd - 1).abs().max() < 5 / (2 * number) ** 0.5


@pytest.mark.thorough
def test_both_estimators_are_unbiased_for_the_same_objective():
    data = load_dataset("iris", dtype=torch.float64)
    net = build_network(
        MLPConfig(widths=(4,)), input_shape=data.input_shape, num_outputs=3
    ).double()
    model = BayesianModel(net, Prior(), Categorical())
    values = {}
    for estimator in ("local", "weight"):
        # A learning rate that changes nothing: 400 estimates at one place.
        method = MeanFieldVI(
            estimator=estimator, num_steps=400, learning_rate=1e-12, initial_scale=0.5, log_every=1
        )
        rows = method.fit(model, data, seed=0).history
        values[estimator] = torch.tensor([row["objective"] for row in rows], dtype=torch.float64)
    error = sum(value.var() / len(value) for value in values.values()) ** 0.5
    assert abs(values["local"].mean() - values["weight"].mean()) < 4 * error
    assert values["local"].var() < values["weight"].var()


@pytest.mark.thorough
def test_scores_before_a_fit_do_not_spoil_the_model():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=()), input_shape=data.input_shape, num_outputs=3)
    model = BayesianModel(net, Prior(), Categorical())
    loc = model.initial()
    elbo(GaussianPosterior(model, data.scaling, loc=loc, scale=torch.ones_like(loc)), data.train)
    posterior = MAP(num_steps=2).fit(model, data, seed=0)
    assert posterior.info["status"] == "complete"


def test_early_stopping_stops_and_needs_a_validation_part():
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(8,)), input_shape=data.input_shape, num_outputs=3)
    model = BayesianModel(net, Prior(scale=10.0), Categorical())
    stopping = EarlyStopping(patience=3)
    method = MAP(
        num_steps=4000,
        learning_rate=0.1,
        schedule="constant",
        early_stopping=stopping,
        log_every=10,
    )
    posterior = method.fit(model, data, seed=0)
    assert posterior.info["status"] == "complete"
    assert posterior.history[-1]["step"] < 4000
    with pytest.raises(ConfigError, match="early_stopping needs a validation split"):
        method.fit(model, load_dataset("iris", validation_fraction=0), seed=0)
