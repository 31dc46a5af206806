"""The objective of mean-field VI with its explicit gradient, on preallocated flat vectors.

    objective = -E_q[log p(y | x, w)] + T (c CE(q, prior) - H(q))

    d / d loc   = -E[g] + T c dCE / d loc
    d / d log s = -s E[g eps] + T c dCE / d log s - T

g is the gradient of the log likelihood. c is 1, or 1 / T if the prior is tempered too. Samples give
the first terms (`estimators`). The prior's family gives the second ones, in closed form or by
quadrature, in pieces that fit into the cache. No graph of the KL is recorded.
"""

import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bnn_symm.data import Dataset
from bnn_symm.inference.variational.estimators import GradientBuffers, build_estimator
from bnn_symm.inference.variational.flipout import flipout_layers
from bnn_symm.inference.variational.local_reparameterization import local_layers
from bnn_symm.models import BayesianModel
from bnn_symm.models.priors.families import Centered, Normal
from bnn_symm.models.priors.family import NormalEntries, PriorFamily
from bnn_symm.randomness import torch_generator

# Entries of a piece: five float32 vectors of this length are 5 MiB. On 478,410 entries in the
# cache, the pass took 0.28 ms, and 0.40 ms in pieces of 1 << 16, because each piece is six calls.
_PIECE = 1 << 18


@runtime_checkable
class Estimator(Protocol):
    """The settings of VI on which the objective depends."""

    @property
    def estimator(self) -> str: ...  # noqa: D102
    @property
    def num_samples(self) -> int: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def prior_weight(self) -> float: ...  # noqa: D102


class VariationalObjective:
    """The objective of one fit as a function of the step and a minibatch.

    A call writes the gradient, divided by the size of the training split, to the `grad` of the
    tensors.

    Args:
        method: the settings.
        model: the model.
        dataset: its training split is fitted.
        seed: seed of the noise.
        loc: (parameter,), a leaf.
        log_scale: (parameter,), a leaf.
    """

    def __init__(
        self,
        method: Estimator,
        model: BayesianModel,
        dataset: Dataset,
        seed: int,
        loc: Tensor,
        log_scale: Tensor,
    ):
        self._model, self._seed = model, seed
        self._size = len(dataset.train)
        self._num_observations = dataset.train.num_observations
        self._log_jacobian = dataset.train.total(dataset.scaling.log_jacobian(dataset.train.y))
        self._num_samples = method.num_samples
        self._temperature = method.temperature
        self._prior_weight = method.prior_weight
        parameters = {name: value.detach() for name, value in model.net.named_parameters()}
        loc.grad, log_scale.grad = torch.zeros_like(loc), torch.zeros_like(log_scale)
        self._log_scale = log_scale.detach()
        find_layers = flipout_layers if method.estimator == "flipout" else local_layers
        self._buffers = GradientBuffers(
            model=model,
            layers=find_layers(model.net, model.layer_values(parameters), dataset.train.x[:2]),
            is_local=method.estimator != "weight",
            is_flipout=method.estimator == "flipout",
            loc=loc.detach(),
            scale=log_scale.detach().exp(),
            loc_grad=loc.grad,
            scale_grad=log_scale.grad,
        )
        self._samples = build_estimator(self._buffers, method.num_samples)
        self._entropy_per_point = self._temperature / self._size
        self._entropy_grad = loc.new_tensor(-self._entropy_per_point)
        # On devices other than the CPU, every piece synchronizes, and small pieces bring no gain.
        limit = _PIECE if loc.device.type == "cpu" else model.num_parameters
        flat = (self._buffers.loc, self._buffers.scale, loc.grad, log_scale.grad)
        self._pieces = [
            (family, prior_scale, self._log_scale[where], NormalEntries(*(v[where] for v in flat)))
            for where, family, prior_scale in model.parameter_prior.pieces(limit)
        ]

    def __call__(self, step: int, x: Tensor, y: Tensor) -> tuple[float, Mapping[str, float]]:
        """Return the objective of the whole training split in nats, and its terms.

        Args:
            step: keys the noise.
            x: features of the minibatch.
            y: targets of the minibatch.

        Returns:
            The objective; `elbo`, `nll` and `kl` in the target's own units.
        """
        torch.exp(self._log_scale, out=self._buffers.scale)
        generator = torch_generator(self._seed, "variational noise", step)
        factor = -1.0 / (len(x) * self._num_samples)
        total = self._samples(x, y, generator, factor)
        with torch.no_grad():
            cross_entropy, entropy = self._add_kl()
        expected = float(total) * self._size / (len(x) * self._num_samples)
        kl = cross_entropy - entropy
        objective = -expected + self._temperature * (self._prior_weight * cross_entropy - entropy)
        in_own_units = expected - self._log_jacobian
        nll = -in_own_units / self._num_observations
        return objective, {"elbo": in_own_units - kl, "nll": nll, "kl": kl}

    def _weight_in_gradient(self, family: PriorFamily | Centered) -> float:
        """Return the factor c of the cross-entropy with a family, in the gradient."""
        return self._prior_weight

    def _add_kl(self) -> tuple[float, float]:
        """Add the gradients of the KL; return cross-entropy and entropy."""
        buffers = self._buffers
        per_point = self._temperature / self._size
        cross_entropy = entropy = 0.0
        for family, prior_scale, log_scale, q in self._pieces:
            torch.addcmul(self._entropy_grad, q.log_scale_grad, q.sd, out=q.log_scale_grad)
            weight = per_point * self._weight_in_gradient(family)
            cross_entropy += family.add_cross_entropy_gradient(q, prior_scale, weight)
            entropy += float(log_scale.sum())
        weight = per_point * self._weight_in_gradient(Normal())
        for i, (mean, sd) in enumerate(
            self._model.likelihood.latents.values(), start=self._model.num_net_parameters
        ):
            difference, scale = float(buffers.loc[i]) - mean, float(buffers.scale[i])
            buffers.loc_grad[i] += weight * difference / sd**2
            buffers.scale_grad[i] = (
                buffers.scale_grad[i] * scale + weight * (scale / sd) ** 2 - self._entropy_per_point
            )
            cross_entropy += (
                0.5 * (difference**2 + scale**2) / sd**2
                + math.log(sd)
                + 0.5 * math.log(2 * math.pi)
            )
            entropy += float(self._log_scale[i])
        return cross_entropy, entropy + 0.5 * math.log(2 * math.pi * math.e) * len(buffers.loc)
