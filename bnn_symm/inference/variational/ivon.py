r"""IVON: mean-field VI by natural gradients, which can have the cost of Adam.

The family and the objective are those of `mean_field_vi`. With N points, tempering T and
lambda = N / T, each step samples w = m + s eps, with the standard deviations

    s^2 = 1 / (lambda (h + delta)),

and from the gradient g of the mean negative log likelihood of the minibatch (Shen et al., Algorithm
1, whose names of the constants are kept; the learning rate alpha is that of `schedule`)

    h_hat = E[g eps] / s                                       diagonal of the expected Hessian
    g_bar = beta_1 g_bar + (1 - beta_1) E[g]
    h     = beta_2 h + (1 - beta_2) h_hat + (1 - beta_2)^2 (h - h_hat)^2 / (2 (h + delta))
    m     = m - alpha (h_0 + delta) (g_bar / (1 - beta_1^t) + delta (m - mu)) / (h + delta)

The last term of h keeps h + delta positive whatever the noise. delta = c / (lambda sigma^2) is the
weight decay of a normal prior Normal(mu, sigma^2), parameter by parameter: such a prior is exact
and without noise. c is 1, or 1 / T if the prior is tempered too. Entries with another prior have
delta = 0. The expected gradient and the expected curvature of -log p(w), in closed form or by the
quadrature of `mean_field_vi`, are added to E[g] and h_hat, so that no prior is sampled; if its
density has several modes or heavy tails, the curvature may be negative, and h + delta stays
positive all the same.

E[g] and E[g eps] / s are the gradients with respect to m and s, which any estimator of
`mean_field_vi` gives. `estimator: weight` with `num_samples: 1` is the algorithm of the paper, at
the cost of Adam. `local` and `flipout` reduce the noise of h, and so do antithetic pairs of
samples: a pair cancels the largest part of the noise of h_hat, g eps / s.

References:
    Shen, Daheim, Cong, Nickl, Marconi, Bazan, Yokota, Gurevych, Cremers, Khan & Moellenhoff 2024,
    "Variational learning is effective for large deep networks", ICML, arXiv:2402.17641.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.inference.fit_context import FitContext
from bnn_symm.inference.optimization.optimizer import (
    Objective,
    OptimizationProblem,
    ScheduledStepper,
)
from bnn_symm.inference.training_loop import Stepper
from bnn_symm.inference.variational.mean_field_vi import MeanFieldVI
from bnn_symm.inference.variational.objective import VariationalObjective
from bnn_symm.models import BayesianModel
from bnn_symm.models.priors.families import Centered, Normal
from bnn_symm.models.priors.family import PriorFamily
from bnn_symm.settings import Fraction, Positive, settings

# With beta_2 auto, memories of the running mean of curvatures that a fit has; and the largest rate.
_MEMORIES, _LARGEST_RATE = 20, 0.1


@settings
class IVON(MeanFieldVI):
    """Settings of IVON (config `inference: {name: ivon}`).

    The settings that it shares with `mean_field_vi` have the same meaning, with other defaults.

    Attributes:
        learning_rate: maximum of alpha. The first steps are alpha times the gradient of the mean
            loss; later ones are relative to the curvature. With one sample of the weights per step
            it should be about a tenth of the default.
        beta_1: decay of the running mean of gradients.
        beta_2: decay of the running mean of curvatures, whose memory is 1 / (1 - beta_2) steps.
            `auto` is a memory of a twentieth of the steps: that of standard deviations which grow
            from `initial_scale` to fifty times as much has to be several times shorter than the
            fit.
        clip_radius: largest step of a mean before it is multiplied by the learning rate; null for
            no limit.
        clip_norm: null; the norm of gradients is not clipped, which would bias the curvature. Use
            `clip_radius`.
    """

    name: Literal["ivon"] = "ivon"  # pyright: ignore[reportIncompatibleVariableOverride]
    learning_rate: Positive = 0.03
    beta_1: Fraction = 0.9
    beta_2: Fraction | Literal["auto"] = "auto"
    clip_radius: Positive | None = None
    clip_norm: None = None

    clips_norms: ClassVar[bool] = False

    @property
    def curvature_rate(self) -> float:
        """Return 1 - beta_2."""
        if self.beta_2 != "auto":
            return 1 - self.beta_2
        return min(_LARGEST_RATE, _MEMORIES / self.num_steps)

    def _objective(self, fit: FitContext, loc: Tensor, log_scale: Tensor) -> Objective:
        return IVONObjective(self, fit.model, fit.dataset, fit.seed, loc, log_scale)

    def _stepper(self, problem: OptimizationProblem) -> Stepper:
        return IVONStepper(self, problem)


class IVONObjective(VariationalObjective):
    """The objective of mean-field VI, whose gradient lacks the entropy and the normal priors.

    Attributes:
        decay: (parameter,), delta.
        center: (parameter,), mu; zero where delta is zero.
        precision: lambda.
    """

    def __init__(
        self,
        method: IVON,
        model: BayesianModel,
        dataset: Dataset,
        seed: int,
        loc: Tensor,
        log_scale: Tensor,
    ):
        super().__init__(method, model, dataset, seed, loc, log_scale)
        self.precision = self._size / self._temperature
        self._entropy_per_point = 0.0
        self._entropy_grad.zero_()
        with torch.no_grad():
            self.decay, self.center = torch.zeros_like(loc), torch.zeros_like(loc)
            for where, family, scale in model.parameter_prior.pieces(model.num_parameters):
                if isinstance(family, Centered) and isinstance(family.family, Normal):
                    self.center[where] = family.mean
                    scale = family.scale
                elif not isinstance(family, Normal):
                    continue
                self.decay[where] = method.prior_weight / (self.precision * scale**2)
            for i, (mean, sd) in enumerate(
                model.likelihood.latents.values(), start=model.num_net_parameters
            ):
                self.center[i] = mean
                self.decay[i] = method.prior_weight / (self.precision * sd**2)

    def _weight_in_gradient(self, family: PriorFamily | Centered) -> float:
        base = family.family if isinstance(family, Centered) else family
        return 0.0 if isinstance(base, Normal) else self._prior_weight


class IVONStepper(ScheduledStepper):
    """Steps of IVON; each depends on its number and the tensors only.

    The tensors are `loc` (m), `log_scale` (of s, a function of h), `hessian` (h) and `momentum`
    (g_bar).
    """

    def __init__(self, method: IVON, problem: OptimizationProblem):
        super().__init__(problem)
        assert isinstance(problem.objective, IVONObjective)
        self._method, self._objective = method, problem.objective
        precision, decay = self._objective.precision, self._objective.decay
        self._loc, self._log_scale = problem.tensors["loc"], problem.tensors["log_scale"]
        # h_0 + delta is that of the setting, also if the fit starts at another posterior.
        self._first = 1.0 / (precision * method.initial_scale**2)
        log_scale = self._log_scale.detach()
        self.tensors["hessian"] = torch.exp(-2.0 * log_scale).div_(precision).sub_(decay)
        self.tensors["momentum"] = torch.zeros_like(decay)

    def _update(self, step: int) -> None:
        method, decay = self._method, self._objective.decay
        hessian, momentum = self.tensors["hessian"], self.tensors["momentum"]
        loc_grad, log_scale_grad = self._loc.grad, self._log_scale.grad
        assert loc_grad is not None
        assert log_scale_grad is not None
        rate = method.curvature_rate
        with torch.no_grad():
            curvature = hessian + decay
            # The gradient with respect to log s is s^2 h_hat.
            change = log_scale_grad.mul_(curvature).mul_(self._objective.precision).sub_(hessian)
            hessian.add_(change, alpha=rate)
            hessian.addcdiv_(change.square_(), curvature, value=0.5 * rate**2)
            momentum.lerp_(loc_grad, 1 - method.beta_1)
            torch.add(hessian, decay, out=curvature)
            ahead = (self._loc - self._objective.center).mul_(decay)
            ahead.add_(momentum, alpha=1 / (1 - method.beta_1 ** (step + 1))).div_(curvature)
            if method.clip_radius is not None:
                ahead.clamp_(-method.clip_radius, method.clip_radius)
            self._loc.add_(ahead, alpha=-self.learning_rate(step) * self._first)
            curvature.mul_(self._objective.precision)
            self._log_scale.copy_(curvature.log_().mul_(-0.5))

    @property
    def step_settings(self) -> str:
        """Return the learning rate and the clipping of steps."""
        rate = self._method.learning_rate
        return f"inference.learning_rate (now {rate:g}) or inference.clip_radius=0.1"
