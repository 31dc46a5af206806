"""Flipout (Wen, Vicol, Ba, Tran & Grosse 2018, arXiv:1803.04386): one draw of the noise, other
signs for each point.

A perturbation D of a weight, whose entries are independent and symmetric, has the law of (r s^T) *
D for any signs r of outputs and s of inputs. So each point can have weights of its own at the price
of two products:

    W_n x_n = loc x_n + r_n * (D (s_n * x_n)),        D = scale * eps

Each point sees exactly the law of sampled weights, also in a convolution, whose signs are those of
channels and so the same at every position; between points the perturbations are uncorrelated, so
that gradients have less variance. A bias counts as the weight of an input of 1. Where a weight is
used more than once a point, the uses would have different weights, so it is sampled as everywhere
else.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.inference.density.layer_overrides import LayerOverrides, Operation, uses_by_point
from bnn_symm.inference.variational.local_reparameterization import Noise


class Flipout(LayerOverrides):
    """While active, layers with a known mean weight return outputs of weights sampled for each
    point.

    Args:
        weights: pairs (mean weight, its scale) of the layers to treat.
        biases: pairs (mean bias, its scale).
        noise: shape -> standard normal noise.
    """

    def __init__(
        self,
        weights: Iterable[tuple[Tensor, Tensor]],
        biases: Iterable[tuple[Tensor, Tensor]],
        noise: Noise,
    ):
        weights = list(weights)
        super().__init__(mean for mean, _ in weights)
        self._scales = {id(mean): scale for mean, scale in [*weights, *biases]}
        self._noise = noise

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Outputs of the mean, and of the perturbation with the signs of each point."""
        channels = channel_axis(weight)
        of_inputs = self._signs(x, channels, x.shape[channels])
        of_outputs = self._signs(x, channels, len(weight))
        perturbation = self._scales[id(weight)] * self._noise(weight.shape)
        change = operation(x * of_inputs, perturbation, None)
        if bias is not None:
            bias_noise = self._scales[id(bias)] * self._noise(bias.shape)
            one = self._signs(x, channels, 1)
            change = change + one * (
                bias_noise
                if channels == -1
                else bias_noise.unflatten(0, (-1, *[1] * (x.dim() - 2)))
            )
        return operation(x, weight, bias) + of_outputs * change

    def _signs(self, x: Tensor, channels: int, number: int) -> Tensor:
        """Of each point; of normals, so that antithetic noise flips them too: with r, s and eps the
        product flips.
        """
        shape = [len(x), *[1] * (x.dim() - 1)]
        shape[channels] = number
        return 1 - 2 * self._noise(torch.Size(shape)).signbit().to(x.dtype)


def channel_axis(weight: Tensor) -> int:
    """Which axis of inputs and outputs a layer's features are: the last of a dense one, the second
    of a convolution.
    """
    return -1 if weight.dim() == 2 else 1


def flipout_layers(
    net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor
) -> list[tuple[str, str | None]]:
    """Names (weight, bias or None) of the layers for which flipout is exact.

    These are dense layers and convolutions whose weight and bias are seen by one operation only,
    once a point, whatever the number of positions; the points are the first axis of its input.
    """
    return [
        (use.weight, use.bias)
        for use in uses_by_point(net, parameters, x)
        if use.operation is F.linear or len(use.shape) == parameters[use.weight].dim()
    ]
