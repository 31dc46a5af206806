"""Generalized Gauss-Newton curvature of the log likelihood of a data set, in some coordinates.

    G = sum_n J_n^T F_n J_n,   J_n = d z_n / d w,   z_n = (outputs, latents),

with F_n the Fisher information of a target given z_n, times the weight of the point. It is exact
for every likelihood (no targets are sampled) and positive semi-definite. It is the Hessian of
-log_likelihood if outputs are linear in these coordinates and are natural parameters
(`models.fisher`).

If the dense layer's outputs are the network's outputs, J_n is known: each output has a row that
consists of the layer's input. The block is then C (C + 1) / 2 weighted products of inputs for C
outputs, in place of C^2 products of C times as many rows. On 4,000 images with 400 units and 10
classes, the time fell from 173 s to 2.7 s.

References:
    Schraudolph 2002, doi:10.1162/08997660260028683; Martens 2020, arXiv:1412.1193.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from bnn_symm.data import Split
from bnn_symm.errors import ConfigError
from bnn_symm.inference.density.layer_overrides import (
    LayerOverrides,
    LayerUse,
    Operation,
    layer_uses,
    uses_by_point,
)
from bnn_symm.models import BayesianModel
from bnn_symm.models.fisher import fisher_root

# Maximum size of the matrices R J, or of weighted inputs, of a chunk of points: 64 MB.
_NUMBERS_AT_ONCE = 2**24
# Maximum points per chunk, so that the memory of forward passes stays small compared to the above,
# and a fit can stop between chunks.
_POINTS_AT_ONCE = 256
# Maximum points per chunk if only inputs of the last layer are needed. It is larger because every
# chunk adds a term as large as the block.
_INPUTS_AT_ONCE = 1024


def last_layer(
    model: BayesianModel, x: Float[Tensor, "point *feature"]
) -> Int[Tensor, " coordinate"]:
    """Return the coordinates of the last layer in a forward pass and of the likelihood.

    Args:
        model: any model.
        x: one point is enough.

    Raises:
        ConfigError: if no dense layer or convolution is the only user of its weight.
    """
    uses = layer_uses(model.net, model.layer_values(model.unflatten(model.initial())), x[:1])
    if not uses:
        raise ConfigError(
            "inference.structure=last_layer needs a linear layer or a convolution whose weight is "
            "used only once, got none; set inference.structure=diagonal"
        )
    names = (uses[-1].weight, uses[-1].bias)
    ranges = [
        torch.arange(where.start, where.stop)
        for name, where in model.slices().items()
        if name in names
    ]
    return torch.cat([*ranges, torch.arange(model.num_net_parameters, model.num_parameters)])


def diagonals(
    model: BayesianModel, position: Float[Tensor, " parameter"], part: Split
) -> Iterator[Tensor]:
    """Yield terms, one for each chunk of points, whose sum is the diagonal of G, in float64.

    Args:
        model: the model.
        position: where the curvature is computed.
        part: the training split.
    """
    everything = torch.arange(len(position), device=position.device)
    for rows in _rooted_jacobians(model, position, everything, part):
        yield rows.square().sum((0, 1)).double()


def blocks(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    coordinates: Int[Tensor, " coordinate"],
    part: Split,
) -> Iterator[Tensor]:
    """Yield terms, one for each chunk of points, whose sum is a block of G, in float64.

    Args:
        model: the model.
        position: where the curvature is computed.
        coordinates: the coordinates of the block.
        part: the training split.
    """
    values = model.layer_values(model.unflatten(position))
    layer = _output_layer(model, values, coordinates, part.x[:2])
    if layer is not None:
        yield from _output_blocks(model, position, values, layer, part)
        return
    for rows in _rooted_jacobians(model, position, coordinates, part):
        flat = rows.flatten(0, 1).double()
        yield flat.T @ flat


def tensor_blocks(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    tensors: Sequence[Int[Tensor, " coordinate"]],
    largest: int,
    part: Split,
) -> Iterator[list[Tensor]]:
    """Yield terms, one for each chunk of points, of blocks of G of several tensors, in float64.

    Args:
        model: the model.
        position: where the curvature is computed.
        tensors: the coordinates of each block.
        largest: number of coordinates above which a term is the diagonal of the block.
        part: the training split.
    """
    sizes = [len(coordinates) for coordinates in tensors]
    for rows in _rooted_jacobians(model, position, torch.cat(list(tensors)), part):
        columns = rows.flatten(0, 1).double().split(sizes, dim=1)
        yield [own.T @ own if own.shape[1] <= largest else own.square().sum(0) for own in columns]


def prior_precision(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    coordinates: Int[Tensor, " coordinate"],
) -> Float[Tensor, " coordinate"]:
    """Return -d^2 log prior / dw^2 in some coordinates, in float64; the prior is independent.

    Args:
        model: the model.
        position: where the curvature is computed.
        coordinates: the coordinates.
    """
    gradient = torch.func.grad(model.log_prior)
    second = torch.func.grad(lambda flat: gradient(flat).sum())(position.double())
    return -second[coordinates]


class _Input(LayerOverrides):
    """Records the input and the output of a layer."""

    def __init__(self, weight: Tensor):
        super().__init__([weight])

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of the unchanged operation."""
        self.input, self._output = x, operation(x, weight, bias)
        self._version = self._output._version
        return self._output

    def is_last(self, outputs: Tensor) -> bool:
        """Return whether the outputs of the network are the layer's output, unmodified."""
        return outputs is self._output and outputs._version == self._version

    @classmethod
    def of(
        cls, model: BayesianModel, values: Mapping[str, Tensor], weight: str, x: Tensor
    ) -> "tuple[_Input, Tensor]":
        """Return the record of a forward pass at these points, and the outputs of the network."""
        with torch.no_grad(), cls(values[weight]) as record:
            return record, functional_call(model.net, dict(values), (x,))


def _output_layer(
    model: BayesianModel, values: Mapping[str, Tensor], coordinates: Tensor, x: Tensor
) -> LayerUse | None:
    """Return the dense layer whose outputs are the network's, if it matches the coordinates.

    All its entries must be free, and the coordinates must be those of `last_layer`.
    """
    uses = uses_by_point(model.net, values, x)
    if not uses or uses[-1].operation is not F.linear or len(uses[-1].shape) != 2:
        return None
    use, slices = uses[-1], model.slices()
    for name in (use.weight, use.bias):
        if name is not None and (name not in slices or model.shapes[name] != values[name].shape):
            return None
    if not torch.equal(coordinates.cpu(), last_layer(model, x)):
        return None
    record, outputs = _Input.of(model, values, use.weight, x)
    return use if record.is_last(outputs) else None


def _output_blocks(
    model: BayesianModel,
    position: Tensor,
    values: Mapping[str, Tensor],
    layer: LayerUse,
    part: Split,
) -> Iterator[Float[Tensor, "coordinate coordinate"]]:
    latents = model.latents(position)
    outputs, inputs = values[layer.weight].shape
    width = inputs + (layer.bias is not None)
    order = _order(model, layer, outputs, width).to(position.device)
    at_once = max(1, min(_INPUTS_AT_ONCE, _NUMBERS_AT_ONCE // (2 * outputs * width)))
    chunks = (own.split(at_once) for own in (part.x, part.y, part.observations))
    for points, y, weight in zip(*chunks, strict=True):
        record, z = _Input.of(model, values, layer.weight, points)
        root = fisher_root(model.likelihood, z, latents, y).double()
        fisher = root.mT @ (weight[:, None, None] * root)
        x = record.input.double()
        if layer.bias is not None:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        block = x.new_empty(outputs, width, outputs, width)
        for i in range(outputs):
            weighted = fisher[:, i, i:outputs, None] * x[:, None]
            block[i, :, i:] = (x.mT @ weighted.flatten(1)).unflatten(1, (-1, width))
            block[i + 1 :, :, i] = block[i, :, i + 1 :].transpose(0, 1)
        # Terms of weights and latent variables: (output, width, latent).
        mixed = torch.einsum("nol,nw->owl", fisher[:, :outputs, outputs:], x).flatten(0, 1)
        latent_block = fisher[:, outputs:, outputs:].sum(0)
        full = torch.cat(
            [
                torch.cat([block.flatten(2).flatten(0, 1), mixed], 1),
                torch.cat([mixed.T, latent_block], 1),
            ]
        )
        yield full[order[:, None], order]


def _order(model: BayesianModel, layer: LayerUse, outputs: int, width: int) -> Tensor:
    """Return the place of each coordinate among (output, input and bias), then latent variables."""
    numbers = torch.arange(outputs * width).unflatten(0, (outputs, width))
    parts = {
        layer.weight: numbers[:, : math.prod(model.shapes[layer.weight][1:])],
        layer.bias: numbers[:, -1],
    }
    places = [parts[name].flatten() for name in model.slices() if name in parts]
    num_latents = model.num_parameters - model.num_net_parameters
    return torch.cat([*places, outputs * width + torch.arange(num_latents)])


def _rooted_jacobians(
    model: BayesianModel, position: Tensor, coordinates: Tensor, part: Split
) -> Iterator[Float[Tensor, "point row coordinate"]]:
    """Yield R_n J_n, with R_n^T R_n = F_n times the weight of the point, for chunks of points."""
    likelihood, latents = model.likelihood, model.latents(position)

    def point_jacobian(x: Tensor, root: Tensor) -> Tensor:
        def variables(values: Tensor) -> Tensor:
            flat = position.index_copy(0, coordinates, values)
            return torch.cat(
                [model.outputs(flat, x[None])[0], *(v[None] for v in model.latents(flat).values())]
            )

        result: Any = torch.func.vjp(variables, position[coordinates])
        pull = result[1]
        return torch.vmap(lambda row: pull(row)[0])(root)

    with torch.no_grad():
        num_rows = model.outputs(position, part.x[:1]).shape[-1] + len(likelihood.latents)
    at_once = max(1, min(_POINTS_AT_ONCE, _NUMBERS_AT_ONCE // (num_rows * len(coordinates))))
    chunks = (own.split(at_once) for own in (part.x, part.y, part.observations))
    for points, y, weight in zip(*chunks, strict=True):
        with torch.no_grad():
            roots = fisher_root(likelihood, model.outputs(position, points), latents, y)
        rows = torch.vmap(point_jacobian)(points, roots).detach()
        yield weight.sqrt().to(rows.dtype)[:, None, None] * rows
