import dataclasses
import os
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from torch import fx, nn
from torch.func import functional_call, grad, vmap

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ModuleConfig,
    ResNetConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    effective_parameters,
    fingerprint,
    fixed_buffers,
    initialize,
    load_fixed_buffers,
)
from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntries
from bnn_symm.errors import ConfigError, IncompatiblePosteriors

NETWORKS = [
    pytest.param(MLPConfig(widths=(16, 12)), (10,), id="mlp"),
    pytest.param(CNNConfig(widths=(4, 6), norm="frn"), (1, 8, 8), id="cnn"),
    pytest.param(CNNConfig(widths=(4, 6)), (2, 8, 8), id="cnn-no-norm"),
    pytest.param(ResNetConfig(), (3, 8, 8), id="resnet"),
]
KINDS = [
    "weight_asymmetric",
    "sigma_asymmetric",
    "init_matched",
    "parameter_matched",
    "block_fixed",
]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(config, input_shape, num_outputs=4, seed=0, **keys):
    config = dataclasses.replace(
        config, symmetry=SymmetryConfig(**{"kind": "weight_asymmetric", **keys})
    )
    return build_network(config, input_shape=input_shape, num_outputs=num_outputs, seed=seed)


def fixed_a_row(net):
    return {
        name: int((~module.mask[0]).sum())
        for name, module in net.named_modules()
        if isinstance(module, FixedEntries)
    }


def spread(net, name):
    layer = net.get_submodule(name)
    return float(layer.fixed[~layer.mask].double().square().mean().sqrt())


def number_of_parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


# -- the rules of auto


def test_auto_gives_the_papers_mlp():
    net = build(MLPConfig(widths=(512, 512, 512), activation="gelu", norm="layer"), (784,), 10)
    assert list(fixed_a_row(net).values()) == [64, 64, 64, 256]
    assert number_of_parameters(net) == 834_570
    # Thousands of normals each: their standard deviation is within 5 %.
    wanted = {"layers.0": 1.0, "layers.1": 1.0, "layers.2": 0.5, "head": 0.25}
    assert {name: round(spread(net, name) * 20) / 20 for name in wanted} == wanted


def test_auto_gives_the_papers_resnet_20():
    net = build(ResNetConfig(), (3, 32, 32), 10)
    counts = fixed_a_row(net)
    stages = {name: count for name, count in counts.items() if "conv" in name and "stages" in name}
    assert counts["stem.conv"] == 12
    assert {count for name, count in stages.items() if name.startswith("stages.0")} == {36}
    for stage, conv, shortcut in ((1, 54, 6), (2, 72, 8)):
        of_stage = {
            name: count for name, count in stages.items() if name.startswith(f"stages.{stage}")
        }
        assert of_stage.pop(f"stages.{stage}.0.shortcut.conv") == shortcut
        assert set(of_stage.values()) == {conv}
    assert counts["head"] == 8
    assert number_of_parameters(net) == 272_474 - 42_448
    assert all(abs(spread(net, name) - 3) < 0.5 for name in counts)


def test_auto_without_norms_keeps_the_variance_of_he_initialization():
    net = build(CNNConfig(widths=(32, 32)), (3, 8, 8))
    for name, count in fixed_a_row(net).items():
        assert abs(spread(net, name) ** 2 * count / 2 - 1) < 0.4  # tens of normals or more
    with_norm = build(CNNConfig(widths=(32, 32), norm="layer"), (3, 8, 8))
    assert abs(spread(with_norm, "blocks.1.conv") - 3) < 0.3


def test_auto_is_raised_until_rows_can_differ():
    # round(min(6, 100) / 8) = 1 fixed entry of 6 inputs would be 6 rows; 3 are 20, the first to be
    # enough for 18.
    assert fixed_a_row(build(MLPConfig(widths=(18,)), (6,)))["layers.0"] == 3
    with pytest.raises(ConfigError, match=r"layers.0: .* it has 64.*type fixed_per_row=\[0,8,32\]"):
        build(MLPConfig(), (4,))
    net = build(MLPConfig(), (4,), fixed_per_row=(0, 8, 32))
    assert fixed_a_row(net) == {"layers.1": 8, "head": 32}
    assert type(net.layers[0]) is nn.Linear


def test_auto_with_filters_and_densest():
    counts = fixed_a_row(build(ResNetConfig(), (3, 8, 8), mask="filters"))
    assert "stem.conv" not in counts  # 3 input channels cannot distinguish 16 output channels
    assert counts["stages.0.0.conv1"] == 4 * 9
    assert counts["stages.1.0.conv1"] == 6 * 9
    net = build(MLPConfig(widths=(9,)), (8,), mask="densest")
    assert (~net.layers[0].mask).sum() == 8
    assert (~net.head.mask).sum() == 3


@pytest.mark.parametrize("mask", ["random", "densest", "filters"])
@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_rows_of_every_mask_differ_and_have_a_free_entry(config, input_shape, mask):
    net = build(config, input_shape, mask=mask)
    layers = [module for module in net.modules() if isinstance(module, FixedEntries)]
    assert layers
    for layer in layers:
        rows = layer.mask.flatten(1)
        assert rows.any(1).all()
        assert len(rows.unique(dim=0)) == len(rows)


def test_numbers_and_lists_by_layer():
    net = build(MLPConfig(widths=(16, 12)), (10,), fixed_per_row=4, kappa=2.0)
    assert fixed_a_row(net) == {"layers.0": 4, "layers.1": 4, "head": 4}
    assert abs(spread(net, "layers.0") - 2) < 0.6
    net = build(MLPConfig(widths=(16, 12)), (10,), fixed_per_row=[3, 4, 5], kappa=[0.0, 1.0, 2.0])
    assert fixed_a_row(net) == {"layers.0": 3, "layers.1": 4, "head": 5}
    assert spread(net, "layers.0") == 0
    assert fingerprint(build(MLPConfig(widths=(16, 12)), (10,), fixed_per_row=0)) is None


def test_another_kappa_changes_the_factor_only():
    one, two = (build(MLPConfig(widths=(16,)), (10,), kappa=kappa) for kappa in (1.0, 2.5))
    assert torch.equal(one.layers[0].mask, two.layers[0].mask)
    torch.testing.assert_close(2.5 * one.layers[0].fixed, two.layers[0].fixed)
    assert fingerprint(one) != fingerprint(two)


# -- what asymmetrize promises


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_networks_of_every_kind_are_functions_for_vmap_and_trace(config, input_shape, kind):
    net = build(config, input_shape, kind=kind).double()
    x = normal(2, *input_shape)
    assert net.input_shape == input_shape
    torch.testing.assert_close(fx.symbolic_trace(net)(x), net(x), rtol=0, atol=0)
    parameters = {name: value.detach() for name, value in net.named_parameters()}
    assert torch.equal(functional_call(net, effective_parameters(net, parameters), (x,)), net(x))

    def loss(values, point):
        return functional_call(net, values, (point[None],)).square().sum()

    single = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    net(x).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(single[name].sum(0), parameter.grad, rtol=1e-7, atol=1e-8)


def test_no_permutation_of_hidden_units_is_left():
    """Swapping two units of the effective weights moves fixed entries: no two rows of a mask are
    the same."""
    net = build(MLPConfig(widths=(8,)), (6,))
    mask = net.layers[0].mask
    assert all(not torch.equal(mask[i], mask[j]) for i, j in combinations(range(8), 2))


def test_the_module_given_is_not_changed_and_free_entries_keep_their_values():
    plain = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    net = asymmetrize(plain)
    assert all(type(plain[i]) is nn.Linear for i in (0, 2))
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())
    assert torch.equal(net[0].weight, plain[0].weight[net[0].mask])
    assert [name for name, _ in net.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    root = asymmetrize(nn.Linear(10, 8))
    assert isinstance(root, FixedEntries)
    assert root.embed(root.weight).shape == (8, 10)
    assert not isinstance(asymmetrize(plain, kind="standard")[0], FixedEntries)


def test_layers_that_read_their_weights_otherwise_stay_as_they_are():
    attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    net = asymmetrize(attention, fixed_per_row=2)
    assert set(fixed_a_row(net)) == {"linear1", "linear2"}
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    wanted = net(x)
    with (
        torch.inference_mode()
    ):  # where the layer would take its fast path, past the forward of linear1
        torch.testing.assert_close(net.eval()(x), wanted)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    with pytest.raises(ConfigError, match=r"no layer that is exactly nn.Linear"):
        asymmetrize(normed)


def test_a_layer_that_is_used_twice_has_one_mask_and_tied_weights_are_refused():
    layer = nn.Linear(6, 6)
    net = asymmetrize(nn.Sequential(layer, nn.ReLU(), layer))
    assert net[0] is net[2]
    assert isinstance(net[0], FixedEntries)
    tied = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match=r"the weight 0.weight = 1.weight is shared"):
        asymmetrize(tied)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"fixed_per_row": (1, 2)},
            r"fixed_per_row: got 2 values, want one, .* the 3 layers: layers.0, layers.1, head",
        ),
        (
            {"kappa": (1.0,)},
            r"kappa: got 1 values, want one, or one for each of the 3 layers: ",
        ),
        ({"fixed_per_row": 10}, "layers.0: fixed_per_row=10 leaves nothing trainable of 10 inputs"),
        (
            {"fixed_per_row": 4, "mask": "densest"},
            "fixed_per_row=4 with mask=densest, which chooses",
        ),
        (
            {"fixed_per_row": 1},
            "layers.0: with 1 of 10 inputs fixed only 10 rows can differ, but it has 16",
        ),
        (
            {"kind": "block_fixed", "block": 3},
            "layers.0: 16 units of .* cannot be divided into blocks of 3",
        ),
        (
            {"kind": "block_fixed", "block": 4, "fixed_per_row": (2, 3, 4)},
            "layers.1: 3 fixed entries per row cannot be",
        ),
        (
            {"kind": "block_fixed", "block": 4, "fixed_per_row": (4, 4, 4)},
            "with one row and one input for each block of 4, head: with 1 of 3 inputs fixed only 3 "
            "rows",
        ),
        (
            {"kind": "block_fixed", "block": 2, "mask": "densest"},
            "block_fixed with block=2 needs as many",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(keywords, message):
    with pytest.raises(ConfigError, match=message):
        build(MLPConfig(widths=(16, 12)), (10,), **keywords)


@pytest.mark.parametrize(
    "keywords", [{"kappa": -1.0}, {"block": 0}, {"fixed_per_row": -3}, {"gate_scale": 0.0}]
)
def test_settings_out_of_range_are_refused(keywords):
    with pytest.raises(ConfigError, match=f"{next(iter(keywords))}: got"):
        asymmetrize(nn.Linear(4, 4), **keywords)


def test_a_users_module_keeps_its_values_and_gets_masks(tmp_path, monkeypatch):
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.Tanh(), nn.Linear(8, "
        "num_outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    standard = build(ModuleConfig(factory="nets_of_mine:build"), (6,), kind="standard")
    net = build(ModuleConfig(factory="nets_of_mine:build"), (6,))
    assert torch.equal(net[0].weight, standard[0].weight[net[0].mask])
    started = build(ModuleConfig(factory="nets_of_mine:build"), (6,), kind="init_matched")
    assert torch.equal(started[0].weight, net[0].effective_weight())


# -- initial values


@pytest.mark.parametrize(("config", "input_shape"), NETWORKS)
def test_the_same_seed_means_the_same_values_in_every_kind(config, input_shape):
    standard = build(config, input_shape, kind="standard", seed=3)
    asymmetric = build(config, input_shape, seed=3)
    started = build(config, input_shape, kind="init_matched", seed=3)
    whole = effective_parameters(asymmetric, dict(asymmetric.named_parameters()))
    for name, value in standard.named_parameters():
        layer = asymmetric.get_submodule(name.rpartition(".")[0])
        if name.endswith("weight") and isinstance(layer, FixedEntries):
            assert torch.equal(whole[name], torch.where(layer.mask, value, layer.fixed))
        else:
            assert torch.equal(whole[name], value)
        assert torch.equal(started.get_parameter(name), whole[name])
    # Also when another seed draws them again.
    for net in (standard, asymmetric, started):
        initialize(net, 4)
    layer, name = next((m, n) for n, m in asymmetric.named_modules() if isinstance(m, FixedEntries))
    assert torch.equal(layer.weight, standard.get_submodule(name).weight[layer.mask])
    assert torch.equal(started.get_submodule(name).weight, layer.effective_weight())


def test_init_matched_is_an_ordinary_network():
    net = build(MLPConfig(widths=(16,)), (10,), kind="init_matched")
    standard = build(MLPConfig(widths=(16,)), (10,), kind="standard")
    assert fingerprint(net) is None
    assert number_of_parameters(net) == number_of_parameters(standard)
    standard.load_state_dict(net.state_dict())


# -- blocks


def test_blocks_of_one_unit_are_the_asymmetric_network():
    assert fingerprint(build(MLPConfig(), (64,), kind="block_fixed", block=1)) == fingerprint(
        build(MLPConfig(), (64,))
    )


@pytest.mark.parametrize("block", [2, 4, 8])
def test_units_of_a_block_are_interchangeable_and_no_others(block):
    net = build(
        MLPConfig(widths=(32, 32)),
        (20,),
        5,
        kind="block_fixed",
        block=block,
        fixed_per_row=(8, 8, 16),
    ).double()
    reference = build(MLPConfig(widths=(32, 32)), (20,), 5, fixed_per_row=(8, 8, 16))
    assert number_of_parameters(net) == number_of_parameters(reference)
    assert fixed_a_row(net) == fixed_a_row(reference)
    hidden = net.layers[1]
    for unit in range(32):
        same = torch.equal(hidden.mask[unit], hidden.mask[0])
        assert same == (unit < block)
        assert torch.equal(hidden.fixed[unit], hidden.fixed[0]) == (unit < block)
    # Rows and columns of a block go together: swapping two of its units leaves masks and values as
    # they are.
    order = torch.arange(32)
    order[[0, block - 1]] = order[[block - 1, 0]]
    for name in ("mask", "fixed"):
        assert torch.equal(getattr(net.layers[0], name)[order], getattr(net.layers[0], name))
        assert torch.equal(getattr(net.layers[1], name)[:, order], getattr(net.layers[1], name))


def test_blocks_of_channels_reach_through_a_flatten():
    net = build(
        CNNConfig(widths=(4, 8)), (1, 8, 8), kind="block_fixed", block=2, fixed_per_row=(2, 6, 8)
    )
    conv, head = net.blocks[1].conv, net.head
    assert (~conv.mask).flatten(1).sum(1).tolist() == [6] * 8
    swap_out = [1, 0, *range(2, 8)]
    assert torch.equal(conv.mask[swap_out], conv.mask)
    assert torch.equal(conv.fixed[:, [1, 0, 2, 3]], conv.fixed)
    maps = head.fixed.unflatten(1, (8, -1))
    assert torch.equal(maps[:, swap_out], maps)
    assert not torch.equal(maps[:, [2, 1, 0, *range(3, 8)]], maps)


# -- fingerprints

SCRIPT = """
from bnn_symm.architectures import *
mlp = MLPConfig(symmetry=SymmetryConfig(kind="weight_asymmetric"))
cnn = CNNConfig(symmetry=SymmetryConfig(kind="sigma_asymmetric"))
print(*(fingerprint(build_network(c, input_shape=(1, 8, 8), num_outputs=10)) for c in (mlp, cnn)))
"""


@pytest.mark.thorough
def test_two_processes_have_the_same_fingerprints():
    printed = []
    for changes in (
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "2", "ATEN_CPU_CAPABILITY": "default"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, **changes},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.append(done.stdout.split())
    here = [
        fingerprint(build(MLPConfig(), (1, 8, 8), 10)),
        fingerprint(build(CNNConfig(), (1, 8, 8), 10, kind="sigma_asymmetric")),
    ]
    assert printed[0] == printed[1] == here


def test_fingerprints_see_what_is_fixed_and_nothing_else():
    net = build(MLPConfig(), (64,))
    known = fingerprint(net)
    assert fingerprint(build(MLPConfig(), (64,), seed=7)) == known  # another initial value
    assert fingerprint(build(MLPConfig(), (64,)).double()) == known
    assert set(fixed_buffers(net)) == {
        f"{n}.{b}" for n in ("layers.0", "layers.1", "head") for b in ("mask", "fixed")
    }
    assert fingerprint(build(MLPConfig(), (64,), kind="standard")) is None
    others = [
        asymmetrize(build(MLPConfig(), (64,), kind="standard"), seed=1),
        build(MLPConfig(), (64,), fixed_per_row=9),
        build(MLPConfig(), (64,), kind="sigma_asymmetric"),
        build(MLPConfig(), (64,), kind="block_fixed", block=2),
    ]
    assert len({fingerprint(other) for other in others} | {known}) == 5


def test_saved_buffers_replace_those_that_were_made():
    source, target = (build(MLPConfig(widths=(8,)), (9,)) for _ in range(2))
    other = asymmetrize(build(MLPConfig(widths=(8,)), (9,), kind="standard"), seed=5)
    assert fingerprint(other) != fingerprint(source)
    load_fixed_buffers(other, fixed_buffers(source))
    assert fingerprint(other) == fingerprint(source) == fingerprint(target)
    with torch.no_grad():
        for name, value in source.named_parameters():
            other.get_parameter(name).copy_(value)
    x = torch.ones(2, 9)
    assert torch.equal(other(x), source(x))
    wrong = fixed_buffers(source)
    wrong["layers.0.mask"] = torch.ones_like(wrong["layers.0.mask"])
    del wrong["head.fixed"]
    with pytest.raises(
        IncompatiblePosteriors, match=r"head.fixed is missing; layers.0.mask has 72 free entries"
    ):
        load_fixed_buffers(other, wrong)
