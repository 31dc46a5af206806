"""Fingerprint the random fixed entries of a network.

Posteriors can be compared only if their fingerprints agree.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bnn_symm.architectures.asymmetric.figlu import FiGLU
from bnn_symm.architectures.asymmetric.fixed_biases import fixed_bias
from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntries
from bnn_symm.errors import IncompatiblePosteriors


def fixed_buffers(net: nn.Module) -> dict[str, Tensor]:
    """Return name -> mask, fixed values, FiGLU matrix or fixed bias of every layer with such.

    Names are sorted; tensors are not copied.
    """
    buffers: dict[str, Tensor] = {}
    for name, module in net.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, FixedEntries):
            buffers |= {f"{prefix}mask": module.mask, f"{prefix}fixed": module.fixed}
        elif isinstance(module, FiGLU):
            buffers[f"{prefix}matrix"] = module.matrix
        if (bias := fixed_bias(module)) is not None:
            buffers[f"{prefix}bias"] = bias
    return dict(sorted(buffers.items()))


def fingerprint(net: nn.Module) -> str | None:
    """Return the fingerprint of a network's random fixed entries, or None if there are none.

    It is a SHA-256 in hexadecimal and does not depend on dtype, device or process.
    """
    buffers = fixed_buffers(net)
    return fingerprint_of(buffers) if buffers else None


def fingerprint_of(buffers: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of named buffers.

    It covers names, shapes, packed bits of masks, and other values as float32.
    """
    digest = hashlib.sha256()
    for name, value in sorted(buffers.items()):
        array = value.detach().cpu().numpy()
        digest.update(f"{name}\0{'x'.join(map(str, array.shape))}\0".encode())
        digest.update(
            np.packbits(array).tobytes() if array.dtype == bool else array.astype("<f4").tobytes()
        )
    return digest.hexdigest()


def short_fingerprint(value: str | None) -> str:
    """Return the short form of a fingerprint for messages."""
    return "none" if value is None else value[:12]


@torch.no_grad()
def load_fixed_buffers(net: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Load saved masks, fixed values and matrices into a network, in place.

    Args:
        net: The network, which is changed.
        buffers: Name -> tensor, as from `fixed_buffers`.

    Raises:
        IncompatiblePosteriors: If names, shapes or the number of free entries differ from the
            network's.
    """
    buffers_of_net = fixed_buffers(net)
    problems = [f"{name} is missing" for name in buffers_of_net if name not in buffers]
    problems += [f"{name} is unknown" for name in buffers if name not in buffers_of_net]
    for name, value in buffers_of_net.items():
        if name in buffers and buffers[name].shape != value.shape:
            problems.append(
                f"{name} has shape {tuple(buffers[name].shape)}, expected {tuple(value.shape)}"
            )
        elif name in buffers and (buffers[name].dtype == torch.bool) != (value.dtype == torch.bool):
            problems.append(f"{name} has dtype {buffers[name].dtype}, expected {value.dtype}")
        elif name in buffers and value.dtype == torch.bool and buffers[name].sum() != value.sum():
            problems.append(
                f"{name} has {int(buffers[name].sum())} free entries, expected {int(value.sum())}"
            )
    if problems:
        raise IncompatiblePosteriors(
            "fixed entries do not fit the network: " + "; ".join(problems[:5])
        )
    for name, value in buffers_of_net.items():
        value.copy_(buffers[name])
    for module in net.modules():
        if isinstance(module, FixedEntries):
            module.update_positions()
