"""Test ordered biases: the map is that of order statistics, and no permutation is left."""

import math

import pytest
import torch
from torch import nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    fingerprint,
)
from bnn_symm.architectures.asymmetric.ordered_biases import ordered_normals
from bnn_symm.data import load_dataset
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MCLMC, MeanFieldVI
from bnn_symm.likelihoods import Categorical
from bnn_symm.models import BayesianModel, Prior
from bnn_symm.symmetry import symmetry_group
from tests.models.cases import normal

ORDERED = SymmetryConfig(kind="bias_ordered")


def log_normal(values: torch.Tensor) -> torch.Tensor:
    return -0.5 * (values.square() + math.log(2 * math.pi)).sum()


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_normals_become_order_statistics(number):
    # The density of order statistics is n! times that of the sample: exact at every point.
    for seed in range(3):
        u = 2 * normal(number, seed=seed)
        ordered = ordered_normals(u)
        assert torch.equal(ordered, ordered.sort().values)
        jacobian = torch.autograd.functional.jacobian(ordered_normals, u)
        density = log_normal(u) - torch.linalg.slogdet(jacobian)[1]
        expected = math.lgamma(number + 1) + log_normal(ordered)
        assert density.item() == pytest.approx(expected.item(), abs=1e-6 * number)


def test_one_unit_keeps_its_bias_and_extremes_are_finite():
    values = torch.tensor([-12.0, -5.0, 0.0, 5.0, 12.0]).unsqueeze(1)
    assert torch.allclose(ordered_normals(values), values, rtol=1e-5)
    for extreme in (9.0, -9.0, 40.0, -40.0):
        u = torch.full((64,), extreme, requires_grad=True)
        ordered = ordered_normals(u)
        ordered.sum().backward()
        assert torch.isfinite(ordered).all()
        assert torch.isfinite(u.grad).all()


def test_no_permutation_is_left_and_nothing_is_fixed():
    config = MLPConfig(widths=(5, 6), symmetry=ORDERED)
    net = build_network(config, input_shape=(4,), num_outputs=3)
    plain = build_network(MLPConfig(widths=(5, 6)), input_shape=(4,), num_outputs=3)
    assert symmetry_group(plain).log10_order > 4
    assert symmetry_group(net).log10_order == 0
    assert fingerprint(net) is None
    assert {name: value.shape for name, value in net.named_parameters()} == {
        name: value.shape for name, value in plain.named_parameters()
    }
    cnn = build_network(
        CNNConfig(widths=(3, 4), symmetry=ORDERED), input_shape=(1, 8, 8), num_outputs=2
    )
    assert symmetry_group(cnn).log10_order == 0


def test_the_function_is_that_of_the_standard_network_with_ordered_biases():
    plain = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 1)
    ).double()
    for name, value in plain.named_parameters():
        if name.endswith("bias"):
            value.data = normal(*value.shape, seed=len(name))
    ordered = asymmetrize(plain, kind="bias_ordered", kappa=0.5, input_shape=(2, 4, 4))
    for name in ("0", "3"):
        bias = plain.get_submodule(name).bias
        bias.data = 0.5 * ordered_normals(bias.data / 0.5)
    x = normal(7, 2, 4, 4, seed=3)
    torch.testing.assert_close(ordered(x), plain(x))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method",
    [
        MeanFieldVI(num_steps=60, num_draws=3),
        MCLMC(num_chains=2, num_warmup=20, num_draws=5, steps_per_draw=2),
    ],
    ids=lambda method: method.name,
)
def test_networks_are_fitted(method):
    data = load_dataset("iris")
    net = build_network(MLPConfig(widths=(4,), symmetry=ORDERED), input_shape=(4,), num_outputs=3)
    posterior = method.fit(BayesianModel(net, Prior(), Categorical()), data, seed=0)
    assert torch.isfinite(posterior.draws(4, seed=0)).all()


def test_wrong_settings_are_refused():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    for keys, message in (
        ({"kappa": 0.0}, "for bias_ordered, want one number above 0"),
        ({"kappa": (1.0, 2.0)}, "want one number above 0"),
        ({"input_shape": None}, "bias_ordered finds the hidden units"),
    ):
        with pytest.raises(ConfigError, match=message):
            asymmetrize(net, kind="bias_ordered", **{"input_shape": (4,), **keys})
    linear = nn.Sequential(nn.Linear(4, 1))
    with pytest.raises(ConfigError, match="no hidden layer with a bias"):
        asymmetrize(linear, kind="bias_ordered", input_shape=(4,))
