"""Flipout: one perturbation of the weights per step, with independent signs for each point.

A perturbation D of a weight, whose entries are independent and symmetric, has the same distribution
as (r s^T) * D for any signs r of outputs and s of inputs. So each point can have its own weights at
the cost of two products:

    W_n x_n = loc x_n + r_n * (D (s_n * x_n)),        D = scale * eps

For each point, the weights have exactly the intended distribution, also in a convolution, whose
signs are those of channels and so the same at every position. Between points, the perturbations are
uncorrelated, so gradients have less variance. A bias is treated as the weight of an input of 1. If
a weight is used more than once per point, its uses would have different weights, so it is sampled
in weight space.

References:
    Wen, Vicol, Ba, Tran & Grosse 2018, arXiv:1803.04386.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.inference.density.layer_overrides import Operation, uses_by_point
from bnn_symm.inference.variational.local_reparameterization import NoisyLayers


class Flipout(NoisyLayers):
    """While active, layers with a known mean weight use weights sampled for each point."""

    def apply(self, operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs of the mean plus those of the signed perturbation."""
        channels = channel_axis(weight)
        input_signs = self._signs(x, channels, x.shape[channels])
        output_signs = self._signs(x, channels, len(weight))
        perturbation = self._scales[id(weight)] * self._noise(weight.shape)
        perturbed = operation(x * input_signs, perturbation, None)
        if bias is not None:
            bias_noise = self._scales[id(bias)] * self._noise(bias.shape)
            bias_sign = self._signs(x, channels, 1)
            perturbed = perturbed + bias_sign * (
                bias_noise
                if channels == -1
                else bias_noise.unflatten(0, (-1, *[1] * (x.dim() - 2)))
            )
        return operation(x, weight, bias) + output_signs * perturbed

    def _signs(self, x: Tensor, channels: int, number: int) -> Tensor:
        """Return random signs for each point.

        They are signs of normals, so that antithetic noise flips them too: with r, s and eps, the
        product flips.
        """
        shape = [len(x), *[1] * (x.dim() - 1)]
        shape[channels] = number
        return 1 - 2 * self._noise(torch.Size(shape)).signbit().to(x.dtype)


def channel_axis(weight: Tensor) -> int:
    """Return the feature axis: the last of a dense layer, the second of a convolution.

    Args:
        weight: the weight of the layer.
    """
    return -1 if weight.dim() == 2 else 1


def flipout_layers(
    net: nn.Module, parameters: Mapping[str, Tensor], x: Tensor
) -> list[tuple[str, str | None]]:
    """Return the names (weight, bias or None) of the layers for which flipout is exact.

    These are dense layers and convolutions whose weight and bias are used by exactly one operation,
    once per point, for any number of positions. Points are the first axis of its input.

    Args:
        net: any network.
        parameters: its parameters by name.
        x: at least one point.
    """
    return [
        (use.weight, use.bias)
        for use in uses_by_point(net, parameters, x)
        if use.operation is F.linear or len(use.shape) == parameters[use.weight].dim()
    ]
