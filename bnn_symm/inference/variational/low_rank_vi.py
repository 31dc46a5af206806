"""Low-rank VI (ELRG): normals with covariances within each layer.

    q = Normal(loc, diag(s^2) + (1/r) sum_k v_k v_k^T)

    minimize  -E_q[log p(y | x, w)] + T KL(q || p(w))                  tempering of the likelihood
              -E_q[log p(y | x, w)] - E_q[log p(w)] - T H(q)           tempering of the posterior

A layer has the parameters of one module, weight and bias together. Layers are independent. The KL
is never sampled: it has a closed form for normal and Laplace priors, and is a quadrature for
others, as in mean-field VI, which needs only the marginals. Only free entries are coordinates, so
constant entries have neither noise nor a KL. Lim et al. (2024) use `learn_diagonal: false` with a
small `initial_scale`.

References:
    Tomczak, Swaroop and Turner (2020), NeurIPS, "Efficient low rank Gaussian variational inference
    for neural networks"; Lim et al. (2024), arXiv:2405.20231, section 5.2.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from bnn_symm.inference.callbacks import FitState
from bnn_symm.inference.fit_context import FitContext, FitOutcome
from bnn_symm.inference.optimization.optimality import distribution_warnings
from bnn_symm.inference.optimization.optimizer import (
    OptimizationMethod,
    OptimizationProblem,
    optimize_single_chain,
)
from bnn_symm.inference.validation import VALIDATION_DRAWS, are_valid_scales, validation_scores
from bnn_symm.inference.variational.low_rank_objective import LowRankObjective
from bnn_symm.inference.warm_start import initial_moments
from bnn_symm.posteriors import LowRankGaussianPosterior, Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings


@settings
class LowRankVI(OptimizationMethod):
    """Settings of low-rank VI (config `inference: {name: low_rank_vi}`).

    Attributes:
        rank: r, number of factors per layer; for rank 0 use mean-field VI.
        learn_diagonal: whether s is optimized; otherwise it keeps its initial value.
        estimator: `local`: dense layers that are used once per point have independent noise for
            each point, at their outputs; `flipout`: convolutions too, by signs; `weight`: all
            weights are sampled, one draw per step for all points. Layers that an estimator does not
            support are sampled as with `weight`.
        num_samples: Monte Carlo samples of the expected log likelihood per step, in antithetic
            pairs.
        initial_scale: initial s of every weight.
        initial_factors: initial standard deviation of the entries of every v_k, and so of the
            factors' contribution to a weight.
        num_draws: draws that represent the posterior in predictions and in files.
    """

    name: Literal["low_rank_vi"] = "low_rank_vi"
    rank: PositiveInt = 4
    learn_diagonal: bool = True
    estimator: Literal["local", "weight", "flipout"] = "local"
    num_samples: PositiveInt = 2
    initial_scale: Positive = 0.02
    initial_factors: Positive = 0.01
    num_draws: PositiveInt = 200

    def _run(self, fit: FitContext) -> bool:
        model = fit.model
        tensors = self._start(fit)
        objective = LowRankObjective(self, model, fit.dataset, fit.seed, **tensors)

        def validate(step: int) -> dict[str, float | None]:
            values = {name: tensor.detach() for name, tensor in tensors.items()}
            posterior = LowRankGaussianPosterior(
                model,
                fit.dataset.scaling,
                **_gaussian(values),
                num_draws=VALIDATION_DRAWS,
                seed=fit.seed,
            )
            return validation_scores(posterior, fit.dataset)

        problem = OptimizationProblem(
            settings=self,
            tensors=tensors,
            objective=objective,
            validate=validate,
            train=fit.dataset.train,
            seed=fit.seed,
            is_valid=lambda: are_valid_scales(tensors["log_scale"].detach().exp()),
        )
        return optimize_single_chain(fit, problem)[1]

    def _start(self, fit: FitContext) -> dict[str, Tensor]:
        """Return the initial tensors.

        With a closed-form initial posterior, they have its marginals, or its factors if the rank
        matches.
        """
        model, initial = fit.model, fit.initial
        loc, scale = initial_moments(model, initial, self.initial_scale)
        if isinstance(initial, LowRankGaussianPosterior) and len(initial.factors) == self.rank:
            scale = initial.scale.to(model.device, model.dtype)
            factors = math.sqrt(self.rank) * initial.factors.to(model.device, model.dtype)
        else:
            generator = torch_generator(fit.seed, "initial factors")
            normal = torch.randn(self.rank, len(loc), generator=generator, dtype=loc.dtype)
            factors = self.initial_factors * normal.to(loc.device)
        return {
            "loc": loc.requires_grad_(),
            "log_scale": scale.log().requires_grad_(self.learn_diagonal),
            "factors": factors.requires_grad_(),
        }

    def _end_warnings(
        self, fit: FitContext, fit_state: FitState, posterior: Posterior
    ) -> list[str]:
        return distribution_warnings(self, fit, fit_state.history, posterior)

    def _posterior(self, outcome: FitOutcome) -> Posterior:
        values = {name: outcome.tensor(name) for name in ("loc", "log_scale", "factors")}
        return outcome.build(
            LowRankGaussianPosterior,
            **_gaussian(values),
            num_draws=self.num_draws,
            seed=outcome.seed,
        )


def _gaussian(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the arguments of the posterior of the optimized tensors."""
    return {
        "loc": values["loc"],
        "scale": values["log_scale"].exp(),
        "factors": values["factors"] / math.sqrt(len(values["factors"])),
    }
