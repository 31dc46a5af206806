"""The structures of the Laplace approximation: which coordinates have which blocks of curvature.

| structure | blocks | other coordinates |
| --- | --- | --- |
| `full` | one of all coordinates | none |
| `kronecker` | `kronecker` of each layer; of each other tensor full, or diagonal if large | none |
| `diagonal` | the diagonal of all coordinates | none |
| `last_layer` | one of the last layer and the likelihood's own variables | at the mode |
| `subnetwork` | one of weights of largest marginal variance and those variables | at the mode |

The marginal variances that choose the subnetwork are those of the diagonal structure (Daxberger et
al. 2021, arXiv:2010.14689, with its diagonal approximation). Weights without any effect on the
data, such as those of a constant input, have the variance of the prior, which is the largest.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.errors import ConfigError
from bnn_symm.inference.laplace.blocks import (
    Block,
    DenseBlock,
    DiagonalBlock,
    KroneckerBlock,
    free_entries,
)
from bnn_symm.inference.laplace.curvature import blocks, diagonals, last_layer, tensor_blocks
from bnn_symm.inference.laplace.kronecker import (
    KroneckerLayer,
    kronecker_factors,
    kronecker_layers,
)
from bnn_symm.models import BayesianModel

Structure = Literal["diagonal", "kronecker", "last_layer", "subnetwork", "full"]

# Three copies of a block are held in float64; beyond this number of coordinates they need more than
# 10 GB.
LARGEST_BLOCK = 20_000
# Tensors outside of layers with Kronecker factors, such as those of norms, have full blocks up to
# this size.
_LARGEST_TENSOR = 512


class CurvatureStopped(Exception):
    """Reports that a fit was stopped while the curvature was computed."""


@dataclass(frozen=True)
class CurvaturePlan:
    """The blocks of a structure, before a mode is known.

    Attributes:
        structure: its name.
        coordinates: those of a dense block; for a subnetwork, all that it is chosen from.
        layers: layers with Kronecker factors.
        tensors: coordinates of each other tensor, for `kronecker`.
        size: the number of weights of a subnetwork.
    """

    structure: Structure
    coordinates: Int[Tensor, " coordinate"]
    layers: tuple[KroneckerLayer, ...] = ()
    tensors: tuple[Int[Tensor, " coordinate"], ...] = ()
    size: int = 0

    def blocks(
        self,
        model: BayesianModel,
        position: Float[Tensor, " parameter"],
        part: Split,
        prior: Float[Tensor, " parameter"],
        temperature: float,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[Block]:
        """Return the curvature at a position, divided by the temperature.

        Args:
            model: the model.
            position: the mode.
            part: the training split.
            prior: precisions of the prior, by which a subnetwork is chosen.
            temperature: T.
            should_stop: asked between chunks of points.

        Raises:
            CurvatureStopped: if the fit is to stop.
        """

        def total(terms: Iterable[Any]) -> Any:
            return _total(terms, should_stop)

        if self.structure == "kronecker":
            return self._kronecker(model, position, part, temperature, total)
        coordinates = self.coordinates
        if self.structure in ("diagonal", "subnetwork"):
            diagonal = total(diagonals(model, position, part)) / temperature
            if self.structure == "diagonal":
                return [DiagonalBlock(coordinates, diagonal)]
            variance = (diagonal + prior).reciprocal()
            variance[model.num_net_parameters :] = torch.inf  # always part of the block
            number = self.size + len(variance) - model.num_net_parameters
            coordinates = variance.topk(number).indices.sort().values
        matrix = total(blocks(model, position, coordinates, part)) / temperature
        return [DenseBlock(coordinates, matrix)]

    def _kronecker(
        self,
        model: BayesianModel,
        position: Tensor,
        part: Split,
        temperature: float,
        total: Callable[[Iterable[Any]], Any],
    ) -> list[Block]:
        found: list[Block] = []
        if self.layers:
            factors = total(kronecker_factors(model, position, self.layers, part))
            for layer, (left, right) in zip(self.layers, factors, strict=True):
                is_whole = layer.num_free == layer.coordinates.numel()
                kind = KroneckerBlock if is_whole else free_entries
                found.append(kind(layer.coordinates, left / temperature, right))
        if self.tensors:
            terms = tensor_blocks(model, position, self.tensors, _LARGEST_TENSOR, part)
            for coordinates, own in zip(self.tensors, total(terms), strict=True):
                kind = DenseBlock if own.dim() == 2 else DiagonalBlock
                found.append(kind(coordinates, own / temperature))
        return found


def plan_curvature(
    structure: Structure, size: int, model: BayesianModel, x: Float[Tensor, "point *feature"]
) -> CurvaturePlan:
    """Return the blocks of a structure.

    Args:
        structure: its name.
        size: the number of weights of a subnetwork.
        model: the model.
        x: one point is enough.

    Raises:
        ConfigError: if a block has too many coordinates, or there is no last layer.
    """
    everything = torch.arange(model.num_parameters, device=model.device)
    if structure == "diagonal":
        return CurvaturePlan(structure, everything)
    if structure == "kronecker":
        return _plan_kronecker(model, x)
    if structure == "subnetwork":
        if size > LARGEST_BLOCK:
            raise ConfigError(
                f"inference.subnetwork_size: got {size}, expected at most {LARGEST_BLOCK}; set "
                f"inference.subnetwork_size={LARGEST_BLOCK}, or inference.structure=kronecker"
            )
        return CurvaturePlan(structure, everything, size=min(size, model.num_net_parameters))
    coordinates = everything if structure == "full" else last_layer(model, x).to(model.device)
    if len(coordinates) > LARGEST_BLOCK:
        what = "the network" if structure == "full" else "the last layer"
        raise ConfigError(
            f"inference.structure={structure}: {what} has {len(coordinates)} parameters, expected "
            f"at most {LARGEST_BLOCK}; set inference.structure=kronecker"
        )
    return CurvaturePlan(structure, coordinates)


def _plan_kronecker(model: BayesianModel, x: Tensor) -> CurvaturePlan:
    layers = kronecker_layers(model, x)
    covered = torch.zeros(model.num_parameters, dtype=torch.bool, device=model.device)
    for layer in layers:
        covered[layer.coordinates[layer.coordinates >= 0]] = True
        if layer.num_free < layer.coordinates.numel() and layer.num_free > LARGEST_BLOCK:
            raise ConfigError(
                f"inference.structure=kronecker: {layer.weight} has {layer.num_free} free entries "
                "and others, which together have no Kronecker factors; expected at most "
                f"{LARGEST_BLOCK} in such a layer; set inference.structure=diagonal"
            )
    tensors = []
    for where in model.slices().values():
        coordinates = torch.arange(where.start, where.stop, device=model.device)
        coordinates = coordinates[~covered[where]]
        if len(coordinates):
            tensors.append(coordinates)
    return CurvaturePlan(
        "kronecker",
        torch.arange(model.num_parameters, device=model.device),
        tuple(layers),
        tuple(tensors),
    )


def _total(terms: Iterable[Any], should_stop: Callable[[], bool]) -> Any:
    """Return the sum of tensors, or of nested lists and tuples of tensors."""
    result: Any = None
    for term in terms:
        if should_stop():
            raise CurvatureStopped
        result = term if result is None else _add(result, term)
    return result


def _add(first: Any, second: Any) -> Any:
    if isinstance(first, Tensor):
        return first + second
    return [_add(a, b) for a, b in zip(first, second, strict=True)]


def covers_everything(structure: Structure) -> bool:
    """Return whether a structure has the curvature of all coordinates.

    Args:
        structure: its name.
    """
    return structure in ("diagonal", "kronecker", "full")


def are_finite(blocks: Sequence[Block]) -> bool:
    """Return whether all curvatures are finite.

    Args:
        blocks: the curvature.
    """
    return all(
        bool(torch.isfinite(value).all())
        for block in blocks
        for value in vars(block).values()
        if value.is_floating_point()
    )
