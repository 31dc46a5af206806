"""The invariant network is unchanged by the symmetry group, and distinguishes all else."""

import pytest
import torch
from torch import nn

from bnn_symm import (
    BayesianModel,
    CNNConfig,
    MLPConfig,
    Prior,
    SymmetryConfig,
    build_network,
    symmetry_group,
)
from bnn_symm.likelihoods import Categorical
from bnn_symm.zoo.invariant_network import InvariantNetwork
from bnn_symm.zoo.weight_blocks import WeightLayout
from tests.symmetry.networks import Shortcuts, TorchAttention, Transformer, convolutions


def mlp(activation="relu", **symmetry):
    config = MLPConfig(
        widths=(6, 6), activation=activation, norm="layer", symmetry=SymmetryConfig(**symmetry)
    )
    return build_network(config, input_shape=(6,), num_outputs=6, seed=0)


NETWORKS = {
    "mlp": (lambda: mlp(), (6,)),
    "mlp whose units may flip": (lambda: mlp("tanh"), (6,)),
    "mlp without symmetry": (lambda: mlp(kind="weight_asymmetric", fixed_per_row=3), (6,)),
    "mlp with a smaller group": (
        lambda: mlp(kind="block_fixed", block=3, fixed_per_row=(3, 3, 0)),
        (6,),
    ),
    "mlp with a smaller group and flips": (
        lambda: mlp("tanh", kind="block_fixed", block=2, fixed_per_row=(2, 2, 0)),
        (6,),
    ),
    "cnn": (
        lambda: build_network(
            CNNConfig(widths=(3, 4)), input_shape=(1, 8, 8), num_outputs=2, seed=0
        ),
        (1, 8, 8),
    ),
    "residual": (lambda: Shortcuts(from_input=False), (6,)),
    "grouped convolutions": (lambda: convolutions(groups=2), (2, 4, 4)),
    "attention": (lambda: Transformer(lambda width: TorchAttention(width, 2)), (4, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_invariant_under_the_symmetry_group(name):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = build().double()
    model = BayesianModel(net, Prior(), Categorical())
    group = symmetry_group(net, input_shape=shape)
    layout = WeightLayout.of(group, model)
    network = InvariantNetwork(layout, 2).double()
    weights = torch.randn(4, model.num_parameters, dtype=torch.float64)
    permuted = torch.stack(
        [model.permute(own, group.random(0, number)) for number, own in enumerate(weights)]
    )
    assert group.is_trivial or not torch.equal(weights, permuted)
    with torch.no_grad():
        first, second, others = (
            network(*layout.arrays(model, own)) for own in (weights, permuted, weights.flip(1))
        )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)
    assert (first - others).abs().min() > 1e-6


def test_units_that_the_group_distinguishes_are_distinguished():
    # Without symmetry, an exchange of two units changes the output.
    net = mlp(kind="weight_asymmetric", fixed_per_row=3)
    model = BayesianModel(net, Prior(), Categorical())
    layout = WeightLayout.of(symmetry_group(net, input_shape=(6,)), model)
    assert [len(orbit.unique()) for orbit in layout.orbits.values()] == [6, 6]
    torch.manual_seed(0)
    network = InvariantNetwork(layout, 1)
    blocks = layout.arrays(model, torch.randn(1, model.num_parameters))
    exchanged = [
        block[:, [1, 0, 2, 3, 4, 5]] if own.groups[:1] == (next(iter(layout.orbits)),) else block
        for block, own in zip(blocks, layout.blocks, strict=True)
    ]
    with torch.no_grad():
        assert (network(*blocks) - network(*exchanged)).abs().item() > 1e-4


def test_entries_are_arranged_by_their_units():
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    model = BayesianModel(net, Prior(), Categorical())
    layout = WeightLayout.of(symmetry_group(net, input_shape=(1, 3, 3)), model)
    weights = torch.randn(5, model.num_parameters)
    values = model.unflatten(weights)
    arrays = {
        block.tensor: value
        for block, value in zip(layout.blocks, layout.arrays(model, weights), strict=True)
    }
    assert torch.equal(arrays["0.weight"], values["0.weight"].reshape(5, 3, 4))
    # (output, channel, position) of the flattened map -> (channel, output and position)
    head = values["3.weight"].reshape(5, 2, 3, 4).movedim(2, 1).reshape(5, 3, 8)
    assert torch.equal(arrays["3.weight"], head)
    assert torch.equal(arrays["3.bias"], values["3.bias"])
