"""The objective of low-rank VI, and the sampling of its likelihood.

    objective = -E_q[log p(y | x, w)] + T (c CE(q, prior) - H(q))

c is 1, or 1 / T if the prior is tempered too. The prior is independent over coordinates, so the
cross-entropy depends only on marginal standard deviations, and is that of mean-field VI for every
prior. The entropy has a closed form, by the matrix determinant lemma. Only the expected log
likelihood is sampled. In a layer that is used once per point, each point has independent noise, of
the factors and of the diagonal. Its outputs are those of one complete draw of the layer's weights,
which determines the likelihood of a point,

    outputs = loc x + sum_k z_k (factor_k x) + (noise of the diagonal, local or by flipout)

A factor goes through the layer as a weight, so this is exact in all convolutions too.
"""

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.func import functional_call

from bnn_symm.data import Dataset
from bnn_symm.inference.density.layer_overrides import LayerOverrides, Operation
from bnn_symm.inference.variational.estimators import signed_noise
from bnn_symm.inference.variational.flipout import Flipout, channel_axis, flipout_layers
from bnn_symm.inference.variational.local_reparameterization import (
    LocalReparameterization,
    Noise,
    local_layers,
)
from bnn_symm.inference.variational.objective import Estimator
from bnn_symm.models import BayesianModel
from bnn_symm.posteriors.low_rank import (
    capacitances,
    layer_of,
    layer_sizes,
    log_determinants,
    marginal_scale,
)
from bnn_symm.randomness import torch_generator

Layers = list[tuple[str, str | None]]


class LowRankObjective:
    """The objective of one fit as a function of the step and a minibatch, with autograd's gradient.

    Args:
        method: the settings.
        model: the model.
        dataset: its training split is fitted.
        seed: seed of the noise.
        loc: (parameter,).
        log_scale: (parameter,), of the diagonal.
        factors: (rank, parameter), sqrt(rank) times those of the posterior.
    """

    def __init__(
        self,
        method: Estimator,
        model: BayesianModel,
        dataset: Dataset,
        seed: int,
        loc: Tensor,
        log_scale: Tensor,
        factors: Tensor,
    ):
        self._method, self._model, self._seed = method, model, seed
        self._loc, self._log_scale, self._factors = loc, log_scale, factors
        self._size = len(dataset.train)
        self._num_observations = dataset.train.num_observations
        self._log_jacobian = dataset.train.total(dataset.scaling.log_jacobian(dataset.train.y))
        self._sizes = layer_sizes(model)
        self._by_point = _by_point(method.estimator, model, dataset.train.x[:2])

    def __call__(self, step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the objective of the whole training split in nats, and its terms.

        Args:
            step: keys the noise.
            x: features of the minibatch.
            y: targets of the minibatch.

        Returns:
            The objective; `elbo`, `nll` and `kl` in the target's own units.
        """
        method, scale = self._method, self._log_scale.exp()
        factors = self._factors / math.sqrt(len(self._factors))
        total = self._log_likelihood(step, x, y, scale, factors)
        expected = total * (self._size / (len(x) * method.num_samples))
        cross_entropy = self._model.cross_entropy(self._loc, marginal_scale(scale, factors)).sum(
            dtype=torch.float64
        )
        entropy = self._entropy(scale, factors)
        objective = -expected + method.temperature * (method.prior_weight * cross_entropy - entropy)
        kl, in_own_units = cross_entropy - entropy, expected - self._log_jacobian
        return objective, {
            "elbo": in_own_units - kl,
            "nll": -in_own_units / self._num_observations,
            "kl": kl,
        }

    def _entropy(self, scale: Tensor, factors: Tensor) -> Tensor:
        determinants = log_determinants(capacitances(scale, factors, list(self._sizes.values())))
        independent = self._log_scale.sum(dtype=torch.float64) + 0.5 * math.log(
            2 * math.pi * math.e
        ) * len(scale)
        return independent + 0.5 * determinants.sum()

    def _log_likelihood(
        self, step: int, x: Tensor, y: Tensor, scale: Tensor, factors: Tensor
    ) -> Tensor:
        """Return the log likelihood summed over points and samples, which are antithetic pairs."""
        generator = torch_generator(self._seed, "low-rank noise", step)
        state, total = generator.get_state(), torch.zeros((), dtype=torch.float64, device=x.device)
        for sample in range(self._method.num_samples):
            mirrored = sample % 2 == 1
            if mirrored:
                generator.set_state(state)
            else:
                state = generator.get_state()
            noise = functools.partial(
                signed_noise, like=scale, generator=generator, mirrored=mirrored
            )
            values = self._sampled(scale, factors, noise)
            outputs = self._outputs(x, values, scale, factors, noise)
            log_prob = self._model.log_prob(outputs, y, self._model.latent_values(values))
            total = total + log_prob.sum(dtype=torch.float64)
        return total

    def _sampled(self, scale: Tensor, factors: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Return one draw of each parameter, but the mean for layers with noise per point."""
        means = {layer_of(weight) for weight, _ in self._by_point}
        sizes = list(self._sizes.values())
        parts = zip(
            self._sizes,
            *(flat.split(sizes, dim=-1) for flat in (self._loc, scale, factors)),
            strict=True,
        )
        drawn = []
        for layer, loc, layer_scale, layer_factors in parts:
            if layer not in means:
                shared = noise(torch.Size([len(layer_factors)]))
                loc = loc + layer_scale * noise(loc.shape) + shared @ layer_factors
            drawn.append(loc)
        return self._model.unflatten(torch.cat(drawn))

    def _outputs(
        self, x: Tensor, values: Mapping[str, Tensor], scale: Tensor, factors: Tensor, noise: Noise
    ) -> Tensor:
        model = self._model
        seen = model.layer_values(values)
        with ExitStack() as stack:
            if self._by_point:
                scales, by_rank = (
                    model.layer_scales(model.unflatten(flat)) for flat in (scale, factors)
                )
                weights = [(seen[weight], scales[weight]) for weight, _ in self._by_point]
                biases = [
                    (seen[bias], scales[bias]) for _, bias in self._by_point if bias is not None
                ]
                diagonal = (
                    Flipout if self._method.estimator == "flipout" else LocalReparameterization
                )
                stack.enter_context(diagonal(weights, biases, noise))
                # It is entered last, so it intercepts a layer first, and passes it on to the noise
                # of the diagonal.
                known = {
                    id(seen[weight]): (by_rank[weight], None if bias is None else by_rank[bias])
                    for weight, bias in self._by_point
                }
                stack.enter_context(
                    FactorNoise([seen[weight] for weight, _ in self._by_point], known, noise)
                )
            return functional_call(model.net, seen, (x,))


class FactorNoise(LayerOverrides):
    """While active, layers with a known mean weight add outputs of factors with noise.

    Args:
        weights: the mean weights.
        factors: by `id` of a mean weight, its factors, (rank, *shape), and those of its bias,
            (rank, out), or None.
        noise: shape -> standard normal noise.
    """

    def __init__(
        self,
        weights: list[Tensor],
        factors: Mapping[int, tuple[Tensor, Tensor | None]],
        noise: Noise,
    ):
        super().__init__(weights)
        self._factors, self._noise = factors, noise

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's outputs plus those of the factors, times noise per point."""
        factors, bias_factors = self._factors[id(weight)]
        shared = self._noise(torch.Size([len(x), len(factors)]))
        outputs = operation(x, weight, bias)
        # All factors are one call: their outputs are channels of the group of channels that they
        # read.
        channels = channel_axis(weight)
        groups = x.shape[channels] // weight.shape[1]
        factor_outputs = operation(
            x,
            _stacked(factors, groups),
            None if bias_factors is None else _stacked(bias_factors, groups),
        )
        by_factor = factor_outputs.unflatten(channels, (groups, len(factors), -1))
        if channels == -1:
            return outputs + torch.einsum("n...gro,nr->n...go", by_factor, shared).flatten(-2)
        return outputs + torch.einsum("ngro...,nr->ngo...", by_factor, shared).flatten(1, 2)


def _stacked(factors: Tensor, groups: int) -> Tensor:
    """Reshape (rank, out, ...) to (group x rank x out in the group, ...): one layer for all."""
    return factors.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 2)


def _by_point(estimator: str, model: BayesianModel, x: Tensor) -> Layers:
    """Return the layers whose points can have independent noise.

    All parameters of these layers are the weight and the bias.
    """
    find: Mapping[str, Callable[..., Layers]] = {"local": local_layers, "flipout": flipout_layers}
    if estimator not in find:
        return []
    parameters = {name: value.detach() for name, value in model.net.named_parameters()}
    members: dict[str, set[str]] = {}
    for name in model.shapes:
        members.setdefault(layer_of(name), set()).add(name)
    layers = find[estimator](model.net, model.layer_values(parameters), x)
    return [
        pair
        for pair in layers
        if members[layer_of(pair[0])] == {name for name in pair if name is not None}
    ]
