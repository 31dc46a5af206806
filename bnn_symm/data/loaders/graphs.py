"""Graphs: those in NPZ files, and the graph of nearest neighbors of the digits.

| array | shape | |
| --- | --- | --- |
| `edges` | (2, edge) | numbers of nodes; one direction of an edge is enough |
| `x` | (node, feature) | features; or `indptr`, `indices`, `shape` and `data` of a sparse matrix |
| `y` | (node,) | labels or numbers; -1, NaN or an empty text for a node without a label |
| `train`, `validation`, `test` | (node,) or (row,) | masks (Boolean), or numbers of nodes |

`indptr`, `indices` and `shape` are those of the CSR format of SciPy; without `data`, all stored
entries are 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig
from bnn_symm.data.graph import RawGraph, nearest_neighbor_edges
from bnn_symm.data.loaders.bundled import digits
from bnn_symm.data.loaders.npz import (
    convert_target,
    missing_array_error,
    npz_names,
    read_npz_arrays,
)
from bnn_symm.data.preprocessing.array_values import array_features
from bnn_symm.data.preprocessing.column_types.target import infer_target
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.data.raw import RawData
from bnn_symm.errors import ConfigError, InvalidData, one_line
from bnn_symm.io.boundary import shown
from bnn_symm.io.memory import check_memory, num_bytes_of

_PARTS = ("train", "validation", "test")
_SPARSE = ("indptr", "indices", "shape")
_TABLE_SETTINGS = (
    *("drop", "features", "types", "weight", "event", "exposure", "group", "time"),
    *("test_file", "validation_file", "gap_feature"),
)
NODE = "node"
"""The name of the only feature of a point: the number of its node, from 0."""

DEFAULT_NEIGHBORS = 5


def digits_graph(num_neighbors: int | None = None) -> RawData:
    """Load the digits as nodes of a graph: edges to the 5 nearest images, by all pixels.

    Args:
        num_neighbors: number of nearest images to which each has an edge; default 5.
    """
    data, number = digits(), num_neighbors or DEFAULT_NEIGHBORS
    images = np.asarray(data.x).reshape(len(data.y), -1)
    graph = RawGraph(features=images, edges=nearest_neighbor_edges(images, number))
    return RawData(
        x=np.arange(len(images))[:, None],
        y=data.y,
        target=data.target,
        source=f"{data.source}, {number} nearest neighbors",
        licence=data.licence,
        task="classification",
        feature_names=(NODE,),
        graph=graph,
    )


def is_graph_file(path: Path, config: DataConfig) -> bool:
    """Return whether an NPZ file has a graph: an array `edges`, and no other layout is declared.

    Args:
        path: path of the file.
        config: the declared layout.

    Raises:
        InvalidData: if the layout `graph` is declared, and the file has no edges.
    """
    names = npz_names(path)
    if config.layout == "graph" and "edges" not in names:
        raise missing_array_error(path, "edges", names)
    return config.layout in ("auto", "graph") and "edges" in names


def load_graph(path: Path, config: DataConfig, licence: str) -> RawData:
    """Return the graph of an NPZ file; its points are the nodes with a label, or those of a split.

    Args:
        path: path of the file.
        config: name of the target, and the declared layout.
        licence: license of the data.

    Raises:
        ConfigError: if a setting is for tables, or several targets are named.
        InvalidData: if arrays are missing, have other shapes, or do not fit together.
        NotEnoughMemory: if the features do not fit into memory.
    """
    target = config.target or "y"
    wanted = ("edges", "x", *_SPARSE, "data", *_PARTS)
    names = wanted if isinstance(target, tuple) else (*wanted, target)
    arrays = read_npz_arrays(path, names)
    return replace(raw_graph(arrays, config, shown(path)), source=path.name, licence=licence)


def raw_graph(arrays: Mapping[str, np.ndarray], config: DataConfig, what: str) -> RawData:
    """Return the graph of named arrays; its points are the nodes with a label, or those of a split.

    Args:
        arrays: the arrays of an NPZ file; see above.
        config: name of the target, and the declared layout.
        what: description of the origin for messages.

    Raises:
        ConfigError: if a setting is for tables, or several targets are named.
        InvalidData: if arrays are missing, have other shapes, or do not fit together.
        NotEnoughMemory: if the features do not fit into memory.
    """
    _check_settings(what, config)
    target = config.target or "y"
    assert isinstance(target, str)
    features = _features(what, arrays)
    edges = _numbers_of_nodes(what, "edges", arrays["edges"], len(features))
    if edges.ndim != 2 or len(edges) != 2:
        raise InvalidData(
            f"{what}: got edges of shape {edges.shape}, expected (2, edge): the numbers of the two "
            "ends of each edge; use edges.T if the ends are columns"
        )
    labels = _labels(what, target, arrays, len(features))
    parts = _parts(what, arrays, len(features))
    nodes = np.flatnonzero(_has_label(labels))
    if parts:
        if config.fold is not None:
            raise ConfigError(
                f"{what} has splits of its own, got data.fold={config.fold}; remove it"
            )
        nodes = np.sort(np.concatenate([*parts.values()]))
        _check_parts(what, parts, labels, nodes)
    if not len(nodes):
        raise InvalidData(f"{what}: {one_line(target, 40)} has no label; give some nodes a label")
    values, notes = labels[nodes], ()
    if values.dtype == object:
        import pandas as pd

        found = infer_target(pd.Series(values, name=target), is_text=False)
        values, notes = found.values, found.notes
    rows = {part: np.searchsorted(nodes, own) for part, own in parts.items()}
    return RawData(
        x=nodes[:, None],
        y=values,
        target=target,
        source=what,
        licence="",
        feature_names=(NODE,),
        train=rows.get("train"),
        validation=rows.get("validation"),
        test=rows.get("test"),
        graph=RawGraph(features=features, edges=edges),
        notes=notes,
    )


def _check_settings(what: str, config: DataConfig) -> None:
    for setting in _TABLE_SETTINGS:
        if getattr(config, setting):
            raise ConfigError(
                f"data.{setting} is not for graphs, and {what} is one; remove it, or read "
                f"the file as an array with {advise_setting('data.layout=features')}"
            )
    if isinstance(config.target, tuple):
        raise ConfigError("a graph has one target, got several in data.target; name one of them")


def _features(what: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the features (node, feature), dense."""
    if "x" not in arrays:
        return _dense(what, arrays)
    x = arrays["x"]
    if x.ndim != 2 or not x.size:
        raise InvalidData(
            f"{what}: got x of shape {x.shape}, expected (node, feature), the features of "
            "each node; reshape x, or read the file as something else with "
            f"{advise_setting('data.layout=NAME')}"
        )
    return array_features(x, x.shape[1:], [f"x{index}" for index in range(x.shape[1])])


def _dense(what: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the features that a sparse matrix in the CSR format stores."""
    for name in _SPARSE:
        if name not in arrays:
            raise InvalidData(
                f"{what} has edges, but no array {quoted(name)} and no array 'x'; save the "
                "features as x (node, feature), or as indptr, indices and shape of a CSR matrix"
            )
    indptr, indices, shape = (arrays[name] for name in _SPARSE)
    if shape.shape != (2,) or shape.dtype.kind not in "ui" or shape.min() < 1:
        raise InvalidData(
            f"{what}: got shape {one_line(shape.tolist(), 60)}, expected two positive "
            "integers: the numbers of nodes and of features"
        )
    num_nodes, num_features = map(int, shape)
    check_memory(
        2 * num_bytes_of((num_nodes, num_features), 4),
        f"{num_nodes} x {num_features} features of {what}",
        "use fewer features",
    )
    problem = _inconsistency(indptr, indices, num_nodes, num_features)
    data = arrays.get("data", np.ones(len(indices), dtype=np.float32))
    if problem is None and data.shape != indices.shape:
        problem = f"data has shape {data.shape}, but indices {indices.shape}"
    if problem is not None:
        raise InvalidData(
            f"{what}: indptr, indices and shape are no CSR matrix: {problem}; save those of "
            "scipy.sparse.csr_matrix(x)"
        )
    features = np.zeros((num_nodes, num_features), dtype=np.result_type(data, np.float32))
    np.add.at(features, (np.arange(num_nodes).repeat(np.diff(indptr)), indices), data)
    return array_features(features, (num_features,), [f"x{i}" for i in range(num_features)])


def _inconsistency(
    indptr: np.ndarray, indices: np.ndarray, num_nodes: int, num_features: int
) -> str | None:
    """Return why arrays are no sparse matrix of a shape; None if they are."""
    if indptr.dtype.kind not in "ui" or indices.dtype.kind not in "ui" or indices.ndim != 1:
        return f"indptr has type {indptr.dtype}, indices {indices.dtype}, expected integers"
    if indptr.shape != (num_nodes + 1,):
        return f"indptr has shape {indptr.shape}, expected ({num_nodes + 1},)"
    pointers = indptr.astype(np.int64)
    if pointers[0] != 0 or pointers[-1] != len(indices) or (np.diff(pointers) < 0).any():
        return f"indptr does not rise from 0 to {len(indices)}, the number of indices"
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < num_features:
        return (
            f"indices are from {indices.min()} to {indices.max()}, expected 0 to {num_features - 1}"
        )
    return None


def _numbers_of_nodes(what: str, name: str, values: np.ndarray, num_nodes: int) -> np.ndarray:
    """Return integers, all of which are numbers of nodes."""
    if values.dtype.kind not in "ui":
        raise InvalidData(
            f"{what}: got {name} of type {values.dtype}, expected integers, the numbers of "
            f"nodes from 0 to {num_nodes - 1}"
        )
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < num_nodes:
        raise InvalidData(
            f"{what}: {name} has nodes from {values.min()} to {values.max()}, but the "
            f"{num_nodes} rows of features are nodes 0 to {num_nodes - 1}; correct the numbers"
        )
    return values.astype(np.int64)


def _labels(what: str, target: str, arrays: Mapping[str, np.ndarray], num_nodes: int) -> np.ndarray:
    """Return the labels of all nodes as stored."""
    if target not in arrays:
        raise InvalidData(
            f"{what} has edges, but no labels {quoted(target)}; add them as an array (node,), or "
            f"name the array with {advise_setting('data.target=NAME')}"
        )
    labels = arrays[target]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (num_nodes,):
        raise InvalidData(
            f"{what}: got {one_line(target, 40)} of shape {labels.shape}, expected "
            f"({num_nodes},), one label for each node; nodes without a label have -1, NaN or ''"
        )
    return convert_target(labels)


def _has_label(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    return labels != ("" if labels.dtype == object else -1)


def _parts(what: str, arrays: Mapping[str, np.ndarray], num_nodes: int) -> dict[str, np.ndarray]:
    """Return the nodes of the splits that a file defines, by name; none without such arrays."""
    parts = {}
    for name in _PARTS:
        if name not in arrays:
            continue
        values = arrays[name]
        if values.dtype == bool and values.shape != (num_nodes,):
            raise InvalidData(
                f"{what}: got the mask {name} of shape {values.shape}, expected "
                f"({num_nodes},), one value for each node"
            )
        if values.ndim != 1 or (not values.any() if values.dtype == bool else not values.size):
            raise InvalidData(
                f"{what}: {name} has no nodes; expected a mask (node,), or a list of nodes"
            )
        if values.dtype == bool:
            parts[name] = np.flatnonzero(values)
        else:
            parts[name] = np.unique(_numbers_of_nodes(what, name, values, num_nodes))
    missing = [name for name in ("train", "test") if name not in parts]
    if parts and missing:
        raise InvalidData(
            f"{what} has {' and '.join(parts)}, but no {missing[0]}; add it, or leave out "
            "all of train, validation and test for a random split"
        )
    return parts


def _check_parts(
    what: str, parts: Mapping[str, np.ndarray], labels: np.ndarray, nodes: np.ndarray
) -> None:
    """Check that no node is in two splits, and that all have labels."""
    twice = nodes[1:][nodes[1:] == nodes[:-1]]
    if len(twice):
        both = [name for name, rows in parts.items() if twice[0] in rows]
        raise InvalidData(
            f"{what}: node {twice[0]} is in {' and '.join(both)} ({len(twice)} such nodes "
            "in total), expected one split for each node"
        )
    without = nodes[~_has_label(labels[nodes])]
    if len(without):
        where = next(name for name, rows in parts.items() if without[0] in rows)
        raise InvalidData(
            f"{what}: node {without[0]} is in {where}, but has no label ({len(without)} "
            "such nodes in total); leave nodes without labels out of all three, they remain in "
            "the graph"
        )
