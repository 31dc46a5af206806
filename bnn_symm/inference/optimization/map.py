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
from bnn_symm.inference.density.minibatch import MinibatchDensity, SharedDensity, compiles
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
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
class ModeMethod(OptimizationMethod):
    """Settings of methods that follow the gradient of the tempered posterior at one position.

    Attributes:
        compile: whether gradients of fully connected networks are compiled, on the CPU; `auto`: if
            there are 20,000 steps of all networks or more.
    """

    compile: bool | Literal["auto"] = "auto"

    @property
    def num_networks(self) -> int:
        """Return the number of networks that are optimized."""
        return 1

    def is_compiled(self, model: BayesianModel) -> bool:
        """Return whether gradients of the model are compiled if a compiler is available.

        Args:
            model: the model.
        """
        return compiles(self.compile, model, self.num_networks * (self.steps_per_chain or 0))

    def density(self, fit: FitContext) -> MinibatchDensity:
        """Return the density of the tempered posterior.

        Args:
            fit: the arguments of the fit.
        """
        return SharedDensity(self).of(fit.model, len(fit.dataset.train))


@settings
class MAP(ModeMethod):
    """Settings of MAP (config `inference: {name: map}`)."""

    name: Literal["map"] = "map"
    learning_rate: Positive = 0.003

    def _run(self, fit: FitContext) -> bool:
        start = initial_position(fit)
        problem = mode_problem(self, self.density(fit), fit.dataset, fit.seed, 0, start)
        return optimize_single_chain(fit, problem)[1]

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        return outcome.last_positions()


def mode_problem(
    method: OptimizationMethod,
    density: MinibatchDensity,
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
        density: the tempered posterior, which is maximized.
        dataset: the training split is fitted, the validation split is monitored.
        seed: determines the order of the data.
        chain: index of the ensemble member.
        start: (parameter,).
        transform: (step, position) -> the position at which the density is evaluated. The default
            is the position itself, which finds a mode.
    """
    model, position = density.model, start.detach().clone().requires_grad_()
    train, scaling = dataset.train, dataset.scaling
    log_jacobian = train.mean(scaling.log_jacobian(train.y))

    def objective(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        value, log_likelihood, log_prior = density.potential(transform(step, position), x, y)
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
