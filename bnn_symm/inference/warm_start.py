"""Where a Gaussian approximation begins when it starts from another posterior."""

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import Posterior

# Draws read at once.
_CHUNK = 100


def initial_mean(model: BayesianModel, initial: Posterior) -> Float[Tensor, " parameter"]:
    """The mean of a posterior; of several chains or ensemble members that of the first.

    Chains number their units differently, so that the mean of all is the weights of no network.
    """
    chains, draws, parameters = initial.shape
    if chains == 1:
        return initial.mean().to(model.device, model.dtype)
    total = torch.zeros(parameters, dtype=torch.float64)
    for start in range(0, draws, _CHUNK):
        total += initial.read(0, start, min(start + _CHUNK, draws)).cpu().double().sum(0)
    return (total / draws).to(model.device, model.dtype)
