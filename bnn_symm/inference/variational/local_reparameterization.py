"""Local reparameterization of linear layers.

With independent normal weights, the pre-activations of a linear layer that is used once per point
are independent normals given its input, with mean x loc^T + b and variance
x^2 (scale^2)^T + s_b^2. Sampling them in place of the weights gives the same distribution of
outputs for each point, and gradients of much smaller variance. In a convolution, positions share
weights and are correlated. So the weights of convolutions, and of linear layers with other uses,
are sampled.

References:
    Kingma, Salimans & Welling 2015, arXiv:1506.02557.
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
    """The buffer of a leaf's gradient, which replaces autograd's accumulation without extra memory.

    Attributes:
        tensor: has the shape of the leaf.
        is_written: whether a backward pass has written it since the last `close`.
    """

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
        self.is_written = False

    def take(self, gradient: Callable[[Tensor | None], Tensor]) -> None:
        """Write a gradient, or add it to previous ones.

        Args:
            gradient: computes the gradient, in the tensor that it is given, if any.
        """
        if self.is_written:
            self.tensor.add_(gradient(None))
        else:
            gradient(self.tensor)
        self.is_written = True

    def close(self) -> None:
        """Finish a step: the gradient is 0 if no backward pass wrote it."""
        if not self.is_written:
            self.tensor.zero_()
        self.is_written = False


Buffers = Mapping[int, GradientBuffer]


class NoisyLayers(LayerOverrides):
    """While active, layers with a known mean weight have noise for each point.

    Args:
        weights: pairs (mean weight, its scale) of the layers to treat.
        biases: pairs (mean bias, its scale).
        noise: shape -> standard normal noise.
        buffers: by `id` of any of these means and scales, the buffer of its gradient.
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
        self._noise, self._buffers = noise, buffers or {}


class LocalReparameterization(NoisyLayers):
    """While active, `F.linear` with a known mean weight returns a sample of its pre-activations."""

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return a sample of the pre-activations."""
        scale = self._scales[id(weight)]
        bias_scale = None if bias is None else self._scales[id(bias)]
        noise = self._noise(torch.Size([*x.shape[:-1], len(weight)]))
        into = [self._buffers.get(id(value)) for value in (weight, scale, bias, bias_scale)]
        return _LocalLinear.apply(x, weight, scale, bias, bias_scale, noise, into)


class PlainLinear(LayerOverrides):
    """While active, gradients of known weights of `F.linear` and of their biases go into buffers.

    Args:
        weights: weights of the layers to treat.
        buffers: by `id` of weight or bias, the buffer of its gradient.
    """

    def __init__(self, weights: Iterable[Tensor], buffers: Buffers):
        super().__init__(weights)
        self._buffers = buffers

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output of `F.linear`, with a backward pass that writes to buffers."""
        return _PlainLinear.apply(
            x, weight, bias, [self._buffers.get(id(value)) for value in (weight, bias)]
        )


class _LocalLinear(torch.autograd.Function):
    """The function x W^T + b + sqrt(x^2 (S^2)^T + s^2) eps, with an explicit gradient.

    It takes half the time of recorded operations.
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
        # Without a bias, a point whose inputs are all zero has variance zero, where sqrt has no
        # gradient.
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
    """The function x W^T + b, with an explicit gradient."""

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
    """Return a gradient for autograd, or None if it was written to a buffer."""
    if buffer is None:
        return gradient(None)
    buffer.take(gradient)
    return None


def local_layers(
    net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor
) -> list[tuple[str, str | None]]:
    """Return the names (weight, bias or None) of layers that can be reparameterized locally.

    These are linear layers whose weight and bias are used by exactly one `F.linear` with a (point,
    feature) input. Shared weights, and weights with any other use, are excluded.

    Args:
        net: any network.
        parameters: its parameters by name.
        x: at least one point.
    """
    return [
        (use.weight, use.bias)
        for use in uses_by_point(net, parameters, x)
        if use.operation is F.linear and len(use.shape) == 2
    ]
