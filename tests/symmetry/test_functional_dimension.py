"""The rank of the Jacobian agrees with the known continuous symmetries, or exceeds them by hand."""

import pytest
import torch
from torch import nn

from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.symmetry import continuous_symmetries, symmetry_group
from bnn_symm.symmetry.functional_dimension import functional_dimension

INPUTS = 8


def found(net, *, softmax=False):
    group = symmetry_group(net, input_shape=(INPUTS,))
    symmetries = continuous_symmetries(
        net, group.spec, group.fixed, input_shape=(INPUTS,), softmax=softmax
    )
    known = sum(own.dimensions for own in symmetries)
    return functional_dimension(net, known, input_shape=(INPUTS,), softmax=softmax)


def mlp(widths, activation, *, outputs=2, norm="none", **symmetry):
    config = MLPConfig(
        widths=widths, activation=activation, norm=norm, symmetry=SymmetryConfig(**symmetry)
    )
    return build_network(config, input_shape=(INPUTS,), num_outputs=outputs)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu"])
@pytest.mark.parametrize("widths", [(), (5,), (6, 4)])
def test_smooth_networks_have_the_known_symmetries_only(widths, activation, norm, softmax):
    result = found(mlp(widths, activation, norm=norm), softmax=softmax)
    assert result.hidden == 0
    assert result.parameters - result.dimension == result.known
    assert result.gap > 1e6


@pytest.mark.parametrize(
    "symmetry",
    [
        {},
        {"kind": "init_matched"},
        {"kind": "weight_asymmetric", "fixed_per_row": (2, 2)},
        {"kind": "sigma_asymmetric"},
    ],
    ids=lambda symmetry: symmetry.get("kind", "standard"),
)
def test_one_layer_of_relu_has_the_known_symmetries_only(symmetry):
    result = found(mlp((6,), "relu", **symmetry))
    assert result.hidden == 0
    assert result.known == (6 if symmetry.get("kind") in (None, "init_matched") else 0)


def test_hidden_symmetries_of_a_unit_that_no_point_activates():
    net = nn.Sequential(nn.Linear(INPUTS, 5), nn.ReLU(), nn.Linear(5, 2))
    torch.manual_seed(0)
    nn.init.normal_(net[0].weight)
    nn.init.normal_(net[2].weight)
    assert found(net).hidden == 0
    with torch.no_grad():
        net[0].bias[2] = -1e6
    # Its weights, bias and outgoing weights have no effect; one of these directions is its scale.
    assert found(net).hidden == INPUTS + 1 + 2 - 1


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent = kind(2, 3, batch_first=True)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.recurrent(x)[0][:, -1])


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "sums"), [(nn.GRU, 2), (nn.LSTM, 4)])
def test_two_biases_of_a_recurrent_gate_have_one_effect(kind, sums):
    result = functional_dimension(Recurrent(kind), 0, input_shape=(4, 2))
    # The candidate of a GRU multiplies one of its biases by a gate.
    assert result.hidden == 3 * sums


def test_a_network_of_tokens():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(12, 2))
    result = functional_dimension(net, 0, input_shape=(4,))
    # Adding one vector to all embeddings is undone by the bias, and an invertible map of embeddings
    # by the weights.
    assert result.hidden == 3 + 3 * 3
