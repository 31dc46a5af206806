"""Local reparameterisation of linear layers (Kingma, Salimans & Welling 2015, arXiv:1506.02557).

With independent normal weights, the pre-activations of a linear layer that is used once for each point are
independent normals
given its input: mean x loc^T + b, variance x^2 (scale^2)^T + s_b^2. Sampling them in place of the weights gives the
same distribution of outputs point by point, and gradients of far smaller variance. For a convolution that is not
so: weight sharing makes its positions covary, so convolutions, and linear layers used otherwise, keep their weights
sampled.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class LocalReparameterization(TorchFunctionMode):
    """While active, `F.linear` with a known mean weight returns a sample of its pre-activations.

    Args:
        weights: pairs (mean weight, its scale) of the layers to treat.
        biases: pairs (mean bias, its scale).
        noise: shape -> standard normal noise.
    """

    def __init__(
        self,
        weights: list[tuple[Tensor, Tensor]],
        biases: list[tuple[Tensor, Tensor]],
        noise: Callable[[torch.Size], Tensor],
    ):
        super().__init__()
        self._weights = {id(mean): scale for mean, scale in weights}
        self._biases = {id(mean): scale for mean, scale in biases}
        self._noise = noise

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces F.linear for the known weights, passes on everything else."""
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, bias = _linear_arguments(*args, **kwargs)
            scale = self._weights.get(id(weight))
            if scale is not None:
                bias_scale = None if bias is None else self._biases[id(bias)]
                noise = self._noise(torch.Size([*x.shape[:-1], len(weight)]))
                return _LocalLinear.apply(x, weight, scale, bias, bias_scale, noise)
        return func(*args, **kwargs)


class _LocalLinear(torch.autograd.Function):
    """x W^T + b + sqrt(x^2 (S^2)^T + s^2) eps, with its gradient written out: half the time of recorded operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Any, bias_scale: Any, noise: Tensor
    ) -> Tensor:
        square, variance = x.square(), scale.square()
        bias_variance = None if bias_scale is None else bias_scale.square()
        # A point whose inputs are all zero has variance zero without a bias; sqrt has no gradient there.
        sd = F.linear(square, variance, bias_variance).clamp_(min=1e-30).sqrt_()
        ctx.save_for_backward(x, square, weight, scale, variance, bias_scale, noise / (2 * sd))
        return torch.addcmul(F.linear(x, weight, bias), sd, noise)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, square, weight, scale, variance, bias_scale, half = ctx.saved_tensors
        of_variance = gradient * half
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.addcmul(gradient @ weight, x, of_variance @ variance, value=2)
        of_scale = 2 * scale * (of_variance.t() @ square)
        of_bias = of_bias_scale = None
        if bias_scale is not None:
            of_bias, of_bias_scale = gradient.sum(0), 2 * bias_scale * of_variance.sum(0)
        return of_x, gradient.t() @ x, of_scale, of_bias, of_bias_scale, None


def _linear_arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    return input, weight, bias


def local_layers(net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> list[tuple[str, str | None]]:
    """Names (weight, bias or None) of the linear layers for which local reparameterisation is exact.

    One forward pass is watched: a weight counts if the only operation that ever sees it, and its bias, is one
    `F.linear` with a (point, feature) input. Weights that are shared, or used once more in any other way, do not.
    """
    watch = _Uses({id(value): name for name, value in parameters.items()})
    with torch.no_grad(), watch:
        functional_call(net, dict(parameters), (x,))
    exact = []
    for name, calls in watch.calls.items():
        if len(calls) != 1 or calls[0] is None:
            continue
        weight, bias, shape = calls[0]
        alone = bias is None or watch.calls[bias] == [calls[0]]
        if name == weight and alone and len(shape) == 2 and shape[0] == len(x):
            exact.append((weight, bias))
    return exact


class _Uses(TorchFunctionMode):
    """Notes what sees a parameter: (weight, bias, shape of the input) for F.linear, None for any other operation."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self._names = names
        self.calls: dict[str, list[tuple[str, str | None, tuple[int, ...]] | None]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Reading an attribute, such as the shape, is no use of the values.
        if getattr(func, "__name__", "") != "__get__":
            call = None
            if func is F.linear:
                x, weight, bias = _linear_arguments(*args, **kwargs)
                name, bias_name = self._names.get(id(weight)), self._names.get(id(bias))
                if name is not None and (bias is None) == (bias_name is None):
                    call = (name, bias_name, tuple(x.shape))
            for value in tree_leaves((args, kwargs)):
                if isinstance(value, Tensor) and id(value) in self._names:
                    self.calls.setdefault(self._names[id(value)], []).append(call)
        return func(*args, **kwargs)
