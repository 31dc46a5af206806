"""Count the operations of a network, from which the number of threads is chosen."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bnn_symm.architectures.gnn import GNN
from bnn_symm.symmetry.inputs import zero_point


def count_flops(net: nn.Module, input_shape: tuple[int, ...], batch_size: int) -> int:
    """Return the floating point operations of a forward pass, as counted by PyTorch.

    It counts matrix products and convolutions; a multiplication and an addition count as two
    operations. One point is passed and the count multiplied, which is exact for networks that treat
    each point by itself, and costs the same for any batch. A graph network computes all nodes in
    each pass, whatever the number of points.

    Args:
        net: The network; its mode and values are not changed.
        input_shape: Shape of one point.
        batch_size: Number of points.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net(zero_point(net, input_shape))
    return counter.get_total_flops() * (1 if isinstance(net, GNN) else batch_size)
