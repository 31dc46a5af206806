"""Claims about symmetries on networks where a careless count goes wrong."""

import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Split
from bnn_symm.diagnostics import symmetry_defect
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.symmetry import continuous_symmetries, permutation_spec, rescale
from bnn_symm.symmetry.derive import random_values, relative_difference
from bnn_symm.symmetry.group.fixed_values import fixed_entries

from .networks import Attention, convolutions


def found(net, shape, kind):
    spec = permutation_spec(net, shape)
    return {
        c.where: (c.dimensions, c.removed)
        for c in continuous_symmetries(
            net, spec, fixed_entries(net), input_shape=shape, softmax=True
        )
        if c.kind == kind
    }


def test_units_tied_to_each_other_alone_keep_one_scaling():
    net = build_network(
        MLPConfig(
            widths=(6, 5),
            symmetry=SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(0, 3, 0)),
        ),
        input_shape=(4,),
        num_outputs=3,
    )
    assert sum(d for d, _ in found(net, (4,), "positive scaling").values()) == 1


def test_no_shift_behind_a_nonlinearity():
    assert (
        found(
            nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()),
            (3,),
            "shift of the softmax",
        )
        == {}
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4)

    def forward(self, x):
        h = self.first(x)
        return h + self.outer(self.inner(h).relu())


def test_only_layers_that_end_in_the_outputs_shift():
    assert set(found(Residual(), (3,), "shift of the softmax")) == {"outer.weight", "outer.bias"}


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.unused, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.read(x).relu())


def test_an_unused_layer_is_before_no_norm():
    assert found(Unused(), (3,), "scale before a norm") == {}


def test_grouped_convolutions_rescale():
    net = convolutions(2, 4, 8).double()
    spec = permutation_spec(net, (2, 6, 6))
    v = random_values(net, 0)
    factors = {n: torch.full((g.size,), 2.0) for n, g in spec.groups.items() if n in ("0", "2")}
    assert (
        relative_difference(net, v, rescale(spec, v, factors), torch.randn(3, 2, 6, 6).double())
        < 1e-12
    )
    assert found(net, (2, 6, 6), "positive scaling")["0"] == (4, 0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head = Attention(8, 4), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.a(x).mean(1))


def test_the_reference_of_heads_is_a_scramble():
    torch.manual_seed(0)
    net = Net()
    model = BayesianModel(net, Prior(), Categorical())
    d = symmetry_defect(
        model, Split(x=torch.randn(20, 4, 8), y=torch.randint(3, (20,))), model.initial()
    )
    assert d.reference > 1e-3


def test_nothing_is_listed_where_everything_moves(tmp_path, monkeypatch, capsys):
    from bnn_symm.cli import main

    monkeypatch.chdir(tmp_path)
    main(["symmetry", "--set", "architecture.name=cnn", "data={name: digits, limit: 200}"])
    assert "interchangeable: blocks" not in capsys.readouterr().out
