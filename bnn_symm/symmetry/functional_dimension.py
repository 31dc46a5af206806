"""Functional dimension: in how many directions the parameters change the function of a network.

The functional dimension at parameters theta is the rank of the Jacobian of

    theta -> (f(theta, x_1), ..., f(theta, x_N))

for enough points x. The directions that it leaves out do not change the function to first order. If
they are more than the known continuous symmetries, then the network has *hidden* symmetries at
theta, such as units of relu that no point activates.

References:
    Grigsby, Lindsey & Rolnick 2023, "Hidden symmetries of ReLU networks", arXiv:2306.06179.
"""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from bnn_symm.summaries import Result
from bnn_symm.symmetry.certificate import random_values
from bnn_symm.symmetry.inputs import input_points
from bnn_symm.symmetry.tracing.precision import DoublePrecision

MAX_PARAMETERS = 1500
"""Networks with more parameters take long: the cost is that of a singular value decomposition."""

# Points per parameter, and standard deviations of points around random parameters: rare regions of
# a piecewise linear network need many points of all sizes.
_POINTS_PER_PARAMETER, _SPREAD = 3, 0.1
_SIZES = (0.5, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class FunctionalDimension(Result):
    """The rank of the Jacobian of a network's outputs, and the directions that it leaves out.

    Attributes:
        parameters: number of free parameters.
        dimension: rank of the Jacobian.
        known: dimensions of the known continuous symmetries.
        hidden: directions without an effect that no known symmetry explains; negative if a known
            symmetry holds in the limit only, or is counted twice.
        gap: smallest singular value that counts, divided by the largest that does not; infinity if
            all count. A rank is clear-cut where it is large.
        points: number of points.
    """

    parameters: int
    dimension: int
    known: int
    hidden: int
    gap: float
    points: int


def functional_dimension(
    net: nn.Module,
    known: int,
    *,
    input_shape: tuple[int, ...] | None = None,
    softmax: bool = False,
    seed: int = 0,
) -> FunctionalDimension:
    """Return the functional dimension of a network near its present parameters.

    Small noise on the parameters avoids points of measure zero, such as biases that are all 0. The
    epsilon of norms is taken as 0, so that the scale before a norm is a symmetry.

    Args:
        net: the network, of at most a few thousand parameters; it is not changed.
        known: dimensions of its known continuous symmetries, from `continuous_symmetries`.
        input_shape: shape of one point; see `permutation_spec`.
        softmax: whether its outputs are the logits of a softmax.
        seed: key of the noise.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> found = functional_dimension(net, known=3)
        >>> found.parameters - found.dimension, found.hidden
        (3, 0)
    """
    clone = _without_epsilon(net)
    values = random_values(clone, seed, "functional dimension", spread=_SPREAD)
    free = {name: values[name] for name, own in clone.named_parameters() if own.requires_grad}
    rest = {name: value for name, value in values.items() if name not in free}
    size = sum(value.numel() for value in free.values())
    number = math.ceil(_POINTS_PER_PARAMETER * size / len(_SIZES))
    x = input_points(net, input_shape, number)
    if x.is_floating_point():
        x = torch.cat([factor * x for factor in _SIZES])

    def outputs(parameters: dict[str, Tensor], point: Tensor) -> Tensor:
        out = functional_call(clone, {**rest, **parameters}, (point[None],))[0]
        # Centered logits determine the probabilities, and have gradients without cancellation.
        return out - out.mean(-1, keepdim=True) if softmax else out

    # torch warns of operations that it computes point by point.
    with DoublePrecision(), warnings.catch_warnings(action="ignore"):
        try:
            jacobian = vmap(jacrev(outputs), in_dims=(None, 0), chunk_size=256)(free, x)
            rows = [own.flatten(2).flatten(0, 1) for own in jacobian.values()]
            matrix = torch.cat(rows, dim=1).detach()
        except RuntimeError:  # operations that vmap does not know, such as recurrent layers
            matrix = _jacobian(outputs, free, x)
    # Rows of large points would hide the others; the span of the rows does not depend on lengths.
    matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp(min=1e-300)
    singular = torch.linalg.svdvals(matrix)
    counts = singular > singular[0] * max(matrix.shape) * torch.finfo(torch.float64).eps
    rank = int(counts.sum())
    gap = math.inf if rank == len(singular) else float(singular[rank - 1] / singular[rank])
    return FunctionalDimension(
        parameters=size,
        dimension=rank,
        known=known,
        hidden=size - rank - known,
        gap=gap,
        points=len(x),
    )


def _jacobian(
    outputs: Callable[[dict[str, Tensor], Tensor], Tensor], free: dict[str, Tensor], x: Tensor
) -> Tensor:
    """Return the Jacobian by a backward pass for each output of each point."""
    leaves = {name: value.clone().requires_grad_() for name, value in free.items()}
    rows = []
    for point in x:
        for own in outputs(leaves, point):
            gradients = torch.autograd.grad(
                own, list(leaves.values()), retain_graph=True, materialize_grads=True
            )
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


def _without_epsilon(net: nn.Module) -> nn.Module:
    """Return a copy in float64 on the CPU and in evaluation mode, whose norms have no epsilon."""
    clone = copy.deepcopy(net).cpu().double().eval()
    for module in clone.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 0.0  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return clone
