r"""Mean-field variational inference: independent normals q = Normal(loc, scale) over the flat vector.

    minimise  -E_q[log p(y | x, w)] + T KL(q || p(w))                     tempering of the likelihood
              -E_q[log p(y | x, w)] - E_q[log p(w)] - T H(q)              tempering of the posterior

The KL is analytic where the prior allows it and a quadrature per weight elsewhere, never sampled. The expected log
likelihood is
sampled: in weight space (w = loc + scale eps, one eps a step), or locally for linear layers
(`local_reparameterization`).

References:
    Graves 2011 (NeurIPS); Blundell et al. 2015, arXiv:1505.05424; Kingma et al. 2015, arXiv:1506.02557.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from bnn_symm.data import Dataset, Scaling
from bnn_symm.errors import FitDiverged, IncompatiblePosteriors
from bnn_symm.inference.callbacks import Reached
from bnn_symm.inference.local_reparameterization import LocalReparameterization, local_layers
from bnn_symm.inference.method import Fit
from bnn_symm.inference.optimisation import VALIDATION_POINTS, OptimisedMethod, Problem, optimise
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.randomness import torch_generator
from bnn_symm.settings import Positive, PositiveInt, settings

# Draws behind the validation NLL of a history row: enough to watch, too few to report.
_VALIDATION_DRAWS = 10


@settings
class MeanFieldVI(OptimisedMethod):
    """Settings of mean-field VI (config `inference: {name: mean_field_vi}`).

    Attributes:
        estimator: `local`: local reparameterisation of linear layers, weights sampled elsewhere; `weight`: all weights
            sampled, one draw a step for all points.
        num_samples: Monte Carlo samples of the expected log likelihood a step, in antithetic pairs: with an even
            number the
            gradient of `loc` has no noise at all in a linear Gaussian model, and less in every other.
        initial_scale: posterior standard deviation of every weight at the start.
        num_draws: draws that stand for the posterior in predictions and in files.
    """

    name: Literal["mean_field_vi"] = "mean_field_vi"
    estimator: Literal["local", "weight"] = "local"
    num_samples: PositiveInt = 2
    initial_scale: Positive = 0.02
    num_draws: PositiveInt = 200

    def _run(self, fit: Fit) -> bool:
        model, initial = fit.model, fit.initial
        loc = (model.initial() if initial is None else initial.mean().to(model.device, model.dtype)).clone()
        scale = torch.full_like(loc, self.initial_scale)
        if isinstance(initial, GaussianPosterior):
            scale = initial.scale.to(model.device, model.dtype)
        tensors = {"loc": loc.requires_grad_(), "log_scale": scale.log().requires_grad_()}
        objective = _Objective(self, model, fit.dataset, fit.seed, tensors)
        problem = Problem(
            settings=self,
            tensors=tensors,
            objective=objective,
            validate=objective.validate,
            train=fit.dataset.train,
            seed=fit.seed,
            usable=objective.has_scales,
        )
        try:
            state, stopped = optimise(problem, fit.callbacks, fit.reached.states.get(0))
        except FitDiverged as error:
            fit.collector.keep_state(0, error.state)
            raise
        fit.collector.keep_state(0, state)
        return stopped

    def _posterior(
        self, model: BayesianModel, scaling: Scaling, reached: Reached, seed: int, keywords: dict[str, Any]
    ) -> Posterior:
        if 0 not in reached.states:
            raise IncompatiblePosteriors("the fit was stopped before its first state was kept; fit it again")
        state = reached.states[0]
        return GaussianPosterior(
            model,
            scaling,
            loc=torch.from_numpy(state["loc"]).to(model.device),
            scale=torch.from_numpy(state["log_scale"]).to(model.device).exp(),
            num_draws=self.num_draws,
            seed=seed,
            **keywords,
        )


class _Objective:
    """The objective of one fit as a function of the step and a minibatch."""

    def __init__(
        self,
        method: MeanFieldVI,
        model: BayesianModel,
        dataset: Dataset,
        seed: int,
        tensors: Mapping[str, Tensor],
    ):
        self.method, self.model, self.dataset, self.seed = method, model, dataset, seed
        self.loc, self.log_scale = tensors["loc"], tensors["log_scale"]
        self.log_jacobian = len(dataset.train) * math.log(dataset.scaling.y_scale)
        self.local: list[tuple[str, str | None]] = []
        if method.estimator == "local":
            parameters = {name: value.detach() for name, value in model.net.named_parameters()}
            self.local = local_layers(model.net, model.layer_values(parameters), dataset.train.x[:2])
        self.local_names = {name for layer in self.local for name in layer if name is not None}

    def __call__(self, step: int, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        method = self.method
        size = len(self.dataset.train)
        scale = self.log_scale.exp()
        generator = torch_generator(self.seed, "variational noise", step)
        log_likelihood = self._sum_over_samples(scale, x, y, generator)
        expected = log_likelihood * (size / len(x) / method.num_samples)
        cross_entropy = self.model.cross_entropy(self.loc, scale).sum(dtype=torch.float64)
        entropy = (self.log_scale + 0.5 * math.log(2 * math.pi * math.e)).sum(dtype=torch.float64)
        temperature = method.temperature
        objective = -expected + temperature * (method.prior_weight * cross_entropy - entropy)
        kl = cross_entropy - entropy
        in_own_units = expected - self.log_jacobian
        return objective, {"elbo": in_own_units - kl, "nll": -in_own_units / size, "kl": kl}

    def _sum_over_samples(self, scale: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Sum over samples and the minibatch of the log likelihood."""
        samples = self.method.num_samples
        if self.local_names == set(self.model.shapes):
            # No weight is sampled, so all samples are one pass over repeated points; of the noise of its units, the
            # second half is the first with the other sign (antithetic pairs).
            fresh = (samples + 1) // 2 * len(x)
            pairs = samples // 2 * len(x)

            def paired(shape: torch.Size) -> Tensor:
                noise = self._noise(torch.Size([fresh, *shape[1:]]), generator)
                return torch.cat([noise, -noise[:pairs]])

            return self._log_likelihood(scale, x.repeat(samples, *[1] * (x.dim() - 1)), y.repeat(samples), paired)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        state = generator.get_state()
        for sample in range(samples):
            # Odd samples repeat the noise of the even one before with the other sign.
            if sample % 2 == 0:
                state, sign = generator.get_state(), 1.0
            else:
                generator.set_state(state)
                sign = -1.0
            total = total + self._log_likelihood(
                scale, x, y, lambda shape, sign=sign: sign * self._noise(shape, generator)
            )
        return total

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=self.loc.dtype).to(self.loc.device)

    def _log_likelihood(self, scale: Tensor, x: Tensor, y: Tensor, noise: Callable[[torch.Size], Tensor]) -> Tensor:
        """Sum over points of the log likelihood at one sample."""
        model = self.model
        if not self.local_names:
            flat = self.loc + scale * noise(self.loc.shape)
            return model.log_likelihood(flat, x, y).sum(dtype=torch.float64)
        locs, scales = model.unflatten(self.loc), model.unflatten(scale)
        values = {
            name: loc if name in self.local_names else loc + scales[name] * noise(loc.shape)
            for name, loc in locs.items()
        }
        # As the layers see them: pre-activations are linear in these, whatever the parameters are.
        seen = model.layer_values(values)
        seen_scales = model.layer_scales({name: scales[name] for name in self.local_names})
        weights = [(seen[weight], seen_scales[weight]) for weight, _ in self.local]
        biases = [(seen[bias], seen_scales[bias]) for _, bias in self.local if bias is not None]
        with LocalReparameterization(weights, biases, noise):
            outputs = functional_call(model.net, seen, (x,))
        return model.likelihood.log_prob(outputs, y, model.latent_values(values)).sum(dtype=torch.float64)

    def has_scales(self) -> bool:
        """Whether every scale is positive and finite: its logarithm may be finite beyond where exp is."""
        scale = self.log_scale.detach().exp()
        return bool(((scale > 0) & torch.isfinite(scale)).all())

    def validate(self, step: int) -> dict[str, float | None]:
        """Marginal NLL a point on the validation part, in the target's own units, from a few keyed draws.

        Of classes, the accuracy of the same predictions beside it.
        """
        if len(self.dataset.validation) == 0:
            return {"validation_nll": None}
        posterior = GaussianPosterior(
            self.model,
            self.dataset.scaling,
            loc=self.loc.detach(),
            scale=self.log_scale.detach().exp(),
            num_draws=_VALIDATION_DRAWS,
            seed=self.seed,
        )
        part = self.dataset.validation.take(slice(0, VALIDATION_POINTS))
        predictive = posterior.predict(part.x)
        found: dict[str, float | None] = {"validation_nll": -float(predictive.log_prob(part.y).mean())}
        if predictive.is_classification:
            right = predictive.probabilities().argmax(-1) == part.y.cpu()
            found["validation_accuracy"] = float(right.double().mean())
        return found
