"""Build the control `init_matched`: layers that only start with an asymmetric network's values."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class InitialEntries(nn.Module):
    """A plain layer that starts with given values at some entries; all of them are parameters.

    Large fixed entries also change the initial values of a network. This layer starts at the same
    values and has the symmetry of a standard network. `initialize` reads the buffers; the forward
    pass does not, and they are not part of the state dict.

    Attributes:
        weight: (*shape), a parameter.
        mask: (*shape), False where an initial value is given.
        fixed: (*shape), those values.
    """

    weight: nn.Parameter
    mask: Tensor
    fixed: Tensor

    @torch.no_grad()
    def reset_initial_entries(self) -> None:
        """Write the given initial values into the weight."""
        self.weight.copy_(torch.where(self.mask, self.weight, self.fixed))


class InitialEntriesLinear(InitialEntries, nn.Linear):
    """A linear layer that starts with given values at some entries."""


class InitialEntriesConv1d(InitialEntries, nn.Conv1d):
    """A convolution over one axis that starts with given values at some entries."""


class InitialEntriesConv2d(InitialEntries, nn.Conv2d):
    """A convolution over two axes that starts with given values at some entries."""


class InitialEntriesConv3d(InitialEntries, nn.Conv3d):
    """A convolution over three axes that starts with given values at some entries."""


_INITIAL = {
    nn.Linear: InitialEntriesLinear,
    nn.Conv1d: InitialEntriesConv1d,
    nn.Conv2d: InitialEntriesConv2d,
    nn.Conv3d: InitialEntriesConv3d,
}


def set_initial_entries(
    layer: nn.Module, mask: Bool[Tensor, "*shape"], fixed: Float[Tensor, "*shape"]
) -> InitialEntries:
    """Give a plain layer initial values where `mask` is False, in place.

    The layer changes its class.

    Args:
        layer: Exactly an `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`.
        mask: False where a value is given.
        fixed: The values; read only there.

    Returns:
        The layer.
    """
    layer.__class__ = cast(Any, _INITIAL[type(layer)])
    changed = cast(InitialEntries, layer)
    weight = changed.weight
    changed.register_buffer("mask", mask.to(weight.device), persistent=False)
    changed.register_buffer("fixed", fixed.to(weight.device, weight.dtype), persistent=False)
    changed.reset_initial_entries()
    return changed
