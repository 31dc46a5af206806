"""Order the biases of hidden units, so that each posterior has one copy of every function.

Permuting the units of a layer permutes its biases. If their prior is restricted to increasing
biases, ``n! p(b) 1[b_1 < ... < b_n]``, exactly one of the n! copies of each network remains. Its
posterior is that of the standard network modulo permutations: nothing is fixed, and every function
can still be represented. Flips of tanh units and factors of relu units remain, as nonlinear maps of
the parameters.

A layer has the parameters u with independent normal priors, and the biases
``b = kappa ordered(u / kappa)``. If u is normal with standard deviation `kappa`, b has the
distribution of sorted independent normals (Renyi 1953): with ``V_k = Phi(u_k / kappa)``,

    Phi(b_n / kappa) = V_n^(1/n),   Phi(b_k / kappa) = Phi(b_{k+1} / kappa) V_k^(1/k)

So every method works in u, where the prior has no boundary.

References:
    Pourzanjani, Jiang and Petzold (2017), Improving the Identifiability of Neural Networks for
    Bayesian Inference, NIPS workshop on Bayesian deep learning, where biases are ordered.
    Renyi (1953), On the theory of order statistics, Acta Math. Acad. Sci. Hungar. 4.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, cast, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.fixed_biases import bias_kappa, hidden_biases
from bnn_symm.architectures.config import SymmetryConfig

_TINY = 1e-37
"""Probabilities below this one, 13 standard deviations from 0, count as this one: float32 has few
smaller numbers."""


def ordered_normals(u: Float[Tensor, "*draw unit"]) -> Float[Tensor, "*draw unit"]:
    """Return sorted values, which are order statistics of standard normals if `u` is such a sample.

    The map is one to one and smooth, up to 13 standard deviations from 0.

    Args:
        u: (*draw, unit), any numbers.

    Returns:
        (*draw, unit), increasing along the last axis.

    Example:
        >>> ordered_normals(torch.zeros(3)).tolist() == sorted(ordered_normals(torch.zeros(3)))
        True
        >>> round(ordered_normals(torch.tensor([-1.5])).item(), 4)
        -1.5
    """
    number = u.shape[-1]
    ranks = torch.arange(1, number + 1, dtype=u.dtype, device=u.device)
    logs = _log_normal_cdf(u) / ranks
    # The logarithms of uniform order statistics: sums over the ranks from k on.
    log_uniform = logs.flip(-1).cumsum(-1).flip(-1)
    # Each tail by its own probability, which is exact where it is small.
    is_upper = log_uniform > -math.log(2)
    tail = torch.where(is_upper, -torch.expm1(log_uniform), torch.exp(log_uniform))
    normal = torch.special.ndtri(tail.clamp(min=_TINY))
    return torch.where(is_upper, -normal, normal)


# torch.fx cannot trace the shape, so it treats the function as one operation.
torch.fx.wrap("ordered_normals")


def _log_normal_cdf(u: Tensor) -> Tensor:
    """Return log Phi(u); torch's own function cannot be batched by vmap."""
    lower, upper = u.clamp(max=0.0), u.clamp(min=0.0)
    of_lower = (torch.special.erfcx(-lower * math.sqrt(0.5)) / 2).log() - lower.square() / 2
    of_upper = torch.log1p(-torch.erfc(upper * math.sqrt(0.5)) / 2)
    return torch.where(u > 0, of_upper, of_lower)


class OrderedBias(nn.Module):
    """Mixin of the layers in this module; it comes before `nn.Linear` or `nn.ConvNd` in the bases.

    Attributes:
        bias: (unit,), the parameters u.
        kappa: the scale of the biases.
    """

    bias: nn.Parameter
    kappa: float

    def ordered_bias(self) -> Float[Tensor, " unit"]:
        """Return the biases that the layer computes with."""
        return self.kappa * ordered_normals(self.bias / self.kappa)

    def extra_repr(self) -> str:
        """Return the plain layer's description and the scale of the biases."""
        return f"{super().extra_repr()}, ordered biases of scale {self.kappa:g}"


class OrderedBiasLinear(OrderedBias, nn.Linear):
    """A linear layer with ordered biases."""

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, input: Tensor) -> Tensor:
        """Map (*, in_features) to (*, out_features)."""
        return F.linear(input, self.weight) + self.ordered_bias()


class _OrderedBiasConv(OrderedBias):
    axes: ClassVar[int]

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, input: Tensor) -> Tensor:
        """Map (point, channel, *positions) to (point, out_channel, *new_positions)."""
        bias = self.ordered_bias().view(-1, *[1] * self.axes)
        return self._conv_forward(input, self.weight, None) + bias


class OrderedBiasConv1d(_OrderedBiasConv, nn.Conv1d):
    """A convolution over one axis with ordered biases."""

    axes = 1


class OrderedBiasConv2d(_OrderedBiasConv, nn.Conv2d):
    """A convolution over two axes with ordered biases."""

    axes = 2


class OrderedBiasConv3d(_OrderedBiasConv, nn.Conv3d):
    """A convolution over three axes with ordered biases."""

    axes = 3


_ORDERED: dict[type[nn.Module], type[OrderedBias]] = {
    nn.Linear: OrderedBiasLinear,
    nn.Conv1d: OrderedBiasConv1d,
    nn.Conv2d: OrderedBiasConv2d,
    nn.Conv3d: OrderedBiasConv3d,
}


def order_biases(
    net: nn.Module,
    layers: Mapping[str, nn.Module],
    settings: SymmetryConfig,
    input_shape: tuple[int, ...] | None,
) -> nn.Module:
    """Order the biases of all layers whose units can be permuted, in place.

    The layers change their class, as with `torch.nn.utils.parametrize`.

    Args:
        net: The network, which is changed.
        layers: Its linear and convolution layers, by name.
        settings: `kappa`, one number, is the scale of the biases.
        input_shape: Shape of one point.

    Returns:
        The network.

    Raises:
        ConfigError: If there is no input shape, if no such layer has a bias, or if `kappa` is a
            list or 0.
    """
    kappa = bias_kappa(settings)
    for _, layer in hidden_biases(net, layers, settings.kind, input_shape):
        layer.__class__ = _ORDERED[type(layer)]
        cast(OrderedBias, layer).kappa = kappa
    return net
