"""Dropping inputs in the weights is dropping them on their way."""

import pytest
import torch
from torch import nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    build_network,
    drop_inputs,
    effective_parameters,
)
from bnn_symm.architectures.layers.dropout import DroppedInputs
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import torch_generator

NETWORKS = {
    "mlp": (MLPConfig(widths=(5, 4), norm="layer", dropout=0.3), (3,), 5 + 4),
    "cnn": (CNNConfig(widths=(3, 4), dropout=0.3), (1, 8, 8), 3 + 4 * 2 * 2),
    "resnet": (ResNetConfig(dropout=0.3), (3, 8, 8), 3 * (16 + 32 + 64) + 64),
}


def network(name: str) -> nn.Module:
    config, input_shape, _ = NETWORKS[name]
    return build_network(config, input_shape=input_shape, num_outputs=3).double()


def some_kept(inputs: DroppedInputs) -> torch.Tensor:
    return torch.rand(len(inputs.rates), generator=torch_generator(0, "kept")) >= inputs.rates


def times(net: nn.Module, factors: torch.Tensor) -> dict[str, torch.Tensor]:
    parameters = dict(net.named_parameters())
    parts = factors.split([value.numel() for value in parameters.values()])
    return {
        name: value.detach() * part.reshape(value.shape)
        for (name, value), part in zip(parameters.items(), parts, strict=True)
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_in_the_weights_as_on_the_way(name):
    net = network(name)
    inputs = DroppedInputs(net)
    assert len(inputs.rates) == NETWORKS[name][2]
    kept = some_kept(inputs)
    assert 0 < kept.sum() < len(kept)
    x = torch.randn(2, *NETWORKS[name][1], generator=torch_generator(0, "x"), dtype=torch.float64)
    with torch.no_grad():
        in_weights = torch.func.functional_call(
            net, times(net, inputs.factors(kept).double()), (x,)
        )
        plain = net(x)
        start = 0
        for layer in net.modules():
            if getattr(layer, "input_dropout", 0.0) > 0:
                number = layer.weight.shape[1]
                own = kept[start : start + number].double() / (1 - 0.3)
                start += number

                def drop(layer, args, own=own):
                    return args[0] * own.reshape(1, -1, *[1] * (args[0].ndim - 2))

                layer.register_forward_pre_hook(drop)
        assert start == len(kept)
        # The rates are float32.
        torch.testing.assert_close(in_weights, net(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(in_weights, plain, rtol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_pass_is_the_same_with_and_without(name):
    config, input_shape, _ = NETWORKS[name]
    keywords = {key: getattr(config, key) for key in ("widths", "norm") if hasattr(config, key)}
    x = torch.randn(2, *input_shape, generator=torch_generator(0, "x"), dtype=torch.float64)
    plain = build_network(type(config)(**keywords), input_shape=input_shape, num_outputs=3).double()
    assert torch.equal(network(name).train()(x), plain(x))
    assert len(DroppedInputs(plain).rates) == 0


@pytest.mark.parametrize(
    "kind", ["weight_asymmetric", "sigma_asymmetric", "init_matched", "block_fixed"]
)
def test_what_is_fixed_stays(kind):
    config = MLPConfig(widths=(8, 8), dropout=0.5, symmetry=SymmetryConfig(kind=kind))
    net = build_network(config, input_shape=(6,), num_outputs=3)
    inputs = DroppedInputs(net)
    kept = some_kept(inputs)
    whole = effective_parameters(net, times(net, inputs.factors(kept)))
    before = effective_parameters(
        net, {name: value.detach() for name, value in net.named_parameters()}
    )
    for layer, own in (("layers.1", kept[:8]), ("head", kept[8:])):
        mask = getattr(net.get_submodule(layer), "mask", torch.tensor(True))
        mask = mask if kind in ("weight_asymmetric", "block_fixed") else torch.tensor(True)
        wanted = torch.where(mask, before[f"{layer}.weight"] * own / 0.5, before[f"{layer}.weight"])
        torch.testing.assert_close(whole[f"{layer}.weight"], wanted)
    for name in ("layers.0.weight", "layers.0.bias", "layers.1.bias", "head.bias"):
        assert torch.equal(whole[name], before[name])


def test_a_rate_stands_whatever_is_kept():
    """The mean over which units are kept is the weight itself."""
    net = network("mlp")
    inputs = DroppedInputs(net)
    both = (
        inputs.factors(torch.ones(9, dtype=torch.bool)) * 0.7
        + inputs.factors(torch.zeros(9, dtype=torch.bool)) * 0.3
    )
    torch.testing.assert_close(both[inputs.unit_of > 0], torch.ones(5 * 4 + 4 * 3))
    assert torch.equal(
        inputs.factors(torch.zeros(9, dtype=torch.bool))[inputs.unit_of == 0].unique(),
        torch.ones(1),
    )


def test_what_cannot_be_dropped_is_refused():
    with pytest.raises(
        ConfigError, match="got a LayerNorm, expected a linear layer or a convolution"
    ):
        drop_inputs(nn.LayerNorm(3), 0.1)
    with pytest.raises(ConfigError, match=r"got a rate of 1\.0, expected a probability below 1"):
        drop_inputs(nn.Linear(3, 3), 1.0)
