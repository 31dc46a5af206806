"""Provide FiGLU, a nonlinearity without permutation symmetry.

References:
    Lim, Putterman, Walters, Maron and Jegelka (2024), arXiv:2405.20231, section 3.2.
"""

import math
from typing import Literal, no_type_check

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.masks import fixed_values
from bnn_symm.architectures.layers.activations import ThresholdedLinearUnit
from bnn_symm.errors import ConfigError
from bnn_symm.symmetry.inputs import zero_point

ACTIVATION_MODULES = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.RReLU,
        nn.PReLU,
        nn.ELU,
        nn.SELU,
        nn.CELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
    ),
    *(
        nn.Tanh,
        nn.Hardtanh,
        nn.Tanhshrink,
        nn.Sigmoid,
        nn.LogSigmoid,
        nn.Hardsigmoid,
        nn.Hardswish,
        nn.Softplus,
    ),
    *(nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Threshold, ThresholdedLinearUnit),
)
"""The activation modules that FiGLU replaces."""


class FiGLU(nn.Module):
    """A gated unit whose gate reads all units through a fixed random matrix.

    ``y = sigmoid(F x) * x``

    With probability 1 no permutation of the units commutes with it.

    Args:
        matrix: The matrix F.

    Attributes:
        matrix: (width, width), a buffer; never trained.
    """

    matrix: Tensor

    def __init__(self, matrix: Float[Tensor, "width width"]) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    @no_type_check  # torch.fx traces with proxies, which are no tensors
    def forward(self, x: Tensor) -> Tensor:
        """Apply the gate along the last axis, or along the channels of maps with four axes."""
        return _figlu(x, self.matrix)

    def extra_repr(self) -> str:
        """Return a description of the width."""
        return f"width={len(self.matrix)}"


def insert_figlu(
    net: nn.Module,
    input_shape: tuple[int, ...] | None,
    gate_scale: float | Literal["auto"],
    seed: int,
) -> nn.Module:
    """Replace every activation module by a FiGLU, in place.

    Widths are determined in a forward pass. Nonlinearities that are called as functions are left
    unchanged.

    Args:
        net: The network.
        input_shape: Shape of one point.
        gate_scale: Standard deviation of the entries of F; auto is 1 / sqrt(width).
        seed: Seed of F.

    Returns:
        The network, or the FiGLU that replaces it if it is an activation itself.

    Raises:
        ConfigError: If there is no shape, no activation module, or one is used at several widths.
    """
    if input_shape is None:
        raise ConfigError(
            "sigma_asymmetric finds the widths of activations in a forward pass; pass input_shape, "
            "the shape of one point, such as input_shape=(1, 28, 28)"
        )
    widths = _widths(net, input_shape)
    if not widths:
        raise ConfigError(
            "sigma_asymmetric found no activation module in use: functions such as torch.relu "
            "cannot be replaced; use a module for each call, such as self.activation = nn.ReLU()"
        )
    reference = next(net.parameters(), torch.zeros(()))
    replacements: dict[int, FiGLU] = {}
    for name, activation in dict(net.named_modules()).items():
        if activation not in widths:
            continue
        if len(widths[activation]) > 1:
            raise ConfigError(
                f"{name}: this activation is used at the widths {sorted(widths[activation])}, and "
                "a FiGLU has one width; use an activation module for each call"
            )
        (width,) = widths[activation]
        scale = 1 / math.sqrt(width) if gate_scale == "auto" else gate_scale
        matrix = torch.from_numpy(fixed_values(seed, name, (width, width), scale))
        replacements[id(activation)] = FiGLU(matrix.to(reference.device, reference.dtype)).train(
            activation.training
        )
    if id(net) in replacements:
        return replacements[id(net)]
    for parent in list(net.modules()):
        for name, child in parent._modules.items():
            if id(child) in replacements:
                parent._modules[name] = replacements[id(child)]
    return net


def _widths(net: nn.Module, input_shape: tuple[int, ...]) -> dict[nn.Module, set[int]]:
    """Return activation module -> the widths at which a forward pass uses it."""
    widths: dict[nn.Module, set[int]] = {}

    def record_width(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        widths.setdefault(module, set()).add(inputs[0].shape[1 if inputs[0].ndim == 4 else -1])

    activations = [module for module in net.modules() if isinstance(module, ACTIVATION_MODULES)]
    hooks = [module.register_forward_pre_hook(record_width) for module in activations]
    try:
        with torch.no_grad():
            net(zero_point(net, input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return widths


def _figlu(x: Tensor, matrix: Tensor) -> Tensor:
    gate = F.conv2d(x, matrix[:, :, None, None]) if x.ndim == 4 else F.linear(x, matrix)
    return torch.sigmoid(gate) * x


torch.fx.wrap("_figlu")  # torch.fx cannot trace the branch on the number of axes
