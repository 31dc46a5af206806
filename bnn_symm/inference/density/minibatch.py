"""The potential of a minibatch and its gradient, for one flat vector at a time.

    U(w) = -(N / B) sum log p(y | x, w) / T - prior_weight log p(w)

with B of the N training points. Fully connected networks are evaluated by `BatchedMLP`, compiled
and replayed, if that is asked for: with a few hundred points, a gradient then takes a quarter of
the time or less. All other networks are evaluated by autograd.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.inference.density.batched_mlp import BatchedMLP
from bnn_symm.inference.density.compiled import Compiled, Replayed
from bnn_symm.inference.minibatches import minibatch_potential
from bnn_symm.models import BayesianModel

# From this number of steps of all chains on, `compile: auto` compiles. Compilation takes as long as
# thousands of steps.
_COMPILE_FROM = 20_000


def compiles(setting: bool | Literal["auto"], model: BayesianModel, num_steps: int) -> bool:
    """Return whether gradients of minibatches are compiled: those of fully connected networks.

    Args:
        setting: `compile` of a method; `auto`: if there are 20,000 steps or more.
        model: the model, on the CPU if its gradients are to be compiled.
        num_steps: number of steps of all chains.
    """
    wanted = num_steps >= _COMPILE_FROM if setting == "auto" else setting
    return wanted and _batched_mlp(model) is not None


def _batched_mlp(model: BayesianModel) -> BatchedMLP | None:
    """Return the batched network of a model whose gradients can be compiled, or None."""
    return BatchedMLP.of(model) if model.device.type == "cpu" else None


class MinibatchDensity:
    """The potential U, its terms, and its gradient.

    Args:
        method: has temperature and prior weight.
        model: the model.
        num_points: size of the training split.
        compile: whether to compile, on the CPU, if the network is fully connected. All minibatches
            must then have the same shape.
    """

    def __init__(self, method: Any, model: BayesianModel, num_points: int, *, compile: bool):
        self._method, self.model, self._num_points = method, model, num_points
        self._mlp = _batched_mlp(model) if compile else None
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
                terms = self.potential(position, x, y)
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

    def potential(
        self,
        position: Float[Tensor, " parameter"],
        x: Shaped[Tensor, "point *feature"],
        y: Shaped[Tensor, "point *column"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Return U, which can be differentiated, the log likelihood and the log prior.

        Args:
            position: the flat vector.
            x: features of the minibatch.
            y: targets of the minibatch.
        """
        if self._mlp is None:
            return minibatch_potential(self._method, self.model, position, x, y, self._num_points)
        # Also where no gradient is needed: another compiled function would save less than it costs.
        gradient, terms = self(position.detach(), x, y)
        value, log_likelihood, log_prior = terms.unbind()
        return _Differentiable.apply(value, position, gradient), log_likelihood, log_prior

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


class SharedDensity:
    """The density of the chains of a method, which each process compiles once.

    Args:
        method: has temperature, prior weight and `is_compiled`.
    """

    def __init__(self, method: Any):
        self._method = method
        self._density: MinibatchDensity | None = None

    def of(self, model: BayesianModel, num_points: int) -> MinibatchDensity:
        """Return the density, which is made in the first call.

        Args:
            model: the model, the same in all calls.
            num_points: size of the training split.
        """
        if self._density is None:
            self._density = MinibatchDensity(
                self._method, model, num_points, compile=self._method.is_compiled(model)
            )
        return self._density


class _Differentiable(torch.autograd.Function):
    """A value with a known gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, position: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return None, slope.to(gradient.dtype) * gradient, None
