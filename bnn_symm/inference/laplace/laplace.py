"""The Laplace approximation: a normal distribution around a mode, with the curvature there.

    N(w*, P^-1),   P = G / T + prior_weight S^-1,   S: prior covariance

G is the generalized Gauss-Newton curvature of the training split (`curvature`): exact, over all
points, without sampled targets. With all of P it would be the exact tempered posterior of a linear
Gaussian model. `structure` keeps some blocks of P (`structures`), of which those of layers may be
Kronecker products (`kronecker`).

**Predictions.** The curvature G is that of the network linearized at the mode, so the approximation
is the posterior of the linearized network. `predictive: linearized` therefore predicts by

    f(x, w*) + J(x) (w - w*),   J = df / dw at w*,

with draws w (Immer, Korzepa and Bauer 2021). Where P is small in directions that the data do not
constrain, J is small as well, and the prediction hardly changes. `predictive: sampled` evaluates
the network itself at the draws, which may be far from the mode in such directions, where the
network is not linear. Both agree where the network is linear in the coordinates with a curvature.

The posterior is a `LinearizedPosterior`: draws of weights with the mode beside them, in memory and
in files. Every prediction and score uses the linearized network. What compares weights (alignment,
the path of a barrier, merging) uses the draws with the network itself.

**The scale of the prior.** With `prior.scale: evidence`, the scale is chosen by the marginal
likelihood of this approximation (`evidence`). The model of the posterior has the chosen scale.

References:
    MacKay 1992, doi:10.1162/neco.1992.4.3.448; Daxberger et al. 2021, arXiv:2106.14806; Immer,
    Korzepa and Bauer 2021, arXiv:2008.08704.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from bnn_symm.advice import advise_setting
from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.density.minibatch import MinibatchDensity
from bnn_symm.inference.fit_context import FitContext, FitOutcome, initial_position
from bnn_symm.inference.laplace.blocks import (
    Block,
    DiagonalFactor,
    Factor,
    deviation,
    from_state,
    to_state,
)
from bnn_symm.inference.laplace.curvature import blocks, prior_precision
from bnn_symm.inference.laplace.evidence import (
    PRIOR_SCALE,
    EvidenceStepper,
    best_scale,
    is_settled,
    log_evidence,
    with_prior_scale,
)
from bnn_symm.inference.laplace.kronecker import kronecker_factors
from bnn_symm.inference.laplace.structures import (
    CurvaturePlan,
    CurvatureStopped,
    Structure,
    are_finite,
    covers_everything,
    plan_curvature,
)
from bnn_symm.inference.optimization.map import ModeMethod, mode_problem
from bnn_symm.inference.optimization.optimizer import (
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.models import BayesianModel
from bnn_symm.models.priors.families import Normal
from bnn_symm.posteriors import GaussianPosterior, LinearizedPosterior, Posterior
from bnn_symm.posteriors.linearized import check_linearizable
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings

_LOG_EVIDENCE = "log_evidence"
_BEST_SCALE = "best_prior_scale"


class PredictiveWarning(UserWarning):
    """Warns of settings whose predictions are known to be bad."""


@settings
class LaplaceApproximation(ModeMethod):
    """Settings of the Laplace approximation (config `inference: {name: laplace}`).

    Attributes:
        structure: `kronecker`: Kronecker factors of the curvature of each layer. `full`: the
            curvature of all parameters of a small network. `diagonal`: its diagonal.
            `last_layer`: the full curvature of the last layer and of the likelihood's own
            variables; all other parameters are fixed at the mode. `subnetwork`: the same of the
            parameters of largest variance.
        subnetwork_size: parameters of the subnetwork.
        predictive: `linearized`: predictions of the network linearized at the mode. `sampled`:
            predictions of the network itself at the draws.
        num_draws: draws that represent the posterior in predictions and in files.
        compile: as for `map`, but never with `prior.scale=evidence`.
    """

    has_independent_draws: ClassVar[bool] = True
    chooses_prior_scale: ClassVar[bool] = True

    name: Literal["laplace"] = "laplace"
    learning_rate: Positive = 0.003
    structure: Structure = "diagonal"
    subnetwork_size: PositiveInt = 1000
    predictive: Literal["linearized", "sampled"] = "linearized"
    num_draws: PositiveInt = 200

    def is_compiled(self, model: BayesianModel) -> bool:
        """Return whether gradients of the model are compiled; not where the prior changes.

        Args:
            model: the model, with the prior of the configuration.
        """
        return super().is_compiled(model) and model.prior.scale != "evidence"

    def _run(self, fit: FitContext) -> bool:
        self._warn()
        chooses = fit.model.prior.scale == "evidence"
        self._check_model(fit.model, chooses)
        plan = plan_curvature(self.structure, self.subnetwork_size, fit.model, fit.dataset.train.x)
        self._check_derivatives(fit, plan)
        start = initial_position(fit)
        problem = mode_problem(self, self.density(fit), fit.dataset, fit.seed, 0, start)
        stepper = self._evidence_stepper(fit, problem, plan) if chooses else None
        state, stopped = optimize_single_chain(fit, problem, stepper)
        if stopped:
            return True
        model, position = _fitted(fit.model, state), torch.from_numpy(state["position"])
        position = position.to(fit.model.device)
        try:
            found = self._curvature(plan, model, position, fit, fit.callbacks.should_stop)
        except CurvatureStopped:
            return True
        factors = [block.factor(self._prior(model, position)) for block in found]
        result = to_state(factors)
        if self.temperature == 1 and covers_everything(self.structure):
            evidence = log_evidence(model, position, factors, fit.dataset)
            result[_LOG_EVIDENCE] = np.asarray(evidence)
        if chooses:
            best = best_scale(model, position, found)
            result[_BEST_SCALE] = np.asarray(best)
        fit.recorder.keep_state(0, {**state, **result})
        return False

    def _warn(self) -> None:
        """Warn of settings whose predictions are known to be bad."""
        if self.structure == "diagonal" and self.predictive == "sampled":
            advice = advise_setting("inference.predictive=linearized")
            other = advise_setting("inference.structure=kronecker")
            warnings.warn(
                "laplace with structure=diagonal and predictive=sampled evaluates the network at "
                "weights that are far from the mode in directions that the data do not constrain, "
                f"and predicts badly; use {advice}, or {other}",
                PredictiveWarning,
                stacklevel=4,
            )

    def _check_model(self, model: BayesianModel, chooses: bool) -> None:
        """Check that the prior has a curvature everywhere, and an evidence if that is needed.

        Raises:
            ConfigError: if it does not.
        """
        if not all(isinstance(block.family, Normal) for block in model.parameter_prior.blocks):
            raise ConfigError(
                "inference.name=laplace needs the curvature of the prior at every weight, which "
                f"only prior.name=normal has; got prior.name={model.prior.family_name}: set "
                "prior.name=normal, or inference.name=mean_field_vi"
            )
        if chooses and not covers_everything(self.structure):
            raise ConfigError(
                "prior.scale=evidence needs the curvature of all parameters, got "
                f"inference.structure={self.structure}; set inference.structure=kronecker"
            )
        if chooses and self.temperature != 1:
            raise ConfigError(
                "prior.scale=evidence is defined at inference.temperature=1, got "
                f"{self.temperature:g}; set inference.temperature=1, or prior.scale to a number"
            )

    def _check_derivatives(self, fit: FitContext, plan: CurvaturePlan) -> None:
        """Check, before the mode is fitted, that the network allows the needed derivatives.

        Raises:
            ConfigError: if it does not.
        """
        model, part = fit.model, fit.dataset.train.take(slice(0, 2))
        last = torch.tensor([model.num_parameters - 1], device=model.device)
        try:
            for _ in blocks(model, model.initial(), last, part):
                pass
            for _ in kronecker_factors(model, model.initial(), plan.layers, part):
                pass
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                "inference.name=laplace needs derivatives that this network does not support "
                f"({reason[:160]}); set inference.name=swag, or avoid control flow that "
                "depends on values"
            ) from error
        if self.predictive == "linearized":
            check_linearizable(model, part.x)

    def _curvature(
        self,
        plan: CurvaturePlan,
        model: BayesianModel,
        position: Tensor,
        fit: FitContext,
        should_stop: Callable[[], bool],
    ) -> list[Block]:
        """Return the blocks of the curvature at a position.

        Raises:
            CurvatureStopped: if the fit is to stop.
            FitDiverged: if the curvature is not finite.
        """
        prior = self._prior(model, position)
        found = plan.blocks(
            model, position, fit.dataset.train, prior, self.temperature, should_stop
        )
        if not are_finite(found):
            raise FitDiverged(
                "the curvature at the mode is not finite; set dtype=float64, or fit for longer"
            )
        return found

    def _prior(self, model: BayesianModel, position: Tensor) -> Tensor:
        """Return the precisions of the prior of every coordinate, with their weight."""
        everything = torch.arange(model.num_parameters, device=position.device)
        return self.prior_weight * prior_precision(model, position, everything)

    def _evidence_stepper(
        self, fit: FitContext, problem: OptimizationProblem, plan: CurvaturePlan
    ) -> EvidenceStepper:
        """Return the steps to a mode, between which the scale of the prior is chosen."""
        leaf = problem.tensors["position"]

        def with_scale(scale: float) -> OptimizationProblem:
            model = with_prior_scale(fit.model, scale)
            # Every scale would be compiled anew, which costs more than it saves.
            density = MinibatchDensity(self, model, len(fit.dataset.train), compile=False)
            # The position is the leaf that Adam optimizes.
            return mode_problem(self, density, fit.dataset, fit.seed, 0, leaf, lambda step, _: leaf)

        def choose(scale: float, position: Tensor) -> float:
            model = with_prior_scale(fit.model, scale)
            found = self._curvature(plan, model, position, fit, lambda: False)
            return best_scale(model, position, found)

        return EvidenceStepper(problem, with_scale, choose, first_scale=1.0)

    def convergence_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        """Return the messages of every optimization, and one on a scale that has not settled.

        Args:
            fit: the arguments of the fit.
            fit_state: its final states and its history.
            posterior: its result.
        """
        fit = replace(fit, model=posterior.model)
        notes = super().convergence_warnings(fit, fit_state, posterior)
        state = fit_state.states.get(0, {})
        if _BEST_SCALE in state:
            scale, best = float(state[PRIOR_SCALE]), float(state[_BEST_SCALE])
            if not is_settled(scale, best):
                notes.append(
                    f"prior.scale=evidence has not settled: it is {scale:.3g}, and {best:.3g} has "
                    f"a higher evidence at the mode; set {self.longer_fit_override()}"
                )
        return notes

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        state = outcome.state()
        model = _fitted(outcome.model, state)
        info = dict(outcome.info)
        for name in (PRIOR_SCALE, _LOG_EVIDENCE):
            if name in state:
                info[name] = float(state[name])
        outcome = replace(outcome, model=model, info=info)
        factors = from_state({name: outcome.tensor(name) for name in state})
        if not factors:
            # The fit stopped before the curvature was computed: return the current position.
            return outcome.last_positions()
        position = outcome.tensor("position")
        draws = self._draws(outcome, position, factors)
        return draws if self.predictive == "sampled" else LinearizedPosterior(draws, position)

    def _draws(self, outcome: FitOutcome, position: Tensor, factors: list[Factor]) -> Posterior:
        if self.structure == "diagonal" and isinstance(factors[0], DiagonalFactor):
            return outcome.build(
                GaussianPosterior,
                loc=position,
                scale=factors[0].root.reciprocal().to(outcome.model.dtype),
                num_draws=self.num_draws,
                seed=outcome.seed,
            )
        return outcome.from_function(_Draw(position, factors, outcome.seed), self.num_draws)


def _fitted(model: BayesianModel, state: Any) -> BayesianModel:
    """Return the model with the scale of the prior of a state, if it was chosen there."""
    return with_prior_scale(model, float(state[PRIOR_SCALE])) if PRIOR_SCALE in state else model


@dataclass(frozen=True)
class _Draw:
    """Draws that are normal in some coordinates, with given precision, and fixed in the others."""

    position: Tensor
    factors: list[Factor]
    seed: int

    def __call__(self, number: int) -> Tensor:
        generator = torch_generator(self.seed, "draw", number)
        size = sum(factor.coordinates.numel() for factor in self.factors)
        noise = torch.randn(size, generator=generator, dtype=torch.float64)
        return self.position + deviation(
            self.factors, noise.to(self.position.device), self.position
        )
