"""Mean-field variational inference: independent normals q = Normal(loc, scale) over weights.

    minimize  -E_q[log p(y | x, w)] + T KL(q || p(w))                  tempering of the likelihood
              -E_q[log p(y | x, w)] - E_q[log p(w)] - T H(q)           tempering of the posterior

The KL is analytic if the prior allows it, and otherwise a quadrature per weight; it is never
sampled. The expected log likelihood is sampled: in weight space (w = loc + scale eps, one eps per
step), locally for linear layers (`local_reparameterization`), or with independent signs for each
point (`flipout`). Everything is stored in flat vectors, with explicit gradients (`objective`).

References:
    Graves 2011 (NeurIPS); Blundell et al. 2015, arXiv:1505.05424; Kingma et al. 2015,
    arXiv:1506.02557.
"""

from typing import ClassVar, Literal

from torch import Tensor

from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.fit_context import FitContext, FitOutcome
from bnn_symm.inference.optimization.optimality import distribution_warnings
from bnn_symm.inference.optimization.optimizer import (
    AdamStepper,
    Objective,
    OptimizationMethod,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.inference.training_loop import Stepper
from bnn_symm.inference.validation import VALIDATION_DRAWS, are_valid_scales, validation_scores
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.inference.warm_start import initial_moments
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class MeanFieldVI(OptimizationMethod):
    """Settings of mean-field VI (config `inference: {name: mean_field_vi}`).

    Attributes:
        estimator: `local`: local reparameterization of linear layers; `flipout`: dense layers and
            convolutions with signs for each point. Other weights are sampled. `weight`: all weights
            are sampled, one draw per step for all points.
        num_samples: Monte Carlo samples of the expected log likelihood per step, in antithetic
            pairs. With an even number, the gradient of `loc` has no noise in a linear Gaussian
            model, and less noise in other models.
        initial_scale: initial posterior standard deviation of every weight.
        num_draws: draws that represent the posterior in predictions and in files.
    """

    _has_distance: ClassVar[bool] = True
    """Whether the optimal mean has a zero expected gradient of the log density."""

    name: Literal["mean_field_vi"] = "mean_field_vi"
    estimator: Literal["local", "weight", "flipout"] = "local"
    num_samples: PositiveInt = 2
    initial_scale: Positive = 0.02
    num_draws: PositiveInt = 200

    def _run(self, fit: FitContext) -> bool:
        model, initial = fit.model, fit.initial
        loc, scale = initial_moments(model, initial, self.initial_scale)
        log_scale = scale.log().requires_grad_()

        def validate(step: int) -> dict[str, float | None]:
            posterior = GaussianPosterior(
                model,
                fit.dataset.scaling,
                loc=loc.detach(),
                scale=log_scale.detach().exp(),
                num_draws=VALIDATION_DRAWS,
                seed=fit.seed,
            )
            return validation_scores(posterior, fit.dataset)

        problem = OptimizationProblem(
            settings=self,
            tensors={"loc": loc.requires_grad_(), "log_scale": log_scale},
            objective=self._objective(fit, loc, log_scale),
            validate=validate,
            train=fit.dataset.train,
            seed=fit.seed,
            is_valid=lambda: are_valid_scales(log_scale.detach().exp()),
            writes_gradients=True,
        )
        return optimize_single_chain(fit, problem, self._stepper(problem))[1]

    def _stepper(self, problem: OptimizationProblem) -> Stepper:
        """Return the steps of the optimizer."""
        return AdamStepper(problem)

    def _objective(self, fit: FitContext, loc: Tensor, log_scale: Tensor) -> Objective:
        """Return the objective; a call writes its gradient to the `grad` of both tensors."""
        return VariationalObjective(self, fit.model, fit.dataset, fit.seed, loc, log_scale)

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        return distribution_warnings(
            self, fit, fit_state.history, posterior, has_distance=self._has_distance
        )

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        return outcome.build(
            GaussianPosterior,
            loc=outcome.tensor("loc"),
            scale=outcome.tensor("log_scale").exp(),
            num_draws=self.num_draws,
            seed=outcome.seed,
        )
