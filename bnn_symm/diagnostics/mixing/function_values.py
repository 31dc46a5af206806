"""Draws of a network as functions: outputs and log likelihoods at a few points, in float64.

These do not know how hidden units are numbered, so chains may be compared by them whatever modes
they sit in. Outputs of a softmax are taken less their mean over the classes, which is what the
predicted probabilities determine, and which, unlike these, does not saturate. For the same reason
the log likelihood of a class, log p, is taken as the log odds, log p - log(1 - p), which rise with
it. Everything runs in float64 and is rounded to float32 at the end: permuted networks then agree,
also in R-hat's ranks of distances to the median, where the two draws around the median tie exactly
when their difference has bits to spare, and else by chance of rounding.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.architectures import count_flops
from bnn_symm.data import Split
from bnn_symm.models import BayesianModel, Bernoulli, Categorical
from bnn_symm.posteriors import Posterior

# At most so many points; as many forward passes as this work allows, but not fewer than the least.
_POINTS, _LEAST_POINTS, _FLOPS = 100, 10, 1e11


@dataclass(frozen=True, kw_only=True)
class FunctionValues:
    """Functions of draws.

    Attributes:
        outputs: (chain, draw, point, output), less their mean over classes for a softmax.
        pointwise: (chain, draw, point), log likelihoods in nats, in the units of training; of
            classes, log odds.
        log_likelihood: (chain, draw), of all the points.
        is_classification: whether `pointwise` are log odds.
    """

    outputs: Float[np.ndarray, "chain draw point output"]
    pointwise: Float[np.ndarray, "chain draw point"]
    log_likelihood: Float[np.ndarray, "chain draw"]
    is_classification: bool

    @property
    def num_points(self) -> int:
        """Behind them."""
        return self.outputs.shape[2]

    @property
    def columns(self) -> Float[np.ndarray, "chain draw column"]:
        """Outputs point by point, log likelihoods (or log odds) of the points, and the log
        likelihood of all.
        """
        flat = self.outputs.reshape(*self.outputs.shape[:2], -1)
        columns = np.concatenate([flat, self.pointwise, self.log_likelihood[..., None]], 2)
        # Finite numbers that float32 cannot hold (of Poisson rates far out) stay finite, and in
        # their order.
        most = float(np.finfo(np.float32).max)
        return np.where(np.isfinite(columns), columns.clip(-most, most), columns).astype(np.float32)

    def column_name(self, column: int) -> str:
        """In words."""
        points, outputs = self.outputs.shape[2:]
        if column < points * outputs:
            return f"output {column % outputs} at point {column // outputs}"
        column -= points * outputs
        what = "log odds of the class" if self.is_classification else "log likelihood"
        return (
            f"{what} of point {column}"
            if column < points
            else f"log likelihood of all {points} points"
        )


def function_values(
    posterior: Posterior, part: Split, *, num_points: int | None = None
) -> FunctionValues:
    """Evaluates all draws of a posterior at the first points of a part.

    Args:
        posterior: any.
        part: standardized points with their targets.
        num_points: at most; default 100, and fewer for large networks.
    """
    chains, draws, _ = posterior.shape
    model = in_double(posterior.model)
    if num_points is None:
        flops = max(1, count_flops(model.net, tuple(part.x.shape[1:]), 1))
        num_points = int(min(_POINTS, max(_LEAST_POINTS, _FLOPS / (flops * chains * draws))))
    part = part.take(slice(0, num_points)).to(model.device, torch.float64)
    outputs, pointwise, totals = [], [], []
    with torch.inference_mode():
        for chunk in posterior.iter_draws():
            for flat in chunk.double():
                own = model.outputs(flat, part.x)
                log_likelihood = model.likelihood.log_prob(own, part.y, model.latents(flat))
                totals.append(log_likelihood.sum().cpu())
                pointwise.append(_pointwise(model, own, part.y, log_likelihood).cpu())
                center = (
                    own.mean(-1, keepdim=True) if isinstance(model.likelihood, Categorical) else 0.0
                )
                outputs.append((own - center).cpu())
    return FunctionValues(
        outputs=torch.stack(outputs).unflatten(0, (chains, draws)).numpy(),
        pointwise=torch.stack(pointwise).unflatten(0, (chains, draws)).numpy(),
        log_likelihood=torch.stack(totals).unflatten(0, (chains, draws)).numpy(),
        is_classification=isinstance(model.likelihood, Categorical | Bernoulli),
    )


def _pointwise(model: BayesianModel, outputs: Tensor, y: Tensor, log_likelihood: Tensor) -> Tensor:
    if isinstance(model.likelihood, Bernoulli):
        return outputs[..., 0] * (2 * y - 1)
    if isinstance(model.likelihood, Categorical):
        own = outputs.gather(-1, y[:, None])
        others = outputs.scatter(-1, y[:, None], -torch.inf)
        return own[:, 0] - others.logsumexp(-1)
    return log_likelihood


def in_double(model: BayesianModel) -> BayesianModel:
    """The same model in float64."""
    return BayesianModel(copy.deepcopy(model.net).double(), model.prior, model.likelihood)
