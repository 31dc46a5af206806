"""Learn low-loss curves between posteriors: quadratic Bezier curves with a trained control point.

    w(t) = (1 - t)^2 w_0 + 2 t (1 - t) c + t^2 w_1
         = (1 - t) w_0 + t w_1 + 2 t (1 - t) b,                b = c - (w_0 + w_1) / 2

    minimize over b:   the mean of U(w(t)) / N over t in [0, 1] and over coupled draws (w_0, w_1)

U = -log_likelihood - log_prior is the loss of the training split and the prior, N its number of
points. Between points this is the curve of Garipov et al. Between posteriors, each pair of coupled
draws moves along its own curve, all with the same bend b, the bend of the means. The ends are
therefore the posteriors themselves, and the barrier along the curve is measured against the same
chord as along the straight path. A curve without a barrier does not imply that two modes are
permuted copies of each other: independent fits are connected by such curves as well.

References:
    Garipov et al. (2018), arXiv:1802.10026.
"""

import dataclasses

import torch
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.data import Dataset
from bnn_symm.diagnostics.barriers.interpolation import CoupledDraws
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import MAP
from bnn_symm.inference.callbacks import Callback
from bnn_symm.inference.optimization.optimizer import AdamStepper, OptimizationProblem
from bnn_symm.inference.training_loop import train
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator

# Optimizer, minibatches and schedule are those of a MAP fit.
_OPTIMIZER = MAP(num_steps=500, learning_rate=0.02)
# Positions per step, one in each of as many equal parts of [0, 1].
_POSITIONS = 4


def fit_bezier_curve(
    pairs: CoupledDraws,
    model: BayesianModel,
    dataset: Dataset,
    *,
    num_steps: int = 500,
    seed: int = 0,
) -> CoupledDraws:
    """Fit the bend of the path with the lowest training loss, starting from the straight path.

    Args:
        pairs: Coupled draws of two posteriors.
        model: The model of both posteriors.
        dataset: Its training split is used, in the minibatches of a MAP fit.
        num_steps: Number of Adam steps.
        seed: Seed of positions, pairs of draws and minibatches.

    Returns:
        The same draws with the fitted bend.

    Raises:
        ConfigError: If the loss along the curve is not finite.
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
            weights = curve.take(number).interpolate([1 - tau, tau])[0]
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
        train(AdamStepper(problem), Callback())
    except FitDiverged as error:
        raise ConfigError(
            f"the loss along the learned curve is not finite; use "
            f"{advise('--path geodesic', 'the geodesic, barrier')}"
        ) from error
    return dataclasses.replace(curve, bend=straight.detach())
