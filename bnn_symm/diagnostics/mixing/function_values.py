"""Evaluate draws of a network as functions: outputs and log likelihoods at a few points.

Function values do not depend on the numbering of hidden units, so they compare chains whatever
modes these are in. Outputs of a softmax are centered over the classes: the centered outputs are
determined by the predicted probabilities and, unlike these, do not saturate. For the same reason
the log likelihood of a class, log p, is replaced by the log odds, log p - log(1 - p), which
increase with it. Everything runs in float64 and is rounded to float32 at the end. Permuted networks
then agree, also in R-hat's ranks of distances to the median: the two draws around the median tie
exactly if their difference has bits to spare, and otherwise by chance of rounding.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.data import Split
from bnn_symm.models import BayesianModel, Categorical
from bnn_symm.models.likelihoods import canonical_outputs, is_classification
from bnn_symm.posteriors import MixturePosterior, Posterior
from bnn_symm.summaries import Summarized

# Maximum and minimum number of points, and the work that decides between them.
_POINTS, _LEAST_POINTS, _FLOPS = 100, 10, 1e11


@dataclass(frozen=True, kw_only=True, repr=False)
class FunctionValues(Summarized):
    """Function values of draws.

    Attributes:
        outputs: (chain, draw, point, output), centered over classes for a softmax.
        pointwise: (chain, draw, point), log likelihoods in nats, in the units of training; log odds
            for classes.
        log_likelihood: (chain, draw), summed over the points.
    """

    outputs: Float[np.ndarray, "chain draw point output"]
    pointwise: Float[np.ndarray, "chain draw point"]
    log_likelihood: Float[np.ndarray, "chain draw"]

    def _facts(self) -> dict[str, Any]:
        """Return what its representation shows."""
        return dict(zip(("chains", "draws", "points", "outputs"), self.outputs.shape, strict=True))

    @property
    def num_points(self) -> int:
        """Return the number of points."""
        return self.outputs.shape[2]

    @property
    def columns(self) -> Float[np.ndarray, "chain draw column"]:
        """Return outputs, pointwise log likelihoods (or log odds) and total log likelihood."""
        flat = self.outputs.reshape(*self.outputs.shape[:2], -1)
        columns = np.concatenate([flat, self.pointwise, self.log_likelihood[..., None]], 2)
        # Finite numbers beyond the range of float32 (extreme Poisson rates) stay finite, and in
        # order.
        most = float(np.finfo(np.float32).max)
        return np.where(np.isfinite(columns), columns.clip(-most, most), columns).astype(np.float32)


def function_values(
    posterior: Posterior, part: Split, *, num_points: int | None = None
) -> FunctionValues:
    """Evaluate all draws of a posterior at the first points of a split of the data.

    Args:
        posterior: Any posterior.
        part: Standardized points with their targets.
        num_points: Maximum number of points; default 100, and fewer for large networks.

    Returns:
        Outputs and log likelihoods of every draw.
    """
    chains, draws, _ = posterior.shape
    if num_points is None:
        flops = max(1, count_flops(posterior.model.net, tuple(part.x.shape[1:]), 1))
        num_points = int(min(_POINTS, max(_LEAST_POINTS, _FLOPS / (flops * chains * draws))))
    if isinstance(posterior, MixturePosterior) and posterior.of_weights is not posterior:
        parts = [function_values(own, part, num_points=num_points) for own in posterior.components]
        arrays = ("outputs", "pointwise", "log_likelihood")
        return FunctionValues(
            **{name: np.concatenate([getattr(own, name) for own in parts]) for name in arrays}
        )
    model = posterior.evaluation_model(to_float64(posterior.model))
    part = part.take(slice(0, num_points)).to(model.device, torch.float64)
    outputs, pointwise, totals = [], [], []
    with torch.inference_mode():
        for chunk in posterior.iter_draws():
            for flat in chunk.double():
                own = model.outputs(flat, part.x)
                log_likelihood = model.likelihood.log_prob(own, part.y, model.latents(flat))
                totals.append(log_likelihood.sum().cpu())
                pointwise.append(_pointwise(model, own, part.y, log_likelihood).cpu())
                outputs.append(canonical_outputs(model.likelihood, own).cpu())
    return FunctionValues(
        outputs=torch.stack(outputs).unflatten(0, (chains, draws)).numpy(),
        pointwise=torch.stack(pointwise).unflatten(0, (chains, draws)).numpy(),
        log_likelihood=torch.stack(totals).unflatten(0, (chains, draws)).numpy(),
    )


def _pointwise(model: BayesianModel, outputs: Tensor, y: Tensor, log_likelihood: Tensor) -> Tensor:
    if isinstance(model.likelihood, Categorical):
        own = outputs.gather(-1, y[:, None])
        others = outputs.scatter(-1, y[:, None], -torch.inf)
        return own[:, 0] - others.logsumexp(-1)
    if is_classification(model.likelihood):
        least = torch.finfo(log_likelihood.dtype).tiny
        return log_likelihood - torch.log(-torch.expm1(log_likelihood.clamp(max=-least)))
    return log_likelihood


def to_float64(model: BayesianModel) -> BayesianModel:
    """Return a copy of the model in float64.

    Args:
        model: Any model; it is not changed.

    Returns:
        The copy.
    """
    return BayesianModel(copy.deepcopy(model.net).double(), model.prior, model.likelihood)
