"""Define the graph network, whose points are the nodes of one graph.

The input of a point is the number of its node; features and edges are constants of the network, as
the vectors of an embedding would be. A pass computes all nodes and returns the rows that were asked
for. So the likelihood is that of the training nodes given the whole graph: it factorizes over rows,
a minibatch of rows estimates it without bias, and every other part of the package treats nodes as
any other points. The constants are stored with a run, with a fingerprint; runs on different graphs
cannot be compared weight by weight.

Activations of one node depend on the weights through its neighbors as well. Estimators that perturb
the weights of each point on its own (local reparameterization, flipout) are therefore valid for the
last linear layer only; the others are sampled in weight space.
"""

from typing import no_type_check

from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.architectures.config import GNNConfig
from bnn_symm.architectures.layers.neighbors import Neighborhood
from bnn_symm.architectures.mlp import MLP
from bnn_symm.data.graph import Graph
from bnn_symm.io.memory import check_memory

_COPIES = 4
"""Minimum number of values of each hidden unit that a gradient keeps: before and after the mean
over neighbors, before and after the activation."""


class GNN(MLP):
    """A network of layers that see each node and the mean of its neighbors.

    ``h_l = activation(norm(W_l (h_{l-1} + mean over neighbors of h_{l-1}) + b_l))``, with the
    features as ``h_0``, and ``output = W h_L + b``

    Parameters have the names of an `MLP`. Hidden units have its symmetries: all nodes are computed
    by the same weights, so a permutation of units permutes them in all nodes.

    Args:
        graph: Features of all nodes, and the neighbors of each.
        num_outputs: Length of the output of a node.
        config: Widths, activation, norm and dropout.

    Attributes:
        num_tokens: Number of nodes.

    References:
        Xu, Hu, Leskovec and Jegelka (2019), How Powerful are Graph Neural Networks?,
        arXiv:1810.00826; with means in place of sums as in Lim, Putterman, Walters, Maron and
        Jegelka (2024), arXiv:2405.20231, section 5.
    """

    token_name = "nodes"

    def __init__(self, graph: Graph, num_outputs: int, config: GNNConfig) -> None:
        super().__init__(graph.features.shape[1], num_outputs, config)
        self.neighborhood = Neighborhood(graph)
        self.num_tokens = graph.num_nodes

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, x: Int[Tensor, "point 1"]) -> Float[Tensor, "point output"]:
        """Return the outputs of nodes."""
        hidden = self.neighborhood.inputs
        for number, modules in enumerate(
            zip(self.layers, self.norms, self.activations, strict=True)
        ):
            hidden = self.neighborhood(hidden) if number else hidden
            for module in modules:
                hidden = module(hidden)
        return self.head(hidden[x.flatten()])


def build_gnn(config: GNNConfig, graph: Graph, num_outputs: int) -> GNN:
    """Build a graph network, with parameters in the type of the features.

    Args:
        config: Settings of the network.
        graph: Features of all nodes, and the neighbors of each.
        num_outputs: Length of the output of a node.

    Raises:
        NotEnoughMemory: If the hidden units of all nodes do not fit into memory.
    """
    numbers = graph.num_nodes * (2 * graph.features.shape[1] + _COPIES * sum(config.widths))
    check_memory(
        4 * numbers,
        f"a pass over {graph.num_nodes} nodes with widths {list(config.widths)}",
        "lower architecture.widths, or use a smaller graph",
    )
    return GNN(graph, num_outputs, config).to(graph.features.dtype)
