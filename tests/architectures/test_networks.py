from itertools import pairwise
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.func import functional_call, grad, vmap

from bnn_symm.architectures import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    build_network,
    count_flops,
)
from bnn_symm.architectures.build import BUILDERS
from bnn_symm.architectures.mlp import MLP
from bnn_symm.errors import ConfigError

NETWORKS = [
    pytest.param(MLPConfig(widths=()), (5,), id="linear"),
    pytest.param(MLPConfig(widths=(7, 6)), (5,), id="mlp"),
    pytest.param(
        MLPConfig(widths=(7,), norm="layer", activation="gelu"), (1, 4, 4), id="mlp-layer"
    ),
    pytest.param(CNNConfig(widths=(4, 6)), (1, 8, 8), id="cnn"),
    pytest.param(
        CNNConfig(widths=(4, 6), norm="layer", activation="tanh"), (3, 8, 8), id="cnn-layer"
    ),
    pytest.param(CNNConfig(widths=(4, 6, 5), norm="frn"), (1, 8, 8), id="cnn-frn"),
    pytest.param(ResNetConfig(), (3, 8, 8), id="resnet-layer"),
    pytest.param(ResNetConfig(norm="frn"), (3, 8, 8), id="resnet-frn"),
    pytest.param(ResNetConfig(norm="frn", activation="silu"), (1, 8, 8), id="resnet-frn-silu"),
]


def points(
    number: int, input_shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    return torch.randn(
        number, *input_shape, generator=torch.Generator().manual_seed(1), dtype=dtype
    )


def num_parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shaken(net: nn.Module) -> nn.Module:
    """The network in float64 with no parameter left at 0 or 1, so that each one shows in the
    outputs."""
    generator = torch.Generator().manual_seed(2)
    net = net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            )
    return net


@settings(max_examples=15, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), max_size=3),
    num_features=st.integers(1, 6),
    num_outputs=st.integers(1, 4),
    norm=st.sampled_from(["none", "layer"]),
)
def test_mlp_has_the_parameters_of_the_formula(
    widths: list[int], num_features: int, num_outputs: int, norm: str
) -> None:
    net = build_network(
        MLPConfig(widths=tuple(widths), norm=norm),
        input_shape=(num_features,),
        num_outputs=num_outputs,
    )
    sizes = [num_features, *widths, num_outputs]
    expected = sum((before + 1) * after for before, after in pairwise(sizes))
    expected += 2 * sum(widths) if norm == "layer" else 0
    assert num_parameters(net) == expected
    assert net(points(3, (num_features,), torch.float32)).shape == (3, num_outputs)


@settings(max_examples=10, deadline=None)
@given(
    widths=st.lists(st.integers(1, 6), max_size=4),
    channels=st.sampled_from([1, 3]),
    size=st.sampled_from([8, 28, 32]),
    norm=st.sampled_from(["none", "layer", "frn"]),
)
def test_cnn_takes_images_of_every_size(
    widths: list[int], channels: int, size: int, norm: str
) -> None:
    config = CNNConfig(widths=tuple(widths), norm=norm)
    net = build_network(config, input_shape=(channels, size, size), num_outputs=10)
    assert net(points(2, (channels, size, size), torch.float32)).shape == (2, 10)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32)])
def test_resnet_takes_images_of_every_size(channels: int, size: int) -> None:
    net = build_network(ResNetConfig(), input_shape=(channels, size, size), num_outputs=10)
    assert net(points(2, (channels, size, size), torch.float32)).shape == (2, 10)


def test_resnet_20_has_the_parameters_of_the_paper_with_option_b() -> None:
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    shortcuts = 16 * 32 + 32 * 64
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64 + 32 + 64)
    head = 65 * 10
    net = build_network(ResNetConfig(), input_shape=(3, 32, 32), num_outputs=10)
    assert num_parameters(net) == convolutions + shortcuts + norms + head == 272_474

    thresholds = 7 * 16 + 6 * 32 + 6 * 64
    frn = build_network(ResNetConfig(norm="frn"), input_shape=(3, 32, 32), num_outputs=10)
    assert num_parameters(frn) == 272_474 + thresholds


@pytest.mark.parametrize(("depth", "weighty"), [(20, 20), (32, 32), (56, 56), (110, 110)])
def test_resnet_depth_counts_the_layers_of_the_main_path(depth: int, weighty: int) -> None:
    net = build_network(ResNetConfig(depth=depth), input_shape=(3, 32, 32), num_outputs=10)
    layers = [
        name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert len([name for name in layers if "shortcut" not in name]) == weighty


def test_resnet_width_multiplier_multiplies_the_channels() -> None:
    net = build_network(ResNetConfig(width_multiplier=2), input_shape=(3, 8, 8), num_outputs=4)
    assert net.get_submodule("stem.conv").weight.shape == (32, 3, 3, 3)
    assert net.get_submodule("head").weight.shape == (4, 128)


@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_a_point_does_not_see_its_batch(
    config: ArchitectureConfig, input_shape: tuple[int, ...]
) -> None:
    net = shaken(build_network(config, input_shape=input_shape, num_outputs=3))
    x = points(4, input_shape)
    with torch.no_grad():
        batch = net(x)
        torch.testing.assert_close(
            batch, torch.cat([net(point[None]) for point in x]), rtol=0, atol=1e-10
        )
        torch.testing.assert_close(batch, net.eval()(x), rtol=0, atol=0)
    assert not list(net.buffers())


@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_torch_fx_traces(config: ArchitectureConfig, input_shape: tuple[int, ...]) -> None:
    net = shaken(build_network(config, input_shape=input_shape, num_outputs=3))
    x = points(3, input_shape)
    torch.testing.assert_close(fx.symbolic_trace(net)(x), net(x), rtol=0, atol=0)


@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_gradients_of_single_points_by_vmap(
    config: ArchitectureConfig, input_shape: tuple[int, ...]
) -> None:
    net = shaken(build_network(config, input_shape=input_shape, num_outputs=3))
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    x = points(2, input_shape)

    def loss(values: dict[str, torch.Tensor], point: torch.Tensor) -> torch.Tensor:
        return functional_call(net, values, (point[None],)).square().sum()

    single = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    net(x).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(single[name].sum(0), parameter.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_many_networks_at_once_by_vmap(
    config: ArchitectureConfig, input_shape: tuple[int, ...]
) -> None:
    net = shaken(build_network(config, input_shape=input_shape, num_outputs=3))
    x = points(2, input_shape)
    draws = {
        name: torch.stack([value, 0.5 * value]).detach() for name, value in net.named_parameters()
    }
    together = vmap(lambda values: functional_call(net, values, (x,)))(draws)
    for draw in range(2):
        alone = functional_call(net, {name: value[draw] for name, value in draws.items()}, (x,))
        torch.testing.assert_close(together[draw], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "silu"])
def test_permuting_hidden_units_leaves_the_mlp_unchanged(activation: str, norm: str) -> None:
    net = shaken(
        build_network(
            MLPConfig(widths=(8, 6), activation=activation, norm=norm),
            input_shape=(4,),
            num_outputs=2,
        )
    )
    assert isinstance(net, MLP)
    x = points(5, (4,))
    before = net(x).detach()
    values = {name: value.detach().clone() for name, value in net.named_parameters()}
    following = ["layers.1", "head"]
    for layer, width in enumerate((8, 6)):
        order = torch.randperm(width, generator=torch.Generator().manual_seed(layer))
        assert (order != torch.arange(width)).any()
        for name in [
            f"{part}.{layer}.{kind}" for part in ("layers", "norms") for kind in ("weight", "bias")
        ]:
            if name in values:
                values[name] = values[name][order]
        values[f"{following[layer]}.weight"] = values[f"{following[layer]}.weight"][:, order]
    torch.testing.assert_close(functional_call(net, values, (x,)), before, rtol=0, atol=1e-10)


def test_parameter_names_are_stable() -> None:
    """Saved posteriors and keys of initial values rest on these names."""

    def names(config: ArchitectureConfig) -> set[str]:
        net = build_network(config, input_shape=(1, 8, 8), num_outputs=2)
        return {name for name, _ in net.named_parameters()}

    assert names(MLPConfig(widths=(3,), norm="layer")) == {
        *(
            "layers.0.weight",
            "layers.0.bias",
            "norms.0.weight",
            "norms.0.bias",
            "head.weight",
            "head.bias",
        )
    }
    assert names(CNNConfig(widths=(3,), norm="frn")) == {
        *(
            "blocks.0.conv.weight",
            "blocks.0.conv.bias",
            "blocks.0.norm.weight",
            "blocks.0.norm.bias",
        ),
        *("blocks.0.activation.tau", "head.weight", "head.bias"),
    }
    assert {
        "stem.conv.weight",
        "stages.1.0.shortcut.conv.weight",
        "stages.2.2.conv2.weight",
    } <= names(ResNetConfig())


def test_flops_of_a_linear_model_are_two_a_weight_and_point() -> None:
    net = build_network(MLPConfig(widths=()), input_shape=(5,), num_outputs=3)
    assert count_flops(net, (5,), 7) == 2 * 5 * 3 * 7


def test_flops_of_a_convolution() -> None:
    net = build_network(CNNConfig(widths=(4,)), input_shape=(1, 8, 8), num_outputs=3)
    assert count_flops(net, (1, 8, 8), 2) == 2 * (2 * 9 * 4 * 8 * 8 + 2 * 4 * 4 * 4 * 3)


@pytest.mark.parametrize("config", [CNNConfig(), ResNetConfig()])
def test_images_are_wanted(config: ArchitectureConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"got inputs of shape \(4,\), expected images.*architecture.name=mlp"
    ):
        build_network(config, input_shape=(4,), num_outputs=2)


def test_empty_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"inputs of shape \(\)"):
        build_network(MLPConfig(), input_shape=(), num_outputs=2)
    with pytest.raises(ConfigError, match=r"inputs of shape \(0,\)"):
        build_network(MLPConfig(), input_shape=(0,), num_outputs=2)
    with pytest.raises(ConfigError, match="num_outputs=0"):
        build_network(MLPConfig(), input_shape=(3,), num_outputs=0)


def test_every_config_has_a_builder() -> None:
    assert set(get_args(get_args(ArchitectureConfig)[0])) == set(BUILDERS)
