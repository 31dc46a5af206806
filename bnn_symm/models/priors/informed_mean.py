"""Define the mean of an informed prior: weights from an earlier fit, entry by entry.

References:
    Krishnan, Subedar & Tickoo 2020, arXiv:1906.05323 (MOPED).
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bnn_symm.architectures import (
    effective_parameters,
    fingerprint,
    fixed_buffers,
    free_parameters,
    short_fingerprint,
    weight_shapes,
)
from bnn_symm.architectures.asymmetric.fingerprint import fingerprint_of
from bnn_symm.arguments import checked
from bnn_symm.errors import ConfigError, one_line


class PriorMean:
    """Hold the weights that a prior is centered on; instances are equal if their content is.

    Args:
        weights: name -> whole weight, such as a state dict. Buffers among them are ignored.

    Attributes:
        weights: copies, on the CPU.
        sha256: hash of names, shapes and values as float64, in hexadecimal.

    Raises:
        ConfigError: if a value is not a tensor.
    """

    @checked
    def __init__(self, weights: Mapping[str, Tensor]):
        wrong = next(
            (name for name, value in weights.items() if not isinstance(value, Tensor)), None
        )
        if wrong is not None:
            raise ConfigError(
                f"weights: got an object of type {type(weights[wrong]).__name__} under "
                f"{one_line(repr(wrong), 60)}, expected a tensor for each name, as in a state dict"
            )
        self.weights = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in sorted(weights.items())
        }
        digest = hashlib.sha256()
        for name, value in self.weights.items():
            digest.update(f"{name}\0{'x'.join(map(str, value.shape))}\0".encode())
            digest.update(value.double().numpy().astype("<f8").tobytes())
        self.sha256 = digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PriorMean) and other.sha256 == self.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        return f"PriorMean({len(self.weights)} tensors, sha256={self.sha256[:12]})"

    def free(self, net: nn.Module) -> dict[str, Tensor]:
        """Return the mean of every parameter of a network, of free entries only.

        Names, order, dtypes and devices are those of the network. Weights with fixed entries may be
        given as vectors of the free ones if they come with masks and fixed values equal to the
        network's.

        Args:
            net: the network.

        Returns:
            Name -> mean of the parameter.

        Raises:
            ConfigError: if a name is missing or unknown, a shape does not match, or a value is not
                finite.
        """
        buffers, whole = dict(net.named_buffers()), weight_shapes(net)
        given = {name: value for name, value in self.weights.items() if name not in buffers}
        problems = [f"{name} is missing" for name in whole if name not in given]
        problems += [f"{name} is unknown" for name in given if name not in whole]
        found = {}
        for name, parameter in net.named_parameters():
            value = given.get(name)
            if value is None:
                continue
            if value.shape not in (whole[name], parameter.shape):
                problems.append(
                    f"{name} has shape {_text(value.shape)}, expected {_text(whole[name])}"
                )
            elif not bool(torch.isfinite(value).all()):
                problems.append(f"{name} has values that are not finite")
            else:
                found[name] = value.to(parameter.device, parameter.dtype)
        if problems:
            raise ConfigError(
                f"prior.mean does not fit the network: {'; '.join(problems[:5])}; use weights "
                "of the same architecture, data columns and classes"
            )
        vectors = [name for name, value in found.items() if value.shape != whole[name]]
        if vectors:
            self._check_masks(net, vectors[0])
        restricted = free_parameters(
            net, {name: value for name, value in found.items() if name not in vectors}
        )
        return {**found, **restricted}

    def whole(self, net: nn.Module) -> "PriorMean":
        """Return the same mean as whole weights of a network, fixed entries included.

        Args:
            net: the network.

        Returns:
            The mean without any other tensors.

        Raises:
            ConfigError: as `free`.
        """
        return PriorMean(effective_parameters(net, self.free(net)))

    def _check_masks(self, net: nn.Module, vector: str) -> None:
        """Refuse vectors of free entries whose masks differ from the network's."""
        theirs = {name: self.weights[name] for name in fixed_buffers(net) if name in self.weights}
        found = fingerprint_of(theirs) if theirs else None
        if found != fingerprint(net):
            raise ConfigError(
                f"prior.mean: {vector} holds free entries only, with the mask fingerprint "
                f"{short_fingerprint(found)}; the network has "
                f"{short_fingerprint(fingerprint(net))}; give whole weights, or use their "
                "architecture.symmetry, its seed included"
            )


def _text(shape: torch.Size) -> str:
    return "x".join(map(str, shape)) or "1"
