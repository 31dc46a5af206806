"""Continuous symmetries: transformations that leave the function as it is, counted, and what takes
them away."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn_symm.architectures import CNNConfig, MLPConfig, ResNetConfig, SymmetryConfig, build_network
from bnn_symm.architectures.asymmetric.fixed_entries import fix_entries, fixed_layers
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import (
    ContinuousSymmetry,
    PermutationSpec,
    continuous_symmetries,
    permutation_spec,
    rescale,
)
from bnn_symm.symmetry.derive import random_values, relative_difference
from bnn_symm.symmetry.group.fixed_values import dense_copy, fixed_entries

from .networks import NETWORKS, convolutions

SHAPES: dict[type, tuple[int, ...]] = {
    MLPConfig: (5,),
    CNNConfig: (2, 6, 6),
    ResNetConfig: (2, 4, 4),
}


def built(config: Any, **keys: Any) -> nn.Module:
    symmetry = SymmetryConfig(**keys) if keys else SymmetryConfig()
    config = type(config)(**{**vars(config), "symmetry": symmetry})
    return build_network(config, input_shape=SHAPES[type(config)], num_outputs=3).double()


def found(
    net: nn.Module, input_shape: tuple[int, ...] | None = None, softmax: bool = True
) -> list[ContinuousSymmetry]:
    spec = permutation_spec(net, input_shape)
    return continuous_symmetries(
        net, spec, fixed_entries(net), input_shape=input_shape, softmax=softmax
    )


def counts(symmetries: list[ContinuousSymmetry], kind: str) -> dict[str, tuple[int, int]]:
    """Where -> (directions left, removed)."""
    return {one.where: (one.dimensions, one.removed) for one in symmetries if one.kind == kind}


def points(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_generator("points"), dtype=torch.float64)


def rescaled_groups(spec: PermutationSpec) -> dict[str, set[str]]:
    """Group -> tensors that take the factors of its units."""
    return {
        group: {
            name
            for name, axes in spec.axes.items()
            if any(segment.group == group and segment.scale for axis in axes for segment in axis)
        }
        for group in spec.groups
    }


# -- positive scaling

RELU = {
    "mlp": (MLPConfig(widths=(4, 3)), 7),
    "mlp with norms": (MLPConfig(widths=(4, 3), norm="layer"), 7),
    "cnn": (CNNConfig(widths=(4, 3)), 7),
    "cnn with norms": (CNNConfig(widths=(4, 3), norm="layer"), 7),
    "cnn with thresholds": (CNNConfig(widths=(4, 3), norm="frn"), 7),
    "resnet": (ResNetConfig(), 4 * (16 + 32 + 64)),
    "resnet with thresholds": (ResNetConfig(norm="frn"), 4 * (16 + 32 + 64)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", RELU)
def test_rescaled_units_are_the_same_function(name):
    config, units = RELU[name]
    net = built(config)
    spec = permutation_spec(net)
    values = random_values(net, 0)
    factors = {
        group: torch.rand(one.size, generator=torch_generator(group), dtype=torch.float64) * 4
        + 0.25
        for group, one in spec.groups.items()
    }
    together = rescale(spec, values, factors)
    x = points(4, *net.input_shape)
    assert relative_difference(net, values, together, x) <= 1e-12
    # One group by itself, and each of its tensors takes part: left out, the function is another
    # one.
    group, tensors = next(iter(rescaled_groups(spec).items()))
    alone = rescale(spec, values, {group: factors[group]})
    assert relative_difference(net, values, alone, x) <= 1e-12
    assert {
        tensor for tensor in values if not torch.equal(alone[tensor], values[tensor])
    } == tensors
    for tensor in tensors:
        assert relative_difference(net, values, {**alone, tensor: values[tensor]}, x) > 1e-6, tensor
    symmetries = continuous_symmetries(net, spec, fixed_entries(net))
    left = counts(symmetries, "positive scaling")
    assert left == {group: (one.size, 0) for group, one in spec.groups.items()}
    assert sum(dimensions for dimensions, _ in left.values()) == units


def test_thresholds_and_norms_take_the_factor_and_the_weights_before_them_do_not():
    net = built(CNNConfig(widths=(4, 3), norm="frn"))
    spec = permutation_spec(net)
    values = random_values(net, 0)
    factor = torch.tensor([2.0, 3.0, 0.5, 7.0], dtype=torch.float64)
    scaled = rescale(spec, values, {"blocks.0.conv": factor})
    for tensor in ("norm.weight", "norm.bias", "activation.tau"):
        torch.testing.assert_close(
            scaled[f"blocks.0.{tensor}"], values[f"blocks.0.{tensor}"] * factor
        )
    reads = values["blocks.1.conv.weight"] / factor[:, None, None]
    torch.testing.assert_close(scaled["blocks.1.conv.weight"], reads)
    for tensor in ("conv.weight", "conv.bias"):
        assert torch.equal(scaled[f"blocks.0.{tensor}"], values[f"blocks.0.{tensor}"])


def test_draws_are_rescaled_one_by_one():
    net = built(MLPConfig(widths=(4, 3)))
    spec = permutation_spec(net)
    draws = [random_values(net, key) for key in range(2)]
    factors = {"layers.1": torch.tensor([2.0, 3.0, 0.5])}
    together = rescale(
        spec, {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}, factors
    )
    for number, draw in enumerate(draws):
        alone = rescale(spec, draw, factors)
        assert all(torch.equal(value[number], alone[name]) for name, value in together.items())


@pytest.mark.parametrize("activation", ["gelu", "tanh", "silu"])
def test_smooth_units_are_not_rescaled(activation):
    net = built(MLPConfig(widths=(4, 3), activation=activation))
    assert counts(found(net), "positive scaling") == {}
    spec = permutation_spec(net)
    values = random_values(net, 0)
    same = rescale(spec, values, {"layers.0": torch.full((4,), 2.0)})
    assert all(torch.equal(same[name], value) for name, value in values.items())


@pytest.mark.parametrize(
    "config",
    [
        MLPConfig(widths=(8, 6)),
        CNNConfig(widths=(4, 6), norm="frn"),
        pytest.param(ResNetConfig(), marks=pytest.mark.slow),
    ],
)
def test_fixed_entries_remove_scalings_unless_they_are_zero(config):
    whole = built(config)
    sizes = {group: one.size for group, one in permutation_spec(whole).groups.items()}
    nonzero = built(config, kind="weight_asymmetric", kappa=1.0)
    assert counts(found(nonzero), "positive scaling") == {
        group: (0, size) for group, size in sizes.items()
    }
    zero = built(config, kind="weight_asymmetric", kappa=0.0)
    assert counts(found(zero), "positive scaling") == {
        group: (size, 0) for group, size in sizes.items()
    }
    # And so it is: where zeros are fixed, rescaled weights have zeros.
    spec, twin = permutation_spec(zero), dense_copy(zero)
    values = {name: value.detach() for name, value in twin.named_parameters()}
    factors = {group: 1 + torch.arange(size, dtype=torch.float64) for group, size in sizes.items()}
    scaled = rescale(spec, values, factors)
    assert any(not torch.equal(scaled[name], value) for name, value in values.items())
    assert all(bool((scaled[name][~layer.mask] == 0).all()) for name, layer in fixed_layers(zero))
    assert relative_difference(twin, values, scaled, points(4, *zero.input_shape)) <= 1e-12


def test_scalings_are_removed_unit_by_unit():
    """Two of four units are read at a fixed value, one of them made at one too; the others are
    free."""
    net = built(MLPConfig(widths=(4,)))
    made, read = torch.ones(4, 5, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)
    made[1, 2], read[0, 1], read[2, 3] = False, False, False
    fix_entries(net.layers[0], made, torch.full((4, 5), 0.5))
    fix_entries(net.head, read, torch.full((3, 4), 0.5))
    assert counts(found(net), "positive scaling") == {"layers.0": (2, 2)}


def test_gates_remove_scalings():
    net = built(MLPConfig(widths=(4, 3)), kind="sigma_asymmetric")
    left = counts(found(net), "positive scaling")
    assert all(dimensions == 0 for dimensions, _ in left.values())


# -- scale before a norm

BEFORE_NORMS = {
    "layer norm": (
        MLPConfig(widths=(4, 3), norm="layer", activation="gelu"),
        ["layers.0", "layers.1"],
    ),
    "group norm": (CNNConfig(widths=(4, 3), norm="layer"), ["blocks.0.conv", "blocks.1.conv"]),
    "filter response norm": (
        CNNConfig(widths=(4, 3), norm="frn"),
        ["blocks.0.conv", "blocks.1.conv"],
    ),
    "mlp without norms": (MLPConfig(widths=(4, 3)), []),
    "smooth mlp without norms": (MLPConfig(widths=(4, 3), activation="tanh"), []),
    "cnn without norms": (CNNConfig(widths=(4, 3)), []),
    "linear model": (MLPConfig(widths=()), []),
}


@pytest.mark.parametrize("name", BEFORE_NORMS)
def test_scale_before_a_norm(name):
    config, layers = BEFORE_NORMS[name]
    net = built(config)
    before = counts(found(net), "scale before a norm")
    by_unit = name == "filter response norm"  # a norm of each channel
    assert before == {
        layer: (size if by_unit else 1, 0) for layer, size in zip(layers, (4, 3), strict=False)
    }
    values, x = random_values(net, 0), points(4, *net.input_shape)
    for layer in {name.rpartition(".")[0] for name, value in values.items() if value.dim() >= 2}:
        whole = [name for name in values if name.startswith(f"{layer}.")]
        tripled = {**values, **{name: 3 * values[name] for name in whole}}
        # Up to the norm's epsilon, which the variance of the maps is far above.
        assert (relative_difference(net, values, tripled, x) < 1e-3) == (layer in layers)


@pytest.mark.thorough
def test_every_convolution_of_a_resnet_is_before_a_norm():
    net = built(ResNetConfig())
    before = counts(found(net), "scale before a norm")
    convolutions_of_it = {
        name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)
    }
    assert set(before) == convolutions_of_it
    assert len(before) == 19 + 2


@pytest.mark.parametrize(("kappa", "left"), [(1.0, (0, 1)), (0.0, (1, 0))])
def test_fixed_entries_remove_the_scale_unless_they_are_zero(kappa, left):
    config = MLPConfig(widths=(8, 6), norm="layer", activation="gelu")
    net = built(config, kind="weight_asymmetric", kappa=kappa)
    assert counts(found(net), "scale before a norm") == {"layers.0": left, "layers.1": left}
    one_layer = built(config, kind="weight_asymmetric", kappa=kappa, fixed_per_row=(0, 2, 0))
    assert counts(found(one_layer), "scale before a norm") == {"layers.0": (1, 0), "layers.1": left}


def test_scale_of_a_layer_whose_tensors_have_units_on_different_axes():
    # The first axis of the weight is that of the inputs, and has another length than the bias.
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 2), nn.GroupNorm(1, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 1)
    )
    net.input_shape = (2, 2, 2)
    assert counts(found(net), "scale before a norm") == {"0": (1, 0)}


@pytest.mark.parametrize("fixed_per_row", [0, 2])
def test_shifts_before_a_layer_norm(fixed_per_row):
    config = MLPConfig(widths=(8, 6), norm="layer", activation="gelu")
    kind = "weight_asymmetric" if fixed_per_row else "standard"
    net = built(config, kind=kind, fixed_per_row=(0, fixed_per_row, 0))
    shifts = counts(found(net), "shift before a norm")
    # A row of the first weight has one entry for each input, and one of the second eight, of which
    # those with a fixed entry in their column stay.
    inputs, entry = net.input_shape[0], fixed_entries(net).get("layers.1.weight")
    free = 8 if entry is None else int(entry.free.all(0).sum())
    second = (free, 8 - free)
    assert shifts == {
        "layers.0.weight": (inputs, 0),
        "layers.0.bias": (1, 0),
        "layers.1.weight": second,
        "layers.1.bias": (1, 0),
    }


def test_maps_are_shifted_by_their_biases_before_a_group_norm():
    net = built(CNNConfig(widths=(4, 3), norm="layer"))
    shifts = counts(found(net), "shift before a norm")
    assert shifts == {"blocks.0.conv.bias": (1, 0), "blocks.1.conv.bias": (1, 0)}


# -- shift of the softmax


def shifted(values: dict[str, Tensor], where: str, column: int | None = None) -> dict[str, Tensor]:
    """A constant added to all outputs, or to all of what they take from one column."""
    value = values[where].clone()
    if column is None:
        value += 0.7
    else:
        value[:, column] += 0.7
    return {**values, where: value}


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize(
    "config", [MLPConfig(widths=(8,)), CNNConfig(widths=(4,)), MLPConfig(widths=())]
)
def test_a_constant_on_all_outputs_is_no_matter(config, kappa):
    """Of the head's columns those without fixed entries can be shifted, those with, at whatever
    value, cannot."""
    width = built(config).head.in_features
    net = built(
        config, kind="weight_asymmetric", fixed_per_row=(2,) * (len(config.widths) + 1), kappa=kappa
    )
    held = ~net.head.mask.all(0)
    assert 0 < held.sum() <= 6
    left = counts(found(net), "shift of the softmax")
    assert left == {"head.weight": (width - int(held.sum()), int(held.sum())), "head.bias": (1, 0)}
    assert counts(found(built(config)), "shift of the softmax") == {
        "head.weight": (width, 0),
        "head.bias": (1, 0),
    }

    model = BayesianModel(net, Prior(), Categorical())
    x, y = points(5, *net.input_shape), torch.tensor([0, 1, 2, 2, 0])
    flat = model.initial()
    values = model.layer_values(model.unflatten(flat))
    before = model.log_likelihood(flat, x, y)
    for column in range(width):
        changed = shifted(values, "head.weight", column)
        free = net.head.restrict(changed["head.weight"])
        back = model.flatten({**model.unflatten(flat), "head.weight": free})
        stays = bool((model.log_likelihood(back, x, y) - before).abs().max() < 1e-12)
        represented = torch.equal(net.head.embed(free), changed["head.weight"])
        assert represented == (not held[column])
        assert stays or not represented
    bias = model.flatten(shifted(model.unflatten(flat), "head.bias"))
    assert (model.outputs(bias, x) - model.outputs(flat, x) - 0.7).abs().max() < 1e-12
    assert (model.log_likelihood(bias, x, y) - before).abs().max() < 1e-12


def test_shifts_are_of_softmax_likelihoods_only():
    net = built(MLPConfig(widths=(4,)))
    assert counts(found(net, softmax=False), "shift of the softmax") == {}
    assert counts(found(net, softmax=False), "positive scaling") == {"layers.0": (4, 0)}


# -- other networks


def test_networks_of_other_operations():
    torch.manual_seed(0)
    build, input_shape, _ = NETWORKS["group norm"]
    symmetries = found(build(), input_shape)
    assert counts(symmetries, "scale before a norm") == {"0": (1, 0)}
    assert counts(symmetries, "positive scaling") == {"0": (6, 0)}
    assert counts(symmetries, "shift of the softmax") == {"4.weight": (24, 0), "4.bias": (1, 0)}
    plain = found(convolutions(1), (2, 6, 6))  # relu, relu, gelu
    assert counts(plain, "positive scaling") == {"0": (4, 0), "2": (8, 0)}
    assert counts(plain, "scale before a norm") == {}
