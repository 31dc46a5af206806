"""Batched log likelihoods and gradients of fully connected networks, in a layout for fast products.

A network of narrow layers on many points is slow for two reasons unrelated to its arithmetic. Rows
of ten outputs are too short for the vector units of a processor: products, softmax and gradients
run at a fifth of its speed. And chains share the data, but a batched product multiplies them by the
weights of one chain at a time. Here, points are the last axis, (chain, unit, point), of all arrays
and their gradients, so that all rows are long. The first layers of all chains are one matrix
product with the data. Layers with a single input or output are sums, fused with the operations
around them. Measured in `benchmarks/gradient.py`.

Linear layers, layer norms and FiGLU are reimplemented for this layout. Activations are the modules
themselves, and `torch.func.vjp` of each stage gives the gradient. Networks with other modules are
not supported.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bnn_symm.architectures import FiGLU, effective_parameters, is_linear, module_sequence
from bnn_symm.models import BayesianModel

_ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.GELU,
    nn.Tanh,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.ELU,
    nn.LeakyReLU,
)

# (chain, unit, point) and the parameters of a module, (chain, *shape) -> (chain, unit, point). The
# data, which all chains share, are (unit, point).
_Stage = Callable[..., Tensor]


class BatchedMLP:
    """The networks of all chains.

    Args:
        model: the model with the network.
        stages: for each module, a function and the names of its parameters.
    """

    def __init__(self, model: BayesianModel, stages: list[tuple[_Stage, list[str]]]):
        self._model, self._stages = model, stages

    @classmethod
    def of(cls, model: BayesianModel) -> "BatchedMLP | None":
        """Return the batched network of a model, or None if it is not supported.

        Only sequences of linear layers, layer norms and activations are supported.

        Args:
            model: the model.
        """
        modules = module_sequence(model.net)
        if not modules or not is_linear(modules[0][1]):
            return None
        stages: list[tuple[_Stage, list[str]]] = []
        # With a leading axis, as those of one chain.
        constants = effective_parameters(model.net, model.fixed_values())
        for name, module in modules:
            stage = _stage(module)
            if stage is None:
                return None
            owned = dict(module.named_parameters())
            kinds = [kind for kind in ("weight", "bias") if kind in owned]
            fixed = {
                kind: constants.get(f"{name}.{kind}")
                for kind in ("weight", "bias")
                if kind not in owned and isinstance(getattr(module, kind, None), Tensor)
            }
            values = {kind: value[None] for kind, value in fixed.items() if value is not None}
            if len(values) < len(fixed):
                return None  # a constant that is used twice, or is no parameter, has another name
            stage = _with_constants(stage, kinds, values)
            stages.append((stage, [f"{name}.{kind}" for kind in kinds]))
        taken = [name for _, names in stages for name in names]
        # A weight that is used twice has one name, and its gradient would be that of one use.
        if len(set(taken)) < len(taken) or set(taken) != set(
            model.layer_values(model.unflatten(model.initial()))
        ):
            return None
        return cls(model, stages)

    def log_likelihood_and_gradient(
        self, positions: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the log likelihood, summed over points, and its gradient.

        Args:
            positions: (chain, parameter).
            x: (point, *feature).
            y: targets, as for `BayesianModel.log_likelihood`.

        Returns:
            (chain,) in float64, in nats; (chain, parameter).
        """
        model = self._model
        values = model.unflatten(positions)
        parameters = model.layer_values(values)
        hidden = x.flatten(1).mT
        pull_backs = []
        # Neither the data nor the outputs of stages of constants need a gradient.
        first = next(depth for depth, (_, names) in enumerate(self._stages) if names)
        for stage, _ in self._stages[:first]:
            hidden = stage(hidden)
        for depth, (stage, names) in enumerate(self._stages[first:]):
            arguments = [parameters[name] for name in names]
            hidden, pull_back = (
                _vjp(stage, hidden, *arguments)
                if depth
                else _vjp(functools.partial(stage, hidden), *arguments)
            )
            pull_backs.append(pull_back)
        total = functools.partial(_total, model, y)
        log_likelihood, pull_back = _vjp(total, hidden, model.latents(positions))
        slope, latent_grads = pull_back(torch.ones_like(log_likelihood))
        slope = slope.contiguous()  # with points as the last axis in memory
        gradients = {}
        for depth, ((_, names), pull_back) in reversed(
            list(enumerate(zip(self._stages[first:], pull_backs, strict=True)))
        ):
            cotangents = pull_back(slope)
            if depth:
                slope, *cotangents = cotangents
            gradients |= dict(zip(names, cotangents, strict=True))
        return log_likelihood, model.pull_back(gradients, latent_grads)


def _total(model: BayesianModel, y: Tensor, outputs: Tensor, latents: dict[str, Tensor]) -> Tensor:
    """Return the log likelihood of all points, from outputs (chain, output, point)."""
    return model.log_prob(outputs.mT, y, latents).sum(-1, dtype=torch.float64)


def _vjp(function: Callable[..., Tensor], *values: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    result, pull_back, *_ = torch.func.vjp(function, *values)
    return result, pull_back


def _stage(module: nn.Module) -> _Stage | None:
    """Return a module as a function of (chain, unit, point), or None if it is not supported.

    Subclasses of supported modules are not supported, because they may compute something else.
    """
    if is_linear(module):
        return _linear
    if isinstance(module, FiGLU) and type(module) is FiGLU:
        return functools.partial(_figlu, module.matrix)
    if (
        isinstance(module, nn.LayerNorm)
        and type(module) is nn.LayerNorm
        and len(module.normalized_shape) == 1
    ):
        return functools.partial(_layer_norm, module.eps)
    return (
        module if type(module) in _ELEMENTWISE and not getattr(module, "inplace", False) else None
    )


def _with_constants(stage: _Stage, kinds: list[str], constants: dict[str, Tensor]) -> _Stage:
    """Return a stage of the parameters `kinds` alone; the others are constants."""
    if not constants:
        return stage
    return lambda hidden, *values: stage(
        hidden, **dict(zip(kinds, values, strict=True)), **constants
    )


def _linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    chains, outputs, inputs = weight.shape
    if inputs == 1:
        product = weight * hidden
    elif hidden.dim() == 2:
        product = (weight.reshape(-1, inputs) @ hidden).reshape(chains, outputs, -1)
    elif outputs == 1:
        product = (weight.mT * hidden).sum(-2, keepdim=True)
    else:
        product = weight @ hidden
    return product if bias is None else product + bias[..., None]


def _figlu(matrix: Tensor, hidden: Tensor) -> Tensor:
    return torch.sigmoid(matrix @ hidden) * hidden


def _layer_norm(
    eps: float, hidden: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    centered = hidden - hidden.mean(-2, keepdim=True)
    normal = centered * torch.rsqrt(centered.square().mean(-2, keepdim=True) + eps)
    if weight is None:
        return normal
    normal = normal * weight[..., None]
    return normal if bias is None else normal + bias[..., None]
