"""The potential of a minibatch and its gradient, for one flat vector at a time.

    U(w) = -(N / B) sum log p(y | x, w) / T - prior_weight log p(w)

with B of the N training points. Fully connected networks are evaluated by `BatchedMLP`, compiled
and replayed, if that is asked for: with a few hundred points, a gradient then takes a quarter of
the time or less. All other networks are evaluated by autograd.
"""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.inference.density.batched_mlp import BatchedMLP
from bnn_symm.inference.density.compiled import Compiled, Replayed
from bnn_symm.inference.minibatches import minibatch_potential
from bnn_symm.models import BayesianModel


class MinibatchDensity:
    """The potential U, its terms, and its gradient.

    Args:
        method: has temperature and prior weight.
        model: the model.
        num_points: size of the training split.
        compile: whether to compile, if the network is fully connected. All minibatches must then
            have the same shape.
    """

    def __init__(self, method: Any, model: BayesianModel, num_points: int, *, compile: bool):
        self._method, self._model, self._num_points = method, model, num_points
        self._mlp = BatchedMLP.of(model) if compile else None
        self._prior = torch.func.vmap(torch.func.grad_and_value(model.log_prior))
        self._tensors: list[Tensor] = []
        self._replayed: Replayed | None = None

    def __call__(
        self,
        position: Float[Tensor, " parameter"],
        x: Shaped[Tensor, "point *feature"],
        y: Shaped[Tensor, "point *column"],
    ) -> tuple[Float[Tensor, " parameter"], Float[Tensor, " 3"]]:
        """Return the gradient of U and, in float64, U, the log likelihood and the log prior.

        The log likelihood is that of the whole training split, as the minibatch estimates it.

        Args:
            position: the flat vector.
            x: features of the minibatch.
            y: targets of the minibatch, as for `BayesianModel.log_likelihood`.
        """
        if self._mlp is None:
            position = position.detach().requires_grad_()
            with torch.enable_grad():
                terms = minibatch_potential(
                    self._method, self._model, position, x, y, self._num_points
                )
                (gradient,) = torch.autograd.grad(terms[0], position)
            return gradient, torch.stack(terms).detach()
        values = [position[None], x, y]
        if self._replayed is None:
            results = [torch.empty_like(values[0]), position.new_empty(3, dtype=torch.float64)]
            self._tensors = [*(value.detach().clone() for value in values), *results]
            function = Compiled(self._evaluate, "the gradient of a minibatch")
            self._replayed = Replayed(function, self._tensors)
        for tensor, value in zip(self._tensors[:3], values, strict=True):
            tensor.copy_(value)
        with torch.no_grad():
            self._replayed()
        gradient, terms = self._tensors[3:]
        return gradient[0].clone(), terms.clone()

    def terms(
        self,
        position: Float[Tensor, " parameter"],
        x: Shaped[Tensor, "point *feature"],
        y: Shaped[Tensor, "point *column"],
    ) -> Float[Tensor, " 3"]:
        """Return U, the log likelihood and the log prior, as a call does, without the gradient.

        Args:
            position: the flat vector.
            x: features of the minibatch.
            y: targets of the minibatch.
        """
        if self._mlp is not None:  # another compiled function would save less than it costs
            return self(position, x, y)[1]
        with torch.no_grad():
            return torch.stack(
                minibatch_potential(self._method, self._model, position, x, y, self._num_points)
            )

    def _evaluate(
        self, positions: Tensor, x: Tensor, y: Tensor, gradient: Tensor, terms: Tensor
    ) -> None:
        """Write the gradient (1, parameter) and the terms (3,) of the positions (1, parameter)."""
        assert self._mlp is not None
        method, scale = self._method, self._num_points / len(x)
        log_likelihood, slope = self._mlp.log_likelihood_and_gradient(positions, x, y)
        prior_slope, log_prior = self._prior(positions)
        log_likelihood = scale * log_likelihood
        energy = -log_likelihood / method.temperature - method.prior_weight * log_prior
        gradient.copy_(-scale / method.temperature * slope - method.prior_weight * prior_slope)
        terms.copy_(torch.cat([energy, log_likelihood, log_prior]))
