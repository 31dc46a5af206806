"""Local reparameterization of linear layers (Kingma, Salimans & Welling 2015, arXiv:1506.02557).

With independent normal weights, the pre-activations of a linear layer that is used once for each
point are independent normals given its input: mean x loc^T + b, variance x^2 (scale^2)^T + s_b^2.
Sampling them in place of the weights gives the same distribution of outputs point by point, and
gradients of far smaller variance. For a convolution that is not
so: weight sharing makes its positions covary, so convolutions, and linear layers used otherwise,
    keep their weights
sampled.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.inference.density.layer_overrides import LayerOverrides, Operation, uses_by_point

Noise = Callable[[torch.Size], Tensor]
"""Shape -> standard normal noise."""


class GradientBuffer:
    """Where the gradient of a leaf goes in place of autograd's own accumulation: it costs no memory
    of its own.

    Attributes:
        tensor: of the leaf's shape.
        is_written: whether a backward pass has come by since the last `close`.
    """

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.is_written = False

    def take(self, gradient: Callable[[Tensor | None], Tensor]) -> None:
        """Puts a gradient there, or adds it to what came before: `gradient` makes it, in the tensor
        it is given.
        """
        if self.is_written:
            self.tensor.add_(gradient(None))
        else:
            gradient(self.tensor)
        self.is_written = True

    def close(self) -> None:
        """Ends a step: what no backward pass has reached has gradient 0."""
        if not self.is_written:
            self.tensor.zero_()
        self.is_written = False


Buffers = Mapping[int, GradientBuffer]


class LocalReparameterization(LayerOverrides):
    """While active, `F.linear` with a known mean weight returns a sample of its pre-activations.

    Args:
        weights: pairs (mean weight, its scale) of the layers to treat.
        biases: pairs (mean bias, its scale).
        noise: shape -> standard normal noise.
        buffers: by `id` of any of these means and scales, where its gradient goes.
    """

    def __init__(
        self,
        weights: Iterable[tuple[Tensor, Tensor]],
        biases: Iterable[tuple[Tensor, Tensor]],
        noise: Noise,
        buffers: Buffers | None = None,
    ):
        weights = list(weights)
        super().__init__(mean for mean, _ in weights)
        self._scales = {id(mean): scale for mean, scale in [*weights, *biases]}
        self._noise = noise
        self._buffers = buffers or {}

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A sample of the pre-activations."""
        scale = self._scales[id(weight)]
        bias_scale = None if bias is None else self._scales[id(bias)]
        noise = self._noise(torch.Size([*x.shape[:-1], len(weight)]))
        into = [self._buffers.get(id(value)) for value in (weight, scale, bias, bias_scale)]
        return _LocalLinear.apply(x, weight, scale, bias, bias_scale, noise, into)


class PlainLinear(LayerOverrides):
    """While active, the gradients of known weights of `F.linear` and of their biases go into
    buffers.

    Args:
        weights: of the layers to treat.
        buffers: by `id` of weight or bias, where its gradient goes.
    """

    def __init__(self, weights: Iterable[Tensor], buffers: Buffers):
        super().__init__(weights)
        self._buffers = buffers

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """F.linear, with another backward pass."""
        return _PlainLinear.apply(
            x, weight, bias, [self._buffers.get(id(value)) for value in (weight, bias)]
        )


class _LocalLinear(torch.autograd.Function):
    """x W^T + b + sqrt(x^2 (S^2)^T + s^2) eps, with its gradient written out: half the time of
    recorded operations.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        bias: Any,
        bias_scale: Any,
        noise: Tensor,
        into: Any = None,
    ) -> Tensor:
        square, variance = x.square(), scale.square()
        bias_variance = None if bias_scale is None else bias_scale.square()
        # A point whose inputs are all zero has variance zero without a bias; sqrt has no gradient
        # there.
        sd = F.linear(square, variance, bias_variance).clamp_(min=1e-30).sqrt_()
        output = F.linear(x, weight, bias).addcmul_(sd, noise)
        ctx.save_for_backward(x, square, weight, scale, variance, bias_scale, torch.div(noise, sd))
        ctx.into = into or [None] * 4
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, square, weight, scale, variance, bias_scale, ratio = ctx.saved_tensors
        twice = gradient * ratio  # the gradient with respect to the variance, twice
        x_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (gradient @ weight).addcmul_(x, twice @ variance)
        into_weight, into_scale, into_bias, into_bias_scale = ctx.into
        weight_grad = _deliver(into_weight, lambda out: torch.mm(gradient.t(), x, out=out))
        scale_grad = _deliver(
            into_scale, lambda out: torch.mm(twice.t(), square, out=out).mul_(scale)
        )
        bias_grad = bias_scale_grad = None
        if bias_scale is not None:
            bias_grad = _deliver(into_bias, lambda out: torch.sum(gradient, 0, out=out))
            bias_scale_grad = _deliver(
                into_bias_scale, lambda out: torch.sum(twice, 0, out=out).mul_(bias_scale)
            )
        return x_grad, weight_grad, scale_grad, bias_grad, bias_scale_grad, None, None


class _PlainLinear(torch.autograd.Function):
    """x W^T + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Any, into: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.into = into
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        x_grad = gradient @ weight if ctx.needs_input_grad[0] else None
        into_weight, into_bias = ctx.into
        weight_grad = _deliver(into_weight, lambda out: torch.mm(gradient.t(), x, out=out))
        bias_grad = None
        if ctx.needs_input_grad[2]:
            bias_grad = _deliver(into_bias, lambda out: torch.sum(gradient, 0, out=out))
        return x_grad, weight_grad, bias_grad, None


def _deliver(buffer: GradientBuffer | None, gradient: Callable[[Any], Tensor]) -> Tensor | None:
    """A gradient for autograd, or None when it has gone into a buffer."""
    if buffer is None:
        return gradient(None)
    buffer.take(gradient)
    return None


def local_layers(
    net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor
) -> list[tuple[str, str | None]]:
    """Names (weight, bias or None) of the linear layers for which local reparameterization is
    exact.

    A weight counts if the only operation that ever sees it, and its bias, is one `F.linear` with a
    (point, feature) input. Weights that are shared, or used once more in any other way, do not.
    """
    return [
        (use.weight, use.bias)
        for use in uses_by_point(net, parameters, x)
        if use.operation is F.linear and len(use.shape) == 2
    ]
