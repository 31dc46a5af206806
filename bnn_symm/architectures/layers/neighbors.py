"""Mean of the neighbors of each node, as one operation with transformations and rules of its own.

The sum over neighbors is its own transpose, since edges have no direction. So one gather over the
lists of neighbors computes values, gradients and derivatives along a direction; memory is that of
the result, whatever the number of edges. Under `torch.vmap`, networks become further columns.
Samplers do not compile networks with this operation, which `torch.compile` does not know.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from bnn_symm.data.graph import Graph
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule


class _NeighborSum(torch.autograd.Function):
    """The sum over the neighbors of each node, for any number of columns."""

    @staticmethod
    def forward(hidden: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        return F.embedding_bag(
            neighbors, hidden.contiguous(), offsets, mode="sum", include_last_offset=True
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _NeighborSum.apply(gradients[0], *ctx.saved_tensors), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _NeighborSum.apply(tangents[0], *ctx.saved_tensors)

    @staticmethod
    def vmap(info: Any, in_dims: Any, hidden: Tensor, neighbors: Tensor, offsets: Tensor) -> Any:
        columns = hidden.movedim(in_dims[0], 1)
        sums = _NeighborSum.apply(columns.flatten(1), neighbors, offsets)
        return sums.unflatten(1, columns.shape[1:]), 1


def neighbor_mean(
    hidden: Float[Tensor, "node unit"],
    neighbors: Int[Tensor, "entry"],
    offsets: Int[Tensor, "boundary"],
) -> Float[Tensor, "node unit"]:
    """Return the mean over the neighbors of each node, and zeros for a node without neighbors.

    Args:
        hidden: values of all nodes.
        neighbors: neighbors of node 0, then those of node 1, and so on.
        offsets: where the neighbors of each node start, and their number.

    Example:
        >>> hidden = torch.tensor([[1.0], [2.0], [4.0]])
        >>> neighbor_mean(hidden, torch.tensor([1, 2, 0, 0]), torch.tensor([0, 2, 3, 4]))
        tensor([[3.],
                [1.],
                [1.]])
    """
    if has_torch_function_unary(hidden):  # one operation for whoever observes operations
        return handle_torch_function(neighbor_mean, (hidden,), hidden, neighbors, offsets)
    degrees = offsets.diff().clamp(min=1).to(hidden.dtype)
    return _NeighborSum.apply(hidden, neighbors, offsets) / degrees[:, None]


@rule("neighbor_mean", carries=True)
def _neighbor_mean(
    tracer: SymmetryTracer, out: Tensor, hidden: Tensor, neighbors: Tensor, offsets: Tensor
) -> Axes:
    """Keep the units of each node: the mean is over nodes, which stay in place."""
    tracer.labels.freeze(tracer.axis(hidden, 0))
    return tracer.axes(hidden)


class Neighborhood(nn.Module):
    """A graph as the constants of a network: ``forward(h) = h + mean of h over the neighbors``.

    Args:
        graph: features of all nodes, and the neighbors of each.

    Attributes:
        inputs: (node, feature), `forward` of the features, which is the same in every pass.
        neighbors: neighbors of node 0, then those of node 1, and so on.
        offsets: (node + 1,), where the neighbors of each node start, and their number.
    """

    data_buffers = ("inputs",)
    is_compilable = False
    inputs: Tensor
    neighbors: Tensor
    offsets: Tensor

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.register_buffer("neighbors", graph.neighbors)
        self.register_buffer("offsets", graph.offsets)
        self.register_buffer("inputs", self(graph.features))

    def forward(self, hidden: Float[Tensor, "node unit"]) -> Float[Tensor, "node unit"]:
        """Return the sum of each node and the mean of its neighbors."""
        return hidden + neighbor_mean(hidden, self.neighbors, self.offsets)
