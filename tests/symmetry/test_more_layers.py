"""Recurrent layers, grouped queries, fused projections, gates, experts and messages on graphs.

Orders are known, random elements keep the function, and elements beyond the group do not.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.zoo_networks import NETWORKS as ZOO
from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry import PermutationSpec, permutation_spec, symmetry_group
from bnn_symm.symmetry.derive import random_values, relative_difference

from .networks import log10_factorial
from .small_networks import Net, linear, parameter

TWO = math.log10(2)
STREAM = log10_factorial(8) + 8 * TWO  # of a network without norms, each unit of which may flip


class FusedProjection(nn.Module):
    """Queries, keys and values of one layer, cut in one of the layouts that libraries use."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.embed, self.norm = linear(3, 8), nn.LayerNorm(8)
        self.qkv, self.o, self.head = linear(8, 24), linear(8, 8), linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        n, t, _ = h.shape
        fused = self.qkv(self.norm(h))
        if self.layout == "kind, head, unit":
            q, k, v = fused.reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.layout == "head, kind, unit":
            parts = fused.view(n, t, 2, 3, 4)
            q, k, v = (parts[..., number, :].transpose(1, 2) for number in range(3))
        else:
            q, k, v = (part.view(n, t, 2, 4).transpose(1, 2) for part in fused.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.head((h + self.o(mixed.transpose(1, 2).flatten(2))).mean(1))


WITHIN_HEADS = log10_factorial(2) + 4 * (log10_factorial(4) + 4 * TWO)
FUSED = {  # layout -> log10 of the order, units that are not searched; a norm may flip the stream
    "kind, head, unit": (STREAM + WITHIN_HEADS, 0),
    "chunks": (STREAM + WITHIN_HEADS, 0),
    "head, kind, unit": (STREAM + log10_factorial(2), 24),  # heads, and not the units of a head
}


@pytest.mark.parametrize("layout", FUSED)
def test_fused_projections_of_every_layout(layout):
    spec = permutation_spec(FusedProjection(layout), (5, 3))
    assert (spec.log10_order, spec.num_frozen_units) == (
        pytest.approx(FUSED[layout][0], abs=1e-9),
        FUSED[layout][1],
    )


RECURRENT = log10_factorial(8) + 8 * TWO  # candidates are odd, so that each unit may flip
ORDERS = {  # network -> log10 of the order, units that are not searched
    "own: lstm, 2 layers": (2 * RECURRENT, 0),
    "own: lstm, bidirectional": (2 * RECURRENT, 0),
    "own: lstm, projected": (RECURRENT + log10_factorial(4) + 4 * TWO, 0),
    "own: gru, 2 layers": (2 * RECURRENT, 0),
    "own: rnn, relu": (log10_factorial(8), 0),
    "own: lstm cell": (RECURRENT, 0),
    "own: gru cell": (RECURRENT, 0),
    # Two groups of two query heads each; the order of units within a head is not searched.
    "own: grouped queries": (STREAM + log10_factorial(2, 2, 2), 32),
    "own: grouped queries, rotary": (STREAM + log10_factorial(2, 2, 2), 32),
    "own: multi-query": (STREAM + log10_factorial(4), 20),
    "own: local response norm": (0.0, 8),
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_that_of_the_formula(name):
    torch.manual_seed(0)
    net, shape = ZOO[name]()
    spec = permutation_spec(net, shape)
    assert (spec.log10_order, spec.num_frozen_units) == (
        pytest.approx(ORDERS[name][0], abs=1e-9),
        ORDERS[name][1],
    )


@pytest.mark.parametrize("name", [name for name in ZOO if name.startswith("own: ")])
def test_random_elements_keep_the_function(name):
    torch.manual_seed(0)
    net, shape = ZOO[name]()
    spec = permutation_spec(net, shape)
    net = net.double().eval()
    values, x = random_values(net, 1), torch.randn(5, *shape, dtype=torch.float64)
    for number in range(3):
        moved = spec.random(number).apply(values)
        assert relative_difference(net, values, moved, x) <= 1e-10


# -- what is no symmetry


def _changed(net: nn.Module, values: dict[str, Tensor], x: Tensor, order: dict) -> float:
    """The relative change of outputs if rows (dim 0) or columns of some tensors are reordered."""
    moved = {
        name: value.index_select(order[name][1], torch.tensor(order[name][0]))
        if name in order
        else value
        for name, value in values.items()
    }
    return relative_difference(net, values, moved, x)


def test_gates_move_only_together():
    """Of all choices of two orders for each gate, for what reads the units and for the head."""
    torch.manual_seed(0)
    net = Net(lambda s, x: s.head(s.rnn(x)[0].mean(1)), rnn=nn.LSTM(3, 2), head=linear(2, 2))
    net = net.double()
    values, x = random_values(net, 0), torch.randn(4, 5, 3, dtype=torch.float64)
    kept = []
    for swaps in itertools.product((False, True), repeat=6):
        rows = [2 * gate + (unit ^ swaps[gate]) for gate in range(4) for unit in range(2)]
        moved = dict(values)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            moved[f"rnn.{name}"] = moved[f"rnn.{name}"][rows]
        for name, swap in (("rnn.weight_hh_l0", swaps[4]), ("head.weight", swaps[5])):
            moved[name] = moved[name].flip(1) if swap else moved[name]
        if relative_difference(net, values, moved, x) <= 1e-10:
            kept.append(swaps)
    assert len(kept) == 2
    spec = permutation_spec(net, (5, 3))
    assert {name: group.size for name, group in spec.groups.items()} == {"rnn": 2}


def test_query_heads_stay_with_their_keys_and_rotated_units_in_their_place():
    torch.manual_seed(0)
    net, shape = ZOO["own: grouped queries, rotary"]()
    net = net.double()
    values, x = random_values(net, 0), torch.randn(4, *shape, dtype=torch.float64)

    def heads(order: list[int]) -> dict:
        rows = [4 * head + unit for head in order for unit in range(4)]
        return {"q.weight": (rows, 0), "q.bias": (rows, 0), "o.weight": (rows, 1)}

    assert _changed(net, values, x, heads([1, 0, 2, 3])) <= 1e-10  # the same keys
    assert _changed(net, values, x, heads([2, 1, 0, 3])) > 1e-6
    units = [1, 0, *range(2, 16)]
    swapped = {
        name: (units[: values[name].shape[0]], 0)
        for name in ("q.weight", "q.bias", "k.weight", "k.bias")
    }
    assert _changed(net, values, x, swapped) > 1e-6


def test_a_first_state_that_distinguishes_units_keeps_them():
    def forward(s: Net, x: Tensor) -> Tensor:
        start = torch.linspace(0.0, 1.0, 4).expand(1, x.shape[1], 4)
        return s.head(s.rnn(x, start)[0].mean(1))

    spec = permutation_spec(Net(forward, rnn=nn.GRU(3, 4), head=linear(4, 2)), (5, 3))
    assert (dict(spec.groups), spec.num_frozen_units) == ({}, 4)


def test_the_last_states_of_layers_have_units_of_their_own():
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.head(s.rnn(x)[1][-1])

    rnn = nn.GRU(3, 4, num_layers=2, batch_first=True)
    spec = permutation_spec(Net(forward, rnn=rnn, head=linear(4, 2)), (5, 3))
    assert (len(spec.groups), spec.num_frozen_units) == (2, 0)


def test_messages_keep_the_units_of_nodes():
    """A convolution over a graph by index_select and scatter_add, as libraries write it."""
    source, target = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 2])

    def forward(s: Net, x: Tensor) -> Tensor:
        h = s.a(x)
        sent = h.index_select(1, source)
        index = target[None, :, None].expand_as(sent)
        h = torch.zeros_like(h).scatter_add(1, index, sent).relu()
        return s.b(h.mean(1))

    spec = permutation_spec(Net(forward, a=linear(3, 4), b=linear(4, 2)), (3, 3))
    assert {name: group.size for name, group in spec.groups.items()} == {"a": 4}


def test_a_scale_of_all_heads_keeps_the_order_within_a_head():
    """Its units have one order in all heads, which a spec cannot express; heads are exchanged."""

    def forward(s: Net, x: Tensor) -> Tensor:
        h = s.a(x).view(-1, 2, 3) * s.g
        return s.b(h.flatten(1))

    spec = permutation_spec(Net(forward, a=linear(3, 6), b=linear(6, 2), g=parameter(3)), (3,))
    assert spec.log10_order == pytest.approx(log10_factorial(2))
    assert spec.num_frozen_units > 0


@pytest.mark.parametrize("bias", [True, False])
def test_units_that_a_bias_of_tokens_reaches_do_not_flip(bias):
    """Its value is added to all units of a token, whether they are flipped or not."""

    def forward(s: Net, x: Tensor) -> Tensor:
        return s.b(s.mix(s.a(x).mT).mT.mean(1))

    net = Net(forward, a=linear(3, 4), mix=nn.Linear(5, 6, bias=bias), b=linear(4, 2))
    spec = permutation_spec(net, (5, 3))
    expected = log10_factorial(4) + log10_factorial(6) + (0 if bias else 4 * TWO)
    assert (spec.log10_order, spec.num_frozen_units) == (pytest.approx(expected), 0)


def test_a_computed_factor_of_each_head_flips_no_units():
    """Units flip one by one, and heads move; flips of a factor with its whole head are counted."""

    def forward(s: Net, x: Tensor) -> Tensor:
        return s.b((s.a(x).view(-1, 2, 3) * s.w(x)[..., None]).flatten(1))

    spec = permutation_spec(Net(forward, a=linear(3, 6), w=linear(3, 2), b=linear(6, 2)), (3,))
    expected = log10_factorial(2) + 2 * log10_factorial(3) + 6 * TWO
    assert spec.log10_order == pytest.approx(expected)
    assert spec.num_unsearched_flips > 0


# -- operations without a rule


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = linear(3, 4), linear(4, 5), linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.fft.fft(self.first(x)).real).relu())


def test_units_of_an_operation_without_a_rule_are_held_and_counted():
    with pytest.raises(SymmetryError, match=r"'fft_fft' at .*test_more_layers\.py:\d+ .*hold=True"):
        permutation_spec(Spectrum(), (3,))
    group = symmetry_group(Spectrum(), input_shape=(3,), hold=True)
    spec: PermutationSpec = group.spec
    assert ({name: g.size for name, g in spec.groups.items()}, spec.num_frozen_units) == (
        {"second": 5},
        8,
    )
    assert spec.frozen_at is not None
    assert spec.frozen_at.startswith("test_more_layers.py:")
    assert "no symmetry was searched among them" in group.certificate
