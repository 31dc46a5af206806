import math

import pytest
import torch
from torch import nn

from bnn_symm.architectures import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    build_network,
    initialize,
)


def values(
    config: ArchitectureConfig, input_shape: tuple[int, ...], seed: int = 0
) -> dict[str, torch.Tensor]:
    return build_network(config, input_shape=input_shape, num_outputs=3, seed=seed).state_dict()


@pytest.mark.parametrize(
    ("config", "input_shape"),
    [(MLPConfig(), (4,)), (CNNConfig(norm="frn"), (1, 8, 8)), (ResNetConfig(), (3, 8, 8))],
)
def test_the_same_seed_gives_the_same_values_whatever_was_drawn_before(
    config: ArchitectureConfig, input_shape: tuple[int, ...]
) -> None:
    first = values(config, input_shape)
    torch.rand(3)
    state = torch.get_rng_state()
    second = values(config, input_shape)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = values(config, input_shape, seed=1)
    assert not any(
        torch.equal(first[name], other[name]) for name in first if first[name].std() > 0.01
    )


def test_values_of_a_layer_do_not_depend_on_other_layers() -> None:
    small = values(MLPConfig(widths=(6, 5)), (4,))
    other = values(MLPConfig(widths=(6, 7, 5), norm="layer", activation="tanh"), (4,))
    assert torch.equal(small["layers.0.weight"], other["layers.0.weight"])
    assert torch.equal(small["head.weight"], other["head.weight"])
    assert not torch.equal(small["layers.0.weight"][:5, :4], small["layers.1.weight"][:, :4])


def test_float64_has_the_same_values_to_more_digits() -> None:
    single = build_network(MLPConfig(), input_shape=(4,), num_outputs=3)
    double = build_network(MLPConfig(), input_shape=(4,), num_outputs=3).double()
    initialize(double, 0)
    for one, two in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(one, two.float())


def test_weights_have_the_stated_variance_and_everything_else_its_identity() -> None:
    mlp = values(MLPConfig(widths=(400, 300), norm="layer"), (200,))
    # The standard error of a variance from n normals is sqrt(2 / n) of it; five of them are
    # allowed.
    for name, variance in {
        "layers.0.weight": 2 / 200,
        "layers.1.weight": 2 / 400,
        "head.weight": 1 / 300,
    }.items():
        error = 5 * variance * math.sqrt(2 / mlp[name].numel())
        assert abs(float(mlp[name].var()) - variance) < error
    assert torch.equal(mlp["norms.0.weight"], torch.ones(400))
    assert all(not value.any() for name, value in mlp.items() if name.endswith("bias"))

    cnn = values(CNNConfig(widths=(64, 64), norm="frn"), (1, 8, 8))
    weight = cnn["blocks.1.conv.weight"]
    variance = 2 / (64 * 9)
    assert abs(float(weight.var()) - variance) < 5 * variance * math.sqrt(2 / weight.numel())
    assert torch.equal(cnn["blocks.0.norm.weight"], torch.ones(64))
    assert not cnn["blocks.0.activation.tau"].any()


def test_parameters_of_unknown_modules_keep_their_values() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((2,), 3.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    net = nn.Sequential(nn.Linear(2, 2), Scale())
    before = net[0].weight.detach().clone()
    initialize(net, 0)
    assert torch.equal(net[1].factor, torch.full((2,), 3.5))
    assert not torch.equal(net[0].weight, before)
