"""One graph, whose nodes are the points of a data set.

All nodes and edges are inputs of every pass: of the nodes that are not in the training split, the
labels alone are unknown to a fit. This is the transductive setting. The input of a point is
therefore the number of its node, (point, 1), while the graph belongs to the network (`gnn`).
Likelihoods, minibatches and scores read rows, as they do for other data.

Edges have no direction: each is in the lists of both of its ends. Loops and repeated edges are left
out.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.errors import InvalidData
from bnn_symm.summaries import Summarized


@dataclass(frozen=True, kw_only=True, eq=False)
class RawGraph:
    """Features of nodes and edges as read.

    Args:
        features: (node, feature), finite numbers.
        edges: (2, edge), numbers of nodes; in either direction, or in both.
    """

    features: Float[np.ndarray, "node feature"]
    edges: Int[np.ndarray, "2 edge"]

    def build(self, dtype: torch.dtype, *, standardize: bool) -> "Graph":
        """Return the graph with features as tensors.

        Args:
            dtype: floating-point type of the features.
            standardize: whether to scale features to mean 0 and variance 1 over all nodes.

        Raises:
            InvalidData: if a feature is too large for `dtype`.
        """
        x, every = self.features, np.arange(len(self.features))
        scaling = Scaling.fit(x, every) if standardize else Scaling.identity(x.shape[1:])
        features = torch.cat(list(scaling.standardize(x, every, dtype)))
        neighbors, offsets = neighbor_lists(self.edges, len(x))
        return Graph(features=features, neighbors=neighbors, offsets=offsets)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Graph(Summarized):
    """Features of all nodes, and the neighbors of each.

    Args:
        features: (node, feature), standardized.
        neighbors: neighbors of node 0, then those of node 1, and so on; int64.
        offsets: (node + 1,), where the neighbors of each node start, and their number; int64.

    Example:
        >>> from bnn_symm import load_dataset
        >>> graph = load_dataset("digits_graph", num_neighbors=4).graph
        >>> graph.num_nodes, graph.features.shape
        (1797, torch.Size([1797, 64]))
    """

    features: Float[Tensor, "node feature"]
    neighbors: Int[Tensor, "entry"]
    offsets: Int[Tensor, "boundary"]

    @property
    def num_nodes(self) -> int:
        """Return the number of nodes."""
        return len(self.features)

    @cached_property
    def num_edges(self) -> int:
        """Return the number of edges, each counted once."""
        return len(self.neighbors) // 2

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "Graph":
        """Return the graph on a device, with features in a floating-point type.

        Args:
            device: device of the result; None keeps it.
            dtype: type of the features; None keeps it.
        """
        return replace(
            self,
            features=self.features.to(device=device, dtype=dtype),
            neighbors=self.neighbors.to(device=device),
            offsets=self.offsets.to(device=device),
        )

    def _facts(self) -> dict[str, object]:
        """Return what its representation shows."""
        return {
            "nodes": self.num_nodes,
            "edges": self.num_edges,
            "features": self.features.shape[1],
        }


def neighbor_lists(edges: Int[np.ndarray, "2 edge"], num_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the neighbors of all nodes in one list, in ascending order for each, and its offsets.

    Args:
        edges: (2, edge), numbers of nodes.
        num_nodes: number of nodes.

    Example:
        >>> neighbor_lists(np.array([[0, 1, 1, 2], [1, 0, 2, 2]]), 4)
        (tensor([1, 0, 2, 1]), tensor([0, 1, 3, 4, 4]))
    """
    ends = edges.astype(np.int64)
    ends = ends[:, ends[0] != ends[1]]
    both = np.concatenate([ends, ends[::-1]], axis=1)
    pairs = np.unique(both[0] * num_nodes + both[1])
    counts = np.bincount(pairs // num_nodes, minlength=num_nodes)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return torch.from_numpy(pairs % num_nodes), torch.from_numpy(offsets)


def nearest_neighbor_edges(
    features: Float[np.ndarray, "node feature"], number: int
) -> Int[np.ndarray, "2 edge"]:
    """Return an edge from each node to those of the smallest Euclidean distance.

    Of nodes at one distance, those of the smallest numbers are chosen. The distances of integers
    are exact, so that the edges are the same on every machine.

    Args:
        features: (node, feature).
        number: number of neighbors of each node.

    Raises:
        InvalidData: if there are not more nodes than neighbors.

    Example:
        >>> nearest_neighbor_edges(np.array([[0.0], [1.0], [5.0]]), 1).tolist()
        [[0, 1, 2], [1, 0, 1]]
    """
    if number >= len(features):
        raise InvalidData(
            f"{number} nearest neighbors need more than {number} nodes, got {len(features)}; use "
            f"{advise('--set data.num_neighbors=K', 'num_neighbors=K')} with a smaller number"
        )
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    chosen = []
    for start in range(0, len(x), 512):
        rows = slice(start, start + 512)
        distances = squares[rows, None] - 2 * x[rows] @ x.T + squares
        distances[np.arange(len(distances)), np.arange(len(x))[rows]] = np.inf
        chosen.append(np.argsort(distances, axis=1, kind="stable")[:, :number])
    neighbors = np.concatenate(chosen)
    return np.stack([np.arange(len(x)).repeat(number), neighbors.ravel()])
