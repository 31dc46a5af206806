"""Apply an element of a network's continuous symmetries to weights and to posteriors.

Scales multiply every coordinate of the flat vector by a positive number, so that independent
normals stay independent: means and standard deviations are multiplied alike. Rotations mix
coordinates. Draws are rotated one by one; a family of normals with independent parts is not closed
under rotations, and is refused.

The function of every draw is unchanged, and so is the likelihood. A prior of independent normals of
one scale for each tensor is invariant under rotations, but not under scales.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import free_parameters
from bnn_symm.errors import ConfigError
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import (
    GaussianPosterior,
    LowRankGaussianPosterior,
    Posterior,
    SamplePosterior,
)
from bnn_symm.symmetry import PermutationSpec, rescale
from bnn_symm.symmetry.linear_maps import LinearMaps


@dataclass(frozen=True, eq=False)
class Transport:
    """Hold scales of units and matrices of heads.

    Attributes:
        spec: of the network.
        factors: group -> (unit,), positive.
        maps: maps of the network and one matrix for each of their blocks.
    """

    spec: PermutationSpec
    factors: Mapping[str, Tensor]
    maps: tuple[tuple[LinearMaps, Float[Tensor, "block unit unit"]], ...] = ()

    def apply(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of the same function.

        Args:
            tensors: name -> (*draw, *shape), whole weights.
        """
        result = rescale(self.spec, tensors, self.factors)
        for maps, matrices in self.maps:
            result = maps.apply(result, matrices)
        return result

    def apply_flat(
        self, model: BayesianModel, flat: Float[Tensor, "*draw parameter"]
    ) -> Float[Tensor, "*draw parameter"]:
        """Return the transformed flat vector, or a batch of them.

        Args:
            model: the model.
            flat: free coordinates and latent variables of the likelihood, which are unchanged.
        """
        values = model.unflatten(flat)
        moved = free_parameters(model.net, self.apply(model.layer_values(values)))
        return model.flatten({**values, **moved})

    def multipliers(self, model: BayesianModel) -> Float[Tensor, " parameter"]:
        """Return what the scales multiply every coordinate of the flat vector by.

        Args:
            model: the model.
        """
        ones = torch.ones(model.num_parameters, device=model.device, dtype=model.dtype)
        return Transport(self.spec, self.factors).apply_flat(model, ones)


def transport_posterior(posterior: Posterior, transport: Transport) -> Posterior:
    """Return a posterior of the same functions, transformed.

    Args:
        posterior: draws, or independent normals, possibly with a part of low rank.
        transport: of its network.

    Returns:
        A posterior of the same kind.

    Raises:
        ConfigError: if the family is not closed under the transformation.
    """
    model = posterior.model
    if type(posterior) is SamplePosterior:
        return SamplePosterior(
            model,
            posterior.scaling,
            positions=posterior.positions.map(partial(_transported, model, transport)),
            sample_stats=posterior.sample_stats,
            info=posterior.info,
            history=posterior.history,
        )
    if type(posterior) not in (GaussianPosterior, LowRankGaussianPosterior):
        raise ConfigError(
            f"scales and rotations of a {posterior.kind} posterior are not supported; align "
            "permutations only, or fit draws"
        )
    assert isinstance(posterior, GaussianPosterior | LowRankGaussianPosterior)
    if transport.maps:
        raise ConfigError(
            f"a rotated {posterior.kind} posterior is not of its family: its coordinates are not "
            "independent; align permutations and scales, or posteriors of draws"
        )
    factor = transport.multipliers(model)
    arguments = {
        "loc": posterior.loc * factor,
        "scale": posterior.scale * factor,
        "num_draws": posterior.num_draws,
        "seed": posterior.seed,
        "noise_order": posterior.noise_order,
        "info": posterior.info,
        "history": posterior.history,
    }
    if isinstance(posterior, LowRankGaussianPosterior):
        arguments["factors"] = posterior.factors * factor
    return type(posterior)(model, posterior.scaling, **arguments)


def _transported(
    model: BayesianModel, transport: Transport, chain: int, start: int, draws: Tensor
) -> Tensor:
    """Return consecutive draws of one chain, transformed."""
    return transport.apply_flat(model, draws.to(model.device))
