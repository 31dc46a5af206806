"""Maximum a posteriori: the mode of the tempered posterior, by Adam. One chain of one draw.

It minimizes -log_likelihood / T - log_prior (or both over T). The latent variables of the
likelihood are optimized with the weights, in their unconstrained coordinates.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.data import Dataset, Scaling
from bnn_symm.inference.callbacks import FitState, State
from bnn_symm.inference.method import FitContext, initial_position
from bnn_symm.inference.optimization.optimality import mode_warnings
from bnn_symm.inference.optimization.training_loop import (
    VALIDATION_POINTS,
    OptimizationMethod,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.models import BayesianModel, Bernoulli, Categorical
from bnn_symm.posteriors import DrawChunk, Posterior, SamplePosterior, stack_chains
from bnn_symm.settings import Positive, settings


@settings
class MAP(OptimizationMethod):
    """Settings of MAP (config `inference: {name: map}`)."""

    name: Literal["map"] = "map"
    learning_rate: Positive = 0.003

    def _run(self, fit: FitContext) -> bool:
        problem = mode_problem(self, fit.model, fit.dataset, fit.seed, 0, initial_position(fit))
        return optimize_single_chain(fit, problem)[1]

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return whether it ended far from the mode, in words."""
        if self.early_stopping is not None:
            return []
        positions = {chain: state["position"] for chain, state in fit_state.states.items()}
        return mode_warnings(self, fit, fit_state.history, positions)

    def _posterior(
        self,
        model: BayesianModel,
        scaling: Scaling,
        fit_state: FitState,
        seed: int,
        keywords: dict[str, Any],
    ) -> Posterior:
        return posterior_of_states(model, scaling, fit_state.states, keywords)


def posterior_of_states(
    model: BayesianModel, scaling: Scaling, states: dict[int, State], keywords: dict[str, Any]
) -> SamplePosterior:
    """One chain of one draw for the position of every state."""
    chunks = {
        chain: DrawChunk(chain, 0, state["position"][None], {}) for chain, state in states.items()
    }
    return stack_chains(model, scaling, chunks, **keywords)


def mode_problem(
    method: OptimizationMethod,
    model: BayesianModel,
    dataset: Dataset,
    seed: int,
    chain: int,
    start: Tensor,
    transform: Callable[[int, Tensor], Tensor] = lambda step, position: position,
) -> OptimizationProblem:
    """The optimization of one position, from a copy of `start`; its one tensor is called
    `position`.

    Args:
        method: its settings.
        model: whose density it is.
        dataset: the training part is fitted, the validation part watched.
        seed: of the data order.
        chain: number of the ensemble member.
        start: (parameter,).
        transform: (step, position) -> the position at which the density is evaluated. The default
            is the position itself, which finds a mode.
    """
    position = start.detach().clone().requires_grad_()
    size = len(dataset.train)
    log_scale = float(np.log(dataset.scaling.y_scale))

    def objective(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        flat = transform(step, position)
        log_likelihood = model.log_likelihood(flat, x, y).sum(dtype=torch.float64) * (size / len(x))
        log_prior = model.log_prior(flat)
        loss = -log_likelihood / method.temperature - method.prior_weight * log_prior
        return loss, {"nll": log_scale - log_likelihood / size, "log_prior": log_prior}

    def validate(step: int) -> dict[str, float | None]:
        part = dataset.validation.take(slice(0, VALIDATION_POINTS))
        if len(part) == 0:
            return {"validation_nll": None}
        likelihood = model.likelihood
        with torch.no_grad():
            outputs = model.outputs(position, part.x)
            log_prob = likelihood.log_prob(outputs, part.y, model.latents(position))
            found: dict[str, float | None] = {
                "validation_nll": log_scale - float(log_prob.double().mean())
            }
            if isinstance(likelihood, Categorical | Bernoulli):
                right = likelihood.probabilities(outputs).argmax(-1) == part.y
                found["validation_accuracy"] = float(right.double().mean())
        return found

    return OptimizationProblem(
        settings=method,
        tensors={"position": position},
        objective=objective,
        validate=validate,
        train=dataset.train,
        seed=seed,
        chain=chain,
    )
