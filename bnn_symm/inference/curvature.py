"""Generalised Gauss-Newton curvature of the log likelihood of a data set, in some coordinates of the flat vector.

    G = sum_n J_n^T F_n J_n,   J_n = d z_n / d w,   F_n = Fisher information of a target given z_n = (outputs, latents)

Exact for every likelihood (no targets are sampled), positive semi-definite, and the Hessian of -log_likelihood where
outputs are linear in these coordinates and are natural parameters (`models.fisher`).

References:
    Schraudolph 2002, doi:10.1162/08997660260028683; Martens 2020, arXiv:1412.1193.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Part
from bnn_symm.errors import ConfigError
from bnn_symm.inference.known_layers import layer_uses
from bnn_symm.models import BayesianModel
from bnn_symm.models.fisher import fisher_root

# Numbers of the matrices R J of the points that are handled at once: 64 MB in float32.
_NUMBERS_AT_ONCE = 2**24
# Points at once at most: what their forward passes keep stays small beside the above, and a fit can stop in between.
_POINTS_AT_ONCE = 256


def last_layer(model: BayesianModel, x: Float[Tensor, "point *feature"]) -> Int[Tensor, " coordinate"]:
    """Coordinates of the layer that a forward pass ends with, and of the likelihood's own variables.

    Args:
        model: any.
        x: one point is enough.

    Raises:
        ConfigError: if no dense layer or convolution is the only one to use its weight.
    """
    uses = layer_uses(model.net, model.layer_values(model.unflatten(model.initial())), x[:1])
    if not uses:
        raise ConfigError(
            "inference.structure=last_layer wants a linear layer or a convolution whose weight nothing else uses, and "
            "finds none; type --set inference.structure=diagonal"
        )
    names = (uses[-1].weight, uses[-1].bias)
    own = [torch.arange(where.start, where.stop) for name, where in model.slices().items() if name in names]
    return torch.cat([*own, torch.arange(model.num_net_parameters, model.num_parameters)])


def diagonals(model: BayesianModel, position: Float[Tensor, " parameter"], part: Part) -> Iterator[Tensor]:
    """The diagonal of G, (parameter,), as terms to be summed, each of some of the points, in float64."""
    everything = torch.arange(len(position), device=position.device)
    for rows in _rooted_jacobians(model, position, everything, part):
        yield rows.square().sum((0, 1)).double()


def blocks(
    model: BayesianModel,
    position: Float[Tensor, " parameter"],
    coordinates: Int[Tensor, " coordinate"],
    part: Part,
) -> Iterator[Tensor]:
    """The block of G of some coordinates, (coordinate, coordinate), as terms to be summed, in float64."""
    for rows in _rooted_jacobians(model, position, coordinates, part):
        flat = rows.flatten(0, 1).double()
        yield flat.T @ flat


def prior_precision(
    model: BayesianModel, position: Float[Tensor, " parameter"], coordinates: Int[Tensor, " coordinate"]
) -> Float[Tensor, " coordinate"]:
    """-d^2 log prior / dw^2 in some coordinates, in float64; the prior is independent over them."""
    gradient = torch.func.grad(model.log_prior)
    second = torch.func.grad(lambda flat: gradient(flat).sum())(position.double())
    return -second[coordinates]


def _rooted_jacobians(
    model: BayesianModel, position: Tensor, coordinates: Tensor, part: Part
) -> Iterator[Float[Tensor, "point row coordinate"]]:
    """R_n J_n, with R_n^T R_n = F_n, for some points at a time."""
    likelihood = model.likelihood

    def of_point(x: Tensor) -> Tensor:
        def variables(own: Tensor) -> Tensor:
            flat = position.index_copy(0, coordinates, own)
            return torch.cat([model.outputs(flat, x[None])[0], *(v[None] for v in model.latents(flat).values())])

        found: Any = torch.func.vjp(variables, position[coordinates])
        z, pull = found
        outputs = z[: len(z) - len(likelihood.latents)]
        root = fisher_root(likelihood, outputs[None], model.latents(position))[0]
        return torch.vmap(lambda row: pull(row)[0])(root)

    with torch.no_grad():
        num_rows = model.outputs(position, part.x[:1]).shape[-1] + len(likelihood.latents)
    at_once = max(1, min(_POINTS_AT_ONCE, _NUMBERS_AT_ONCE // (num_rows * len(coordinates))))
    for points in part.x.split(at_once):
        yield torch.vmap(of_point)(points).detach()
