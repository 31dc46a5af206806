"""Initial means and standard deviations of Gaussian approximations."""

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import ClosedFormPosterior, Posterior

# Number of draws that are read at once.
_CHUNK = 100


def initial_moments(
    model: BayesianModel, initial: Posterior | None, scale: float
) -> tuple[Float[Tensor, " parameter"], Float[Tensor, " parameter"]]:
    """Return initial means and standard deviations of a Gaussian approximation.

    Args:
        model: determines the device and the dtype of the result.
        initial: the posterior to start from, or None for the initial values of the network.
        scale: all standard deviations, unless the posterior has a closed form.
    """
    loc = (model.initial() if initial is None else _mean(model, initial)).clone()
    if isinstance(initial, ClosedFormPosterior):
        return loc, initial.standard_deviation().to(model.device, model.dtype)
    return loc, torch.full_like(loc, scale)


def _mean(model: BayesianModel, initial: Posterior) -> Float[Tensor, " parameter"]:
    """Return the mean of a posterior; with several chains or members, the mean of the first one.

    Hidden units are permuted differently in each chain, so the mean over all chains is no
    meaningful network.
    """
    chains, draws, parameters = initial.shape
    if chains == 1:
        return initial.mean().to(model.device, model.dtype)
    total = torch.zeros(parameters, dtype=torch.float64)
    for start in range(0, draws, _CHUNK):
        total += initial.read(0, start, min(start + _CHUNK, draws)).cpu().double().sum(0)
    return (total / draws).to(model.device, model.dtype)
