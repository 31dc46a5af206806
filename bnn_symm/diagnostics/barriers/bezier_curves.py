"""Curves of low loss between posteriors: quadratic Bezier curves whose control point is learned.

    w(t) = (1 - t)^2 w_0 + 2 t (1 - t) c + t^2 w_1
         = (1 - t) w_0 + t w_1 + 2 t (1 - t) b,                b = c - (w_0 + w_1) / 2

    minimize over b        the mean over t in [0, 1], and over coupled draws (w_0, w_1), of U(w(t))
    / N

U = -log_likelihood - log_prior is the loss that the training part and the prior make, N its points.
Between points this is the curve of Garipov et al.; between posteriors each pair of coupled draws
moves on a curve of its own, all with the same bend b, which is that of the means, so that the ends
are the posteriors themselves, and the barrier along the curve is against the same chord as that
along the straight path. A curve without a barrier does not say that two modes are copies of one:
independent fits are connected like that.

References:
    Garipov et al. (2018), arXiv:1802.10026.
"""

import dataclasses

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import MAP
from bnn_symm.inference.callbacks import Callbacks
from bnn_symm.inference.optimization.training_loop import OptimizationProblem, optimize
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator

# Adam's steps, minibatches and schedule, as those of a MAP fit.
_OPTIMIZER = MAP(num_steps=500, learning_rate=0.02)
# Positions a step, one in each of as many equal parts of [0, 1].
_POSITIONS = 4


def bent(
    pairs: CoupledDraws,
    model: BayesianModel,
    dataset: Dataset,
    *,
    num_steps: int = 500,
    seed: int = 0,
) -> CoupledDraws:
    """The same draws on the curve that is best on the training part, found by Adam from the
    straight path.

    Args:
        pairs: of two posteriors.
        model: theirs.
        dataset: its training part is used, in the minibatches of a MAP fit.
        num_steps: of Adam.
        seed: of positions, pairs of draws and minibatches.

    Raises:
        FitDiverged: if the loss along the path is not finite.
    """
    first = pairs.draws[0]
    dataset = dataset.to(model.device, model.dtype)
    size = len(dataset.train)
    straight = torch.zeros_like(first[0]).requires_grad_()
    curve = dataclasses.replace(pairs, path="bezier", bend=straight)

    def objective(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch_generator(seed, "curve", step)
        shift = float(torch.rand((), generator=generator))
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for part, number in enumerate(
            torch.randint(len(first), (_POSITIONS,), generator=generator).tolist()
        ):
            tau = (part + shift) / _POSITIONS
            weights = curve.take(number).at([1 - tau, tau])[0]
            log_likelihood = model.log_likelihood(weights, x, y).sum(dtype=torch.float64)
            total = total - log_likelihood * (size / len(x)) - model.log_prior(weights)
        return total / _POSITIONS, {}

    problem = OptimizationProblem(
        settings=dataclasses.replace(_OPTIMIZER, num_steps=num_steps),
        tensors={"bend": straight},
        objective=objective,
        validate=lambda step: {"validation_nll": None},
        train=dataset.train,
        seed=seed,
    )
    try:
        optimize(problem, Callbacks([]))
    except FitDiverged as error:
        raise ConfigError(
            "the loss along the learned curve is not finite; use --path geodesic"
        ) from error
    return dataclasses.replace(curve, bend=straight.detach())
