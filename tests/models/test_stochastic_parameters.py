"""A model of a part of the parameters: the others are constants, without prior and not counted."""

import pytest
import torch
from torch import nn

from bnn_symm.errors import ConfigError
from bnn_symm.inference.density.batched_mlp import BatchedMLP
from bnn_symm.models import BayesianModel, Gaussian, Prior, PriorOverride


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))[:, :1]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.LayerNorm(3), nn.Linear(3, 1)).double()


def model(parameters=(), prior=None, net=None):
    return BayesianModel(
        net or network(), prior or Prior(), Gaussian(noise=0.3), parameters=parameters
    )


@pytest.mark.parametrize(
    ("patterns", "names", "fixed"),
    [
        (["3.*"], ["3.weight", "3.bias"], 15),
        (["*bias"], ["0.bias", "2.bias", "3.bias"], 12),
        (["2.*", "3.bias"], ["2.weight", "2.bias", "3.bias"], 12),
        (["*"], ["0.weight", "0.bias", "2.weight", "2.bias", "3.weight", "3.bias"], 0),
    ],
)
def test_patterns_select_the_entries_of_the_flat_vector(patterns, names, fixed):
    part = model(patterns)
    assert list(part.shapes) == names
    assert (part.num_parameters, part.num_fixed_parameters) == (19 - fixed, fixed)
    values = dict(network().named_parameters())
    assert part.fixed_values().keys() == values.keys() - set(names)
    assert all(torch.equal(value, values[name]) for name, value in part.fixed_values().items())


def test_the_density_is_that_of_all_parameters_at_the_fixed_values():
    """The log prior lacks the terms of the fixed parameters, and keeps the others' scales."""
    prior = Prior(scale="fan_in", overrides={"0.*": PriorOverride(name="laplace", scale=2.0)})
    whole, part = model(prior=prior), model(["3.*"], prior)
    x, y = torch.randn(5, 2).double(), torch.randn(5).double()
    flat = torch.randn(4).double()
    values = whole.unflatten(whole.initial())
    every = whole.flatten(values | part.unflatten(flat))
    others = whole.flatten(values | part.unflatten(torch.zeros(4).double()))
    assert torch.equal(part.log_likelihood(flat, x, y), whole.log_likelihood(every, x, y))
    change = part.log_prior(flat) - part.log_prior(torch.zeros(4).double())
    torch.testing.assert_close(change, whole.log_prior(every) - whole.log_prior(others))
    bias = model(["3.bias"], prior)  # the fan-in of a bias is that of the constant weight
    assert float(bias.prior_standard_deviations(flat)) == pytest.approx((2 / 3) ** 0.5)


def test_a_shared_parameter_is_selected_by_any_of_its_names():
    part = model(["decoder.weight"], net=Tied())
    assert (list(part.shapes), part.num_fixed_parameters) == (["encoder.weight"], 4)
    rest = model(["*.bias"], net=Tied())  # the shared weight is counted once
    assert rest.num_fixed_parameters == 4


def test_frozen_parameters_of_the_module_are_counted_too():
    net = network()
    net[0].requires_grad_(False)
    assert model(net=net).num_fixed_parameters == 9
    assert model(["3.*"], net=net).num_fixed_parameters == 15


def test_a_model_is_restricted_further_at_given_values():
    part = model(["3.*", "2.*"]).restrict(["3.*"], {"2.bias": torch.full((3,), 7.0)})
    assert list(part.shapes) == ["3.weight", "3.bias"]
    assert part.fixed_values()["2.bias"].tolist() == [7.0] * 3
    mean = network().state_dict()
    mean["2.bias"] += 1
    centered = model(prior=Prior(mean=mean_of(mean))).restrict(["3.*"])
    assert torch.equal(centered.fixed_values()["2.bias"], mean["2.bias"])  # where a fit starts


def mean_of(state):
    from bnn_symm.models import PriorMean

    return PriorMean(state)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("3.wieght", "'3.weight'"),
        ("head*", "0.weight, 0.bias, 2.weight, 2.bias, 3.weight, 3.bias"),
        ("likelihood.noise", "likelihood"),
        ("0.*", "requires_grad"),
    ],
)
def test_a_pattern_without_a_match_is_refused(pattern, words):
    net = network()
    net[0].requires_grad_(pattern != "0.*")
    with pytest.raises(ConfigError) as refused:
        model([pattern], net=net)
    assert pattern in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize("patterns", [["3.*"], ["0.bias"], ["0.*"], ["2.weight"], ["*bias"]])
def test_batched_gradients_are_those_of_single_networks(patterns):
    part = model(patterns)
    batched = BatchedMLP.of(part)
    assert batched is not None
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(shape, generator=generator).double() for shape in ((6, 2), (6,)))
    positions = torch.randn(2, part.num_parameters, generator=generator).double()
    values, gradients = batched.log_likelihood_and_gradient(positions, x, y)
    for flat, value, gradient in zip(positions, values, gradients, strict=True):
        leaf = flat.clone().requires_grad_()
        expected = part.log_likelihood(leaf, x, y).sum()
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, leaf)[0])
