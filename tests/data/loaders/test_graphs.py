"""Graphs in files, in memory, and of nearest neighbors."""

import numpy as np
import pytest
import torch

from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError, InvalidData, NotEnoughMemory
from bnn_symm.io import memory

RANDOM = np.random.default_rng(0)
NODES = 40
X = RANDOM.integers(0, 3, size=(NODES, 5)).astype(float)
EDGES = RANDOM.integers(0, NODES, size=(2, 60))
Y = np.arange(NODES) % 3
PARTS = {"train": np.arange(NODES) < 20, "validation": np.arange(20, 28), "test": np.arange(28, 36)}
GRAPH = {"x": X, "y": Y, "edges": EDGES, **PARTS}


def csr(x=X, **changes):
    """Return the features as the arrays of a sparse matrix."""
    rows, columns = np.nonzero(x)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(x)))])
    sparse = {"indptr": indptr, "indices": columns, "shape": x.shape, "data": x[rows, columns]}
    return {**sparse, **changes}


def load(tmp_path, arrays, **keys):
    np.savez(tmp_path / "graph.npz", **{k: v for k, v in arrays.items() if v is not None})
    return load_dataset(tmp_path / "graph.npz", **keys)


def adjacency(graph):
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.bool)
    matrix[
        torch.arange(graph.num_nodes).repeat_interleave(graph.offsets.diff()), graph.neighbors
    ] = 1
    return matrix


def test_a_graph_of_a_file(tmp_path):
    data = load(tmp_path, GRAPH)
    assert [part.x[:, 0].sort().values.tolist() for part in (data.train, data.validation)] == [
        list(range(20)),
        list(range(20, 28)),
    ]
    assert data.test.x.dtype == torch.int64
    assert data.test.y.tolist() == Y[28:36].tolist()
    # All nodes are standardized together; four of them are in no split, but in the graph.
    assert torch.allclose(data.graph.features.mean(0), torch.zeros(5), atol=1e-6)
    assert torch.allclose(data.graph.features.std(0, correction=0), torch.ones(5), atol=1e-6)
    wanted = np.zeros((NODES, NODES), dtype=bool)
    wanted[EDGES[0], EDGES[1]] = wanted[EDGES[1], EDGES[0]] = True
    np.fill_diagonal(wanted, False)
    assert adjacency(data.graph).tolist() == wanted.tolist()
    assert data.graph.num_edges == wanted.sum() // 2


def test_dense_sparse_and_memory_agree(tmp_path):
    dense = load(tmp_path, GRAPH)
    sparse = load(tmp_path, {**GRAPH, "x": None, **csr()})
    both = np.concatenate([EDGES, EDGES[::-1], EDGES], axis=1)
    memory = Dataset.from_graph(X, torch.as_tensor(Y), both, **PARTS)
    for other in (sparse, memory):
        assert torch.equal(other.graph.features, dense.graph.features)
        assert torch.equal(other.graph.neighbors, dense.graph.neighbors)
        assert other.train.x.tolist() == dense.train.x.tolist()
    binary = load(tmp_path, {**GRAPH, "x": None, **csr(data=None)}, standardize=False)
    assert torch.equal(binary.graph.features, torch.as_tensor(X > 0).float())


def test_the_checksum_covers_the_graph(tmp_path):
    other = {**GRAPH, "edges": EDGES[:, 1:]}
    first, second = (load(tmp_path, arrays).provenance for arrays in (GRAPH, other))
    assert first.sha256 != second.sha256
    assert first.split_sha256 == second.split_sha256


@pytest.mark.parametrize("labels", ["integers", "numbers", "texts"])
def test_nodes_without_labels_are_points_of_no_split(tmp_path, labels):
    y = {
        "integers": np.where(Y == 2, -1, Y),
        "numbers": np.where(Y == 2, np.nan, Y + 0.5),
        "texts": np.array(["b", "a", ""])[Y],
    }[labels]
    data = load(tmp_path, {"x": X, "y": y, "edges": EDGES})
    rows = torch.cat([part.x[:, 0] for part in (data.train, data.validation, data.test)])
    assert rows.sort().values.tolist() == np.flatnonzero(Y < 2).tolist()
    assert data.graph.num_nodes == NODES
    assert data.task == ("regression" if labels == "numbers" else "classification")


def test_another_layout_reads_an_array(tmp_path):
    data = load(tmp_path, GRAPH, layout="features")
    assert data.graph is None
    assert data.input_shape == (5,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": EDGES + NODES}, r"edges has nodes from .* nodes 0 to 39"),
        ({"edges": EDGES.T}, r"expected \(2, edge\).*edges.T"),
        ({"edges": EDGES + 0.5}, "expected integers"),
        ({"x": X[:, 0]}, r"expected \(node, feature\)"),
        ({"x": np.full_like(X, np.nan)}, "finite"),
        ({"x": None}, "no array 'indptr' and no array 'x'"),
        ({"y": None}, "no labels 'y'"),
        ({"y": Y[1:]}, r"expected \(40,\), one label for each node"),
        ({"y": np.full(NODES, -1), "train": None, "test": None, "validation": None}, "no label"),
        ({"y": np.where(Y == 2, -1, Y)}, "node 2 is in train, but has no label"),
        ({"test": None}, "has train and validation, but no test"),
        ({"test": np.arange(19, 30)}, "node 19 is in train and test"),
        ({"train": np.ones(7, dtype=bool)}, "got the mask train of shape"),
        ({"test": np.array([NODES])}, "test has nodes from 40 to 40"),
        ({"test": np.zeros(NODES, dtype=bool)}, "test has no nodes"),
        ({"x": None, **csr(indptr=np.arange(5))}, "indptr has shape"),
        ({"x": None, **csr(indptr=np.arange(NODES + 1)[::-1])}, "does not rise from 0"),
        ({"x": None, **csr(shape=(NODES, 2))}, "indices are from 0 to 4, expected 0 to 1"),
        ({"x": None, **csr(shape=(NODES,))}, "expected two positive integers"),
        ({"x": None, **csr(data=np.ones(3))}, "data has shape"),
        ({"x": None, **csr(indices=np.ones(3))}, "expected integers"),
    ],
)
def test_defects_of_files(tmp_path, changes, message):
    with pytest.raises(InvalidData, match=message):
        load(tmp_path, {**GRAPH, **changes})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"group": "y"}, "data.group is not for graphs"),
        ({"fold": 0}, "splits of its own"),
        ({"target": ["y", "x"]}, "one target"),
        ({"num_neighbors": 3}, "digits_graph"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, keys, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, GRAPH, **keys)


def test_a_graph_is_declared_where_there_is_none(tmp_path):
    with pytest.raises(InvalidData, match="no array 'edges'"):
        load(tmp_path, {"x": X, "y": Y}, layout="graph")
    with pytest.raises(ConfigError, match="array edges"):
        Dataset.from_arrays(X, Y, layout="graph")


def test_features_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(NotEnoughMemory, match="1000000 x 1000000 features"):
        load(tmp_path, {"edges": EDGES, "y": Y, **csr(shape=(10**6, 10**6))})


def test_the_digits_are_joined_to_their_nearest_images():
    data = load_dataset("digits_graph", num_neighbors=3)
    joined = adjacency(data.graph)
    assert torch.equal(joined, joined.T)
    assert int(joined.sum(1).min()) >= 3
    pixels = load_dataset("digits", standardize=False, test_fraction=0, validation_fraction=0)
    x = torch.empty(1797, 64, dtype=torch.float64)
    order = load_dataset("digits_graph", test_fraction=0, validation_fraction=0).train.x[:, 0]
    x[order] = pixels.train.x.flatten(1).double()  # the splits of both are the same
    nearest = torch.cdist(x[:5], x).topk(4, largest=False).indices[:, 1:]
    assert all(joined[node, own].all() for node, own in enumerate(nearest))
    labels = torch.empty(1797, dtype=torch.int64)
    for part in (data.train, data.validation, data.test):
        labels[part.x[:, 0]] = part.y
    first, second = joined.nonzero().T
    assert (labels[first] == labels[second]).double().mean() > 0.95


def test_neighbors_are_fewer_than_nodes():
    with pytest.raises(InvalidData, match="1797 nearest neighbors need more than 1797 nodes"):
        load_dataset("digits_graph", num_neighbors=1797)
