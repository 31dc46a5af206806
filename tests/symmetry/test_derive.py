"""Derived specs: against hand-written ones, against known orders, on random widths, and
refusals."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.architectures import (
    ArchitectureConfig,
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    build_network,
)
from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry import PermutationSpec, permutation_spec
from bnn_symm.symmetry.derive import random_values, relative_difference
from bnn_symm.symmetry.tracing.tracer import RULES, rule

from .networks import NETWORKS, log10_factorial

# -- hand-written: tensor name -> one word an axis: a group, or "-" for what stays


def mlp_by_hand(depth: int, norm: bool) -> dict[str, str]:
    spec = {}
    for layer in range(depth):
        before = f"h{layer - 1}" if layer else "-"
        spec |= {
            f"layers.{layer}.weight": f"h{layer} {before}",
            f"layers.{layer}.bias": f"h{layer}",
        }
        if norm:
            spec |= {f"norms.{layer}.weight": f"h{layer}", f"norms.{layer}.bias": f"h{layer}"}
    return spec | {"head.weight": f"- h{depth - 1}", "head.bias": "-"}


def cnn_by_hand(depth: int) -> dict[str, str]:
    spec = {}
    for block in range(depth):
        before = f"c{block - 1}" if block else "-"
        spec |= {
            f"blocks.{block}.conv.weight": f"c{block} {before} - -",
            f"blocks.{block}.conv.bias": f"c{block}",
        }
        spec |= {
            f"blocks.{block}.norm.weight": f"c{block}",
            f"blocks.{block}.norm.bias": f"c{block}",
        }
        spec |= {f"blocks.{block}.activation.tau": f"c{block}"}
    return spec | {"head.weight": f"- c{depth - 1}", "head.bias": "-"}


def resnet20_by_hand() -> dict[str, str]:
    """One group a stage for the residual stream (the first stage's begins at the stem), one within
    each block."""
    spec = {"stem.conv.weight": "s0 - - -", "stem.norm.weight": "s0", "stem.norm.bias": "s0"}
    for stage in range(3):
        for block in range(3):
            at, stream, inner = f"stages.{stage}.{block}", f"s{stage}", f"b{stage}{block}"
            before = f"s{stage - 1}" if stage and not block else stream
            spec |= {
                f"{at}.conv1.weight": f"{inner} {before} - -",
                f"{at}.conv2.weight": f"{stream} {inner} - -",
            }
            spec |= {f"{at}.norm1.{kind}": inner for kind in ("weight", "bias")}
            spec |= {f"{at}.norm2.{kind}": stream for kind in ("weight", "bias")}
            if stage and not block:
                spec |= {f"{at}.shortcut.conv.weight": f"{stream} {before} - -"}
                spec |= {f"{at}.shortcut.norm.{kind}": stream for kind in ("weight", "bias")}
    return spec | {"head.weight": "- s2", "head.bias": "-"}


def as_words(spec: PermutationSpec) -> dict[str, str]:
    def word(axis):
        (segment,) = axis
        return segment.group or "-"

    return {name: " ".join(word(axis) for axis in axes) for name, axes in spec.axes.items()}


def same_up_to_names(derived: dict[str, str], by_hand: dict[str, str]) -> bool:
    """One-to-one between the words of the two."""
    if set(derived) != set(by_hand):
        return False
    pairs = {
        pair
        for name in derived
        for pair in zip(derived[name].split(), by_hand[name].split(), strict=True)
    }
    return (
        len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        and ("-", "-") in pairs
    )


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "silu"])
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("widths", [(5,), (5, 4), (3, 3, 3)])
def test_mlp_as_written_by_hand(widths, norm, activation):
    config = MLPConfig(widths=widths, norm=norm, activation=activation)
    spec = permutation_spec(build_network(config, input_shape=(6,), num_outputs=2), (6,))
    assert same_up_to_names(as_words(spec), mlp_by_hand(len(widths), norm == "layer"))
    assert [group.size for group in spec.groups.values()] == list(widths)
    assert all(group.signed == (activation == "tanh") for group in spec.groups.values())


def test_cnn_as_written_by_hand():
    net = build_network(
        CNNConfig(widths=(3, 4, 5), norm="frn"), input_shape=(2, 12, 12), num_outputs=2
    )
    spec = permutation_spec(net, (2, 12, 12))
    assert same_up_to_names(as_words(spec), cnn_by_hand(3))
    (segment,) = spec.axes["head.weight"][1]
    assert (segment.size, segment.inner) == (5, 9)  # 12 x 12 halved twice, and 3 x 3 not any more


def test_resnet20_as_written_by_hand():
    net = build_network(ResNetConfig(), input_shape=(3, 8, 8), num_outputs=4)
    spec = permutation_spec(net, (3, 8, 8))
    assert same_up_to_names(as_words(spec), resnet20_by_hand())
    assert sorted(group.size for group in spec.groups.values()) == [16] * 4 + [32] * 4 + [64] * 4


def test_the_comparison_sees_a_wrong_spec():
    right = resnet20_by_hand()
    assert same_up_to_names(right, right)
    assert not same_up_to_names({**right, "stages.1.0.conv1.weight": "b10 s1 - -"}, right)
    assert not same_up_to_names({**right, "head.bias": "s2"}, right)


# -- known orders


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_is_that_of_the_formula(name):
    torch.manual_seed(0)
    build, input_shape, expected = NETWORKS[name]
    assert permutation_spec(build(), input_shape).log10_order == pytest.approx(expected, abs=1e-9)


WIDTHS = st.lists(st.integers(2, 7), min_size=1, max_size=3)


@pytest.mark.thorough
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_elements_leave_outputs_unchanged(data):
    """For every architecture with random widths; and a permutation of one tensor alone changes
    them."""
    kind = data.draw(st.sampled_from(["mlp", "cnn", "resnet"]))
    config: ArchitectureConfig
    if kind == "mlp":
        config = MLPConfig(
            widths=tuple(data.draw(WIDTHS)),
            norm=data.draw(st.sampled_from(["none", "layer"])),
            activation=data.draw(st.sampled_from(["relu", "gelu", "tanh", "silu"])),
        )
    elif kind == "cnn":
        config = CNNConfig(
            widths=tuple(data.draw(WIDTHS)),
            norm=data.draw(st.sampled_from(["none", "layer", "frn"])),
            activation=data.draw(st.sampled_from(["relu", "tanh"])),
        )
    else:
        config = ResNetConfig(norm=data.draw(st.sampled_from(["layer", "frn"])))
    shape = (2, 8, 8)
    net = build_network(config, input_shape=shape, num_outputs=3).double()
    spec = permutation_spec(net, shape)
    values = random_values(net, data.draw(st.integers(0, 9)))
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    permuted = spec.random(data.draw(st.integers(0, 9))).apply(values)
    assert relative_difference(net, values, permuted, x) <= 1e-10

    if kind != "resnet" and config.activation == "relu":
        return  # few units may all be off at every point, and nothing that is done to them shows
    if kind == "mlp" and config.norm == "layer" and 2 in config.widths:
        # Two normalized units are 1 and -1 at nearly every point: a change of sign may not show.
        return
    group = data.draw(st.sampled_from(sorted(spec.groups)))
    order = torch.arange(spec.groups[group].size).roll(1)
    half = spec.permutation({group: order}).apply(values)
    name = spec.tensors_of(group)[-1]  # what reads the units, left as it was
    half[name] = values[name]
    assert relative_difference(net, values, half, x) > 1e-6


def test_standard_networks_have_a_factorial_a_group():
    net = build_network(MLPConfig(widths=(11, 200)), input_shape=(3,), num_outputs=2)
    assert permutation_spec(net, (3,)).log10_order == pytest.approx(log10_factorial(11, 200))
    linear = build_network(MLPConfig(widths=()), input_shape=(3,), num_outputs=2)
    assert permutation_spec(linear, (3,)).groups == {}


def test_weights_that_nothing_reads_have_no_symmetry():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.unread = nn.Linear(3, 2), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(x)

    spec = permutation_spec(Unused(), (3,))
    assert spec.groups == {}
    assert set(spec.axes) == {"read.weight", "read.bias"}


def test_shared_weights_tie_both_layers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner = nn.Linear(2, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(self.inner(self.first(x).relu()).relu()).relu())

    spec = permutation_spec(Tied(), (2,))
    assert [group.size for group in spec.groups.values()] == [4]


def test_powers_of_positive_factors():
    """A relu unit may be made twice as large where it is made, and read half as large."""
    net = build_network(MLPConfig(widths=(4, 3)), input_shape=(5,), num_outputs=2).double()
    spec = permutation_spec(net, (5,))
    factor = torch.tensor([2.0, 0.5, 3.0, 1.5], dtype=torch.float64)
    values = random_values(net, 0)
    scaled = {}
    for name, value in values.items():
        for dim, axis in enumerate(spec.axes[name]):
            if axis[0].group == "layers.0":
                value = value * (factor ** axis[0].scale).reshape(
                    [-1] + [1] * (value.dim() - dim - 1)
                )
        scaled[name] = value
    assert not torch.equal(scaled["layers.1.weight"], values["layers.1.weight"])
    x = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert relative_difference(net, values, scaled, x) < 1e-12
    gelu = build_network(
        MLPConfig(widths=(4, 3), activation="gelu"), input_shape=(5,), num_outputs=2
    )
    assert all(
        s.scale == 0
        for axes in permutation_spec(gelu, (5,)).axes.values()
        for axis in axes
        for s in axis
    )


# -- refusals


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.fft(self.first(x), dim=1).real)


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sort(self.first(x), dim=1).values)


def test_an_unknown_operation_is_named_with_its_line():
    lines, start = inspect.getsourcelines(Spectrum)
    line = start + next(i for i, text in enumerate(lines) if "torch.fft" in text)
    with pytest.raises(
        SymmetryError, match=rf"no rule for the operation 'fft_fft' at .*test_derive\.py:{line} "
    ) as caught:
        permutation_spec(Spectrum(), (3,))
    assert "torch.fft.fft(self.first(x), dim=1)" in str(caught.value)


def test_an_unknown_operation_on_inputs_is_no_matter():
    class OfInputs(Spectrum):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.first(torch.fft.fft(x, dim=1).real).relu())

    assert [group.size for group in permutation_spec(OfInputs(), (3,)).groups.values()] == [4]


def test_a_rule_of_ones_own_is_not_believed(monkeypatch):
    """Sorting forgets the order of the units, but what reads them does not."""
    monkeypatch.setitem(RULES, "sort", lambda w, out, x, **keywords: (w.axes(x), None))
    with pytest.raises(SymmetryError, match="a permutation changes the outputs by"):
        permutation_spec(Sorted(), (3,))


def test_a_wrong_rule_is_caught_by_the_certificate(monkeypatch):
    """If relu were treated as odd, units could flip; a comparison of outputs shows the error."""
    monkeypatch.setitem(RULES, "relu", RULES["tanh"])
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(SymmetryError, match=r"a flip changes .* '0', in 0\.weight, 0\.bias, 2\.we"):
        permutation_spec(net)


def test_names_of_rules_are_given_once():
    with pytest.raises(AssertionError, match="relu"):
        rule("relu")(lambda: None)


@pytest.mark.parametrize(
    ("forward", "order"),
    [
        (lambda h: h[:, torch.tensor([0, 1, 2, 3])], 1),
        # Two blocks of two units, exchanged with each other: blocks move, and units in them do not.
        (lambda h: h.view(-1, 2, 2, 1, 1).permute(0, 2, 1, 3, 4).reshape(-1, 4), 2),
        (lambda h: torch.sort(h, dim=1).values, 1),
    ],
)
def test_units_that_labels_cannot_follow_are_counted(forward, order):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(forward(self.first(x)).relu())

    spec = permutation_spec(Net(), (3,))
    assert spec.log10_order == pytest.approx(math.log10(order))
    assert spec.num_frozen_units == 4
    assert spec.frozen_at is not None
    assert spec.frozen_at.startswith("test_derive.py:")


def test_units_told_apart_by_their_place_stay():
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = F.gelu(self.first(x))
            return self.head(torch.cat([h[:, :2] * 2, h[:, 2:]], dim=1))

    groups = permutation_spec(Picked(), (3,)).groups
    assert sorted(group.size for group in groups.values()) == [2, 3]


def test_the_input_shape_is_asked_for_where_nothing_says_it():
    with pytest.raises(SymmetryError, match="the input shape of a Sequential is unknown; pass"):
        permutation_spec(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert permutation_spec(net).log10_order == pytest.approx(math.log10(24))


def test_the_network_and_global_state_stay_as_they_were():
    net = build_network(MLPConfig(widths=(4,)), input_shape=(3,), num_outputs=2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    permutation_spec(net, (3,))
    assert torch.equal(torch.rand(3), wanted)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net(torch.zeros(2, 3)).dtype == torch.float32
    assert functional_call(net, before, (torch.zeros(1, 3),)).shape == (1, 2)
