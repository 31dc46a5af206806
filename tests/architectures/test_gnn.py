"""Graph networks: values, gradients, symmetries and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap

from bnn_symm.architectures import (
    GNNConfig,
    MLPConfig,
    SymmetryConfig,
    build_network,
    count_flops,
)
from bnn_symm.architectures.layers.neighbors import neighbor_mean
from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError, NotEnoughMemory
from bnn_symm.inference.variational.local_reparameterization import local_layers
from bnn_symm.io import memory
from bnn_symm.symmetry import permutation_spec, symmetry_group

RANDOM = np.random.default_rng(0)
NODES, FEATURES, CLASSES = 24, 5, 2
X = RANDOM.normal(size=(NODES, FEATURES))
Y = np.arange(NODES) % CLASSES
EDGES = RANDOM.integers(0, NODES - 1, size=(2, 40))  # the last node has no neighbors
DATA = Dataset.from_graph(X, Y, EDGES, dtype=torch.float64, standardize=False)
WIDTHS = (4, 4, 4)


def network(kind="standard", data=DATA, seed=0, **keywords):
    symmetry = SymmetryConfig(kind=kind, fixed_per_row=(2, 2, 2, 0), block=1)
    if kind == "block_fixed":
        symmetry = dataclasses.replace(symmetry, block=2)
    config = GNNConfig(**{"widths": WIDTHS, "symmetry": symmetry, **keywords})
    sizes = {"input_shape": data.input_shape, "num_outputs": CLASSES}
    return build_network(config, **sizes, seed=seed, points=data.train.x, graph=data.graph).double()


def every(number=NODES):
    return torch.arange(number)[:, None]


def mean_matrix(graph):
    """Return the matrix of `h + mean of the neighbors`."""
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for node in range(graph.num_nodes):
        own = graph.neighbors[graph.offsets[node] : graph.offsets[node + 1]]
        matrix[node, own] = 1 / max(1, len(own))
    return matrix + torch.eye(graph.num_nodes, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_outputs_are_those_of_products_with_the_matrix_of_the_graph(norm):
    net = network(norm=norm, activation="tanh")
    assert int(DATA.graph.offsets.diff().min()) == 0
    mean, hidden = mean_matrix(DATA.graph), DATA.graph.features
    for layer, own in zip(net.layers, net.norms, strict=True):
        hidden = torch.tanh(own(layer(mean @ hidden)))
    torch.testing.assert_close(net(every()), net.head(hidden))


def test_rows_do_not_depend_on_the_batch():
    net = network()
    rows = torch.tensor([[5], [2], [5]])
    assert torch.equal(net(rows), net(every())[rows[:, 0]])


def test_values_and_derivatives_of_the_mean():
    graph, hidden = DATA.graph, torch.randn(3, NODES, 2, dtype=torch.float64)
    matrix = mean_matrix(graph) - torch.eye(NODES, dtype=torch.float64)

    def by_lists(h):
        return neighbor_mean(h, graph.neighbors, graph.offsets).sin()

    def by_matrix(h):
        return (matrix @ h).sin()

    leaf = hidden[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(by_lists, leaf)
    for axis in (0, 2):
        moved = hidden.movedim(0, axis)
        results = [vmap(grad(lambda h, f=f: f(h).square().sum()), axis)(moved) for f in
                   (by_lists, by_matrix)]  # fmt: skip
        torch.testing.assert_close(*results)
    along = [jvp(f, (hidden[0],), (hidden[1],))[1] for f in (by_lists, by_matrix)]
    torch.testing.assert_close(*along)


def test_new_numbers_of_the_nodes_permute_the_predictions():
    order = RANDOM.permutation(NODES)
    place = np.argsort(order)  # node order[i] becomes node i
    data = Dataset.from_graph(
        X[order], Y[order], place[EDGES], dtype=torch.float64, standardize=False
    )
    torch.testing.assert_close(network(data=data)(every()), network()(every())[order])


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("kind", ["standard", "init_matched"])
def test_permutations_of_units_keep_the_outputs(kind, norm):
    net = network(kind, norm=norm, activation="tanh")
    spec = permutation_spec(net)
    assert {name: group.size for name, group in spec.groups.items()} == {
        f"layers.{i}": width for i, width in enumerate(WIDTHS)
    }
    assert spec.num_frozen_units == 0
    permutation = spec.random(1)
    values = dict(net.named_parameters())
    moved = permutation.apply(values)
    assert not torch.equal(moved["layers.1.weight"], values["layers.1.weight"])
    torch.testing.assert_close(functional_call(net, moved, (every(),)), net(every()))
    units = torch.as_tensor(np.roll(np.arange(WIDTHS[0]), 1))
    wrong = {**values, "layers.0.weight": values["layers.0.weight"][units]}
    assert not torch.allclose(functional_call(net, wrong, (every(),)), net(every()))


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("standard", 24**3),
        ("init_matched", 24**3),
        ("weight_asymmetric", 1),
        ("sigma_asymmetric", 1),
        ("bias_asymmetric", 1),
        ("block_fixed", 4**3),
    ],
)
def test_the_group_of_each_kind(kind, order):
    group = symmetry_group(network(kind))
    assert 10**group.log10_order == pytest.approx(order)


def test_a_control_has_about_as_many_parameters():
    symmetry = SymmetryConfig(kind="parameter_matched", fixed_per_row=(2, 2, 2, 0))
    matched = network(symmetry=symmetry)
    assert sum(p.numel() for p in matched.parameters()) < sum(
        p.numel() for p in network().parameters()
    )
    assert matched(every()).shape == (NODES, CLASSES)


def test_one_seed_means_the_values_of_a_fully_connected_network():
    mlp = build_network(MLPConfig(widths=WIDTHS), input_shape=(FEATURES,), num_outputs=CLASSES)
    for name, value in mlp.named_parameters():
        assert torch.equal(network().get_parameter(name).float(), value)


def test_only_the_last_layer_is_perturbed_point_by_point():
    net = network()
    values = dict(net.named_parameters())
    assert local_layers(net, values, every()) == [("head.weight", "head.bias")]


def test_a_pass_costs_the_same_for_any_number_of_points():
    net = network()
    assert count_flops(net, (1,), 1) == count_flops(net, (1,), 20) > 0


def test_graphs_and_networks_for_graphs_need_each_other():
    sizes = {"input_shape": (1,), "num_outputs": 2}
    with pytest.raises(ConfigError, match=r"data are a graph.*architecture\.name=gnn"):
        build_network(MLPConfig(), **sizes, points=DATA.train.x, graph=DATA.graph)
    iris = load_dataset("iris")
    with pytest.raises(ConfigError, match="the data are none"):
        build_network(GNNConfig(), input_shape=(4,), num_outputs=3, points=iris.train.x)


def test_units_of_all_nodes_must_fit_into_memory(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(NotEnoughMemory, match="a pass over 24 nodes"):
        network(widths=(1000,))
