"""Maximum a posteriori (MAP): the mode of the tempered posterior, found by Adam.

The result is one chain of one draw. The objective is -log_likelihood / T - log_prior (or both
divided by T). The latent variables of the likelihood are optimized together with the weights, in
their unconstrained coordinates.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.minibatches import minibatch_potential
from bnn_symm.inference.optimization.optimizer import (
    OptimizationMethod,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.inference.validation import VALIDATION_POINTS
from bnn_symm.models import BayesianModel
from bnn_symm.models.likelihoods import is_classification
from bnn_symm.posteriors import Posterior
from bnn_symm.settings import Positive, settings


@settings
class MAP(OptimizationMethod):
    """Settings of MAP (config `inference: {name: map}`)."""

    name: Literal["map"] = "map"
    learning_rate: Positive = 0.003

    def _run(self, fit: FitContext) -> bool:
        problem = mode_problem(self, fit.model, fit.dataset, fit.seed, 0, initial_position(fit))
        return optimize_single_chain(fit, problem)[1]

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        return outcome.last_positions()


def mode_problem(
    method: OptimizationMethod,
    model: BayesianModel,
    dataset: Dataset,
    seed: int,
    chain: int,
    start: Tensor,
    transform: Callable[[int, Tensor], Tensor] = lambda step, position: position,
) -> OptimizationProblem:
    """Return the optimization of one position, which starts at a copy of `start`.

    The only tensor of the problem is called `position`.

    Args:
        method: its settings.
        model: the model.
        dataset: the training split is fitted, the validation split is monitored.
        seed: determines the order of the data.
        chain: index of the ensemble member.
        start: (parameter,).
        transform: (step, position) -> the position at which the density is evaluated. The default
            is the position itself, which finds a mode.
    """
    position = start.detach().clone().requires_grad_()
    train, scaling = dataset.train, dataset.scaling
    log_jacobian = train.mean(scaling.log_jacobian(train.y))

    def objective(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        flat = transform(step, position)
        value, log_likelihood, log_prior = minibatch_potential(
            method, model, flat, x, y, len(train)
        )
        nll = log_jacobian - log_likelihood / train.num_observations
        return value, {"nll": nll, "log_prior": log_prior}

    def validate(step: int) -> dict[str, float | None]:
        part = dataset.validation.take(slice(0, VALIDATION_POINTS))
        if len(part) == 0:
            return {"validation_nll": None}
        likelihood: Any = model.likelihood
        with torch.no_grad():
            outputs = model.outputs(position, part.x)
            latents = model.latents(position)
            log_prob = likelihood.log_prob(outputs, part.y, latents)
            in_own_units = log_prob.double() - scaling.log_jacobian(part.y).to(log_prob.device)
            scores: dict[str, float | None] = {"validation_nll": -part.mean(in_own_units)}
            if is_classification(likelihood):
                probabilities = likelihood.probabilities(outputs, latents)
                correct = probabilities.argmax(-1) == part.y
                scores["validation_accuracy"] = part.mean(correct)
        return scores

    return OptimizationProblem(
        settings=method,
        tensors={"position": position},
        objective=objective,
        validate=validate,
        train=train,
        seed=seed,
        chain=chain,
    )
