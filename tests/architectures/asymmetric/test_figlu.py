import math

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
)
from bnn_symm.architectures.asymmetric.figlu import ACTIVATION_MODULES, FiGLU
from bnn_symm.errors import ConfigError

SIGMA = SymmetryConfig(kind="sigma_asymmetric")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_features_and_channels_are_gated_by_the_formula():
    matrix = normal(3, 3)
    figlu = FiGLU(matrix)
    x = normal(5, 3, seed=1)
    wanted = torch.stack([torch.sigmoid(matrix @ point) * point for point in x])
    torch.testing.assert_close(figlu(x), wanted)
    tokens = normal(2, 4, 3, seed=2)
    torch.testing.assert_close(
        figlu(tokens)[1, 2], torch.sigmoid(matrix @ tokens[1, 2]) * tokens[1, 2]
    )
    maps = normal(2, 3, 4, 5, seed=3)
    pixel = maps[1, :, 2, 3]
    torch.testing.assert_close(figlu(maps)[1, :, 2, 3], torch.sigmoid(matrix @ pixel) * pixel)


@pytest.mark.parametrize(
    ("config", "input_shape", "widths"),
    [
        (MLPConfig(widths=(7, 6), symmetry=SIGMA), (5,), [7, 6]),
        (MLPConfig(widths=(7,), norm="layer", symmetry=SIGMA), (1, 2, 3), [7]),
        (CNNConfig(widths=(3, 4), norm="frn", symmetry=SIGMA), (1, 8, 8), [3, 4]),
        (ResNetConfig(symmetry=SIGMA), (3, 8, 8), [16] * 7 + [32] * 6 + [64] * 6),
    ],
)
def test_every_activation_of_the_networks_is_replaced(config, input_shape, widths):
    net = build_network(config, input_shape=input_shape, num_outputs=2)
    found = [module for module in net.modules() if isinstance(module, FiGLU)]
    assert [len(module.matrix) for module in found] == widths
    assert not any(isinstance(module, ACTIVATION_MODULES) for module in net.modules())
    assert len({module.matrix[0, 0].item() for module in found}) == len(
        found
    )  # each has values of its own
    assert not any(name.endswith("matrix") for name, _ in net.named_parameters())
    x = normal(3, *input_shape)
    net.double()
    torch.testing.assert_close(fx.symbolic_trace(net)(x), net(x), rtol=0, atol=0)


def test_the_scale_of_the_gate():
    def matrix(**keywords):
        net = asymmetrize(
            nn.Sequential(nn.Linear(3, 400), nn.ReLU()),
            kind="sigma_asymmetric",
            input_shape=(3,),
            **keywords,
        )
        return net[1].matrix

    auto = matrix()
    # The standard error of a standard deviation of n normals is 1 / sqrt(2 n) of it; five of them.
    assert abs(float(auto.std()) * math.sqrt(400) - 1) < 5 / math.sqrt(2 * 400**2)
    torch.testing.assert_close(matrix(gate_scale=0.3), auto * 0.3 * 20)
    assert not torch.equal(matrix(seed=1), auto)


def test_no_permutation_of_units_commutes_with_it():
    net = build_network(
        MLPConfig(widths=(4,), symmetry=SIGMA), input_shape=(3,), num_outputs=2
    ).double()
    x = normal(6, 3)
    before = net(x)
    order = torch.tensor([1, 0, 2, 3])
    with torch.no_grad():
        net.layers[0].weight.copy_(net.layers[0].weight[order])
        net.head.weight.copy_(net.head.weight[:, order])
    assert (net(x) - before).abs().max() > 1e-3


def test_an_activation_shared_at_one_width_stays_shared():
    act = nn.ReLU()
    net = asymmetrize(
        nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 4), act),
        kind="sigma_asymmetric",
        input_shape=(3,),
    )
    assert isinstance(net[1], FiGLU)
    assert net[1] is net[3]


def test_an_activation_alone_is_replaced_too():
    assert isinstance(asymmetrize(nn.Tanh(), kind="sigma_asymmetric", input_shape=(3,)), FiGLU)


def test_refusals():
    act = nn.ReLU()
    shared = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 5), act)
    with pytest.raises(
        ConfigError, match=r"1: this activation is used at the widths \[4, 5\].*for each call"
    ):
        asymmetrize(shared, kind="sigma_asymmetric", input_shape=(3,))
    assert not any(module._forward_pre_hooks for module in shared.modules())

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)

        def forward(self, x):
            return F.relu(self.a(x))

    with pytest.raises(
        ConfigError, match=r"no activation module in use.*self.activation = nn.ReLU\(\)"
    ):
        asymmetrize(Functional(), kind="sigma_asymmetric", input_shape=(3,))
    with pytest.raises(ConfigError, match="pass input_shape"):
        asymmetrize(nn.ReLU(), kind="sigma_asymmetric")
    with pytest.raises(ConfigError, match="no activation module"):
        build_network(MLPConfig(widths=(), symmetry=SIGMA), input_shape=(3,), num_outputs=2)
