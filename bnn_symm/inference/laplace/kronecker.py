"""Kronecker factors of the Gauss-Newton curvature of dense layers and convolutions.

    G_layer = sum_n sum_r (sum_t g_nrt (x) x_nt) (sum_t g_nrt (x) x_nt)^T
            ~ B (x) A,   B = sum_n,r,t g g^T,   A = sum_n,t x x^T / (number of n, t)

(a point of weight w counts as w points)

for points n, places t (the pixels of a convolution, one for a dense layer), inputs x of the layer
with a one for the bias, and the gradients g_nr, at the layer's output, of R_n z_n, row by row.
R_n^T R_n is the Fisher information of a target given z_n, so no targets are sampled. The factors
are exact for a single point and place, and where B does not depend on the point, as in linear
regression. Places count as independent points ("expand").

A layer is computed by torch's own functions, whatever module calls them (`layer_overrides`). The
gradients of all points are one backward pass for each row: every point has its own outputs.

References:
    Ritter, Botev and Barber 2018, ICLR; Grosse and Martens 2016, arXiv:1602.01407; Eschenhagen et
    al. 2023, arXiv:2311.00636; Martens 2020, arXiv:1412.1193.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from bnn_symm.data import Split
from bnn_symm.inference.density.layer_overrides import LayerOverrides, Operation, uses_by_point
from bnn_symm.models import BayesianModel
from bnn_symm.models.fisher import fisher_root

# Largest number of values of inputs and gradients of a chunk of points: 32 MB in float32.
_NUMBERS_AT_ONCE = 2**23
_POINTS_AT_ONCE = 1024


@dataclass(frozen=True)
class KroneckerLayer:
    """A layer with Kronecker factors.

    Attributes:
        weight: name of its weight.
        coordinates: numbers in the flat vector of the entries of its weight, with the bias as the
            last column; -1 for entries that are not free, (output, input).
    """

    weight: str
    coordinates: Int[Tensor, "output input"]

    @property
    def num_free(self) -> int:
        """Return the number of its free entries."""
        return int((self.coordinates >= 0).sum())


def kronecker_layers(
    model: BayesianModel, x: Float[Tensor, "point *feature"]
) -> list[KroneckerLayer]:
    """Return the dense layers and convolutions that are the only users of their weights.

    Convolutions in groups are left out: their weights are not one matrix.

    Args:
        model: any model.
        x: one point is enough.
    """
    values = model.layer_values(model.unflatten(model.initial()))
    entries = {name: value - 1 for name, value in model.layer_entries().items()}
    layers = []
    for use in uses_by_point(model.net, values, x[:1]):
        in_groups = use.operation is not F.linear and use.shape[1] != values[use.weight].shape[1]
        if in_groups or use.weight not in entries:
            continue
        parts = [entries[use.weight].flatten(1)]
        if use.bias is not None:
            parts.append(entries[use.bias][:, None])
        coordinates = torch.cat(parts, 1)
        if bool((coordinates >= 0).any()):
            layers.append(KroneckerLayer(use.weight, coordinates.to(model.device)))
    return layers


Factors = tuple[Float[Tensor, "output output"], Float[Tensor, "input input"]]


def kronecker_factors(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    layers: Sequence[KroneckerLayer],
    part: Split,
) -> Iterator[list[Factors]]:
    """Yield terms, one for each chunk of points, whose sums are B and A of each layer, in float64.

    Args:
        model: the model.
        position: where the curvature is computed.
        layers: of `kronecker_layers`.
        part: the training split.
    """
    position = position.detach()
    values = model.layer_values(model.unflatten(position))
    latents = model.latents(position)
    weights = [values[layer.weight] for layer in layers]
    if not layers:
        return
    record = _Record(weights)
    with torch.no_grad(), record:
        functional_call(model.net, dict(values), (part.x[:1],))
    size = sum(x.numel() + output.numel() for x, output in record.pairs(weights))
    at_once = max(1, min(_POINTS_AT_ONCE, _NUMBERS_AT_ONCE // size))
    chunks = (own.split(at_once) for own in (part.x, part.y, part.observations))
    for points, y, weight in zip(*chunks, strict=True):
        record = _Record(weights)
        with torch.enable_grad(), record:
            z = functional_call(model.net, dict(values), (points,))
        rows = fisher_root(model.likelihood, z.detach(), latents, y)[..., : z.shape[-1]]
        rows = weight.sqrt().to(rows.dtype)[:, None, None] * rows
        pairs = record.pairs(weights)
        outputs = [output for _, output in pairs]
        left = [
            points.new_zeros(2 * [len(layer.coordinates)], dtype=torch.float64) for layer in layers
        ]
        for row in rows.unbind(1):
            grads = torch.autograd.grad(
                (row * z).sum(), outputs, retain_graph=True, materialize_grads=True
            )
            for number, grad in enumerate(grads):
                flat = _by_place(grad, weights[number].dim() > 2).double()
                left[number] = left[number] + flat.T @ flat
        terms = []
        for (x, _), own in zip(pairs, left, strict=True):
            places = len(x) // len(points)
            flat = weight.sqrt().repeat_interleave(places)[:, None] * x.double()
            terms.append((own, flat.T @ flat / (places * part.num_observations)))
        yield terms


class _Record(LayerOverrides):
    """Records the inputs of layers by place, and makes their outputs leaves of the graph."""

    def __init__(self, weights: Sequence[Tensor]):
        super().__init__(weights)
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output plus a zero, whose gradient is that of the output."""
        output = operation(x, weight, bias)
        zero = torch.zeros_like(output).requires_grad_()
        with torch.no_grad():
            inputs = _inputs(operation, x.detach(), weight)
            if bias is not None:
                inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)
        self._pairs[id(weight)] = (inputs, zero)
        return output + zero

    def pairs(self, weights: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the inputs, (point and place, input), and the leaf of each layer."""
        return [self._pairs[id(weight)] for weight in weights]


def _inputs(operation: Operation, x: Tensor, weight: Tensor) -> Float[Tensor, "place input"]:
    """Return the values that each output is a product of, for every point and place."""
    if weight.dim() == 2:
        return x.reshape(-1, weight.shape[1])
    # One output for each entry of a kernel: the patches, whatever stride, padding and dilation.
    width = weight[0].numel()
    patches = torch.eye(width, dtype=x.dtype, device=x.device).reshape(width, *weight.shape[1:])
    return _by_place(operation(x, patches, None), True)


def _by_place(values: Tensor, is_convolution: bool) -> Float[Tensor, "place channel"]:
    """Return values of a layer, (point, ..., channel) or (point, channel, ...), by place."""
    values = values.movedim(1, -1) if is_convolution else values
    return values.reshape(-1, values.shape[-1])
