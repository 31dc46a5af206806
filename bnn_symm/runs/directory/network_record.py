"""Store what defines a network besides its trainable parameters: user code, batch norm, a graph.

User code builds the network again whenever a run is opened. Anything that it draws at random, reads
from elsewhere, or does differently after an edit would change predictions silently. Therefore
`network.safetensors` stores the constants of the network (buffers, frozen parameters, plain
tensors), which are restored, and its outputs at a few points for parameters derived from their
names, which have to be reproduced.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.architectures import (
    FrozenBatchNorm,
    Neighborhood,
    outputs_agree,
    preserve_global_state,
)
from bnn_symm.data import Graph
from bnn_symm.errors import InvalidRun
from bnn_symm.io.arrays import read_tensors
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.paths import check_regular_file
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator

_NUM_POINTS = 4
# If all constants together are larger, their SHA-256 is stored: a frozen backbone needs no copy in
# every run.
_MAX_BYTES = 64 * 2**20
# Types that safetensors can store; of complex and quantized tensors the SHA-256 is stored.
_STORABLE = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """Hold the constants of a network, and its outputs at probe points.

    Attributes:
        constants: name -> tensor, for constants that are stored.
        hashes: name -> fingerprint, for the others.
        points: (point, *feature), rows of the training split.
        outputs: (point, output), at the parameters of `_probe_outputs`.
    """

    constants: Mapping[str, Tensor]
    hashes: Mapping[str, str]
    points: Tensor
    outputs: Tensor

    @classmethod
    def of(cls, model: BayesianModel, points: Tensor) -> "NetworkRecord":
        """Return the record of a model's network.

        Args:
            model: the model.
            points: points of the data, of which the first few are used.
        """
        named = constants(model.net)
        is_small = (
            sum(value.numel() * value.element_size() for value in named.values()) <= _MAX_BYTES
        )
        kept = {
            name: value for name, value in named.items() if is_small and value.dtype in _STORABLE
        }
        points = model.inputs(points[:_NUM_POINTS])
        return cls(
            constants={name: value.detach().cpu().contiguous() for name, value in kept.items()},
            hashes={name: _digest(value) for name, value in named.items() if name not in kept},
            points=points.cpu().contiguous(),
            outputs=_probe_outputs(model, points).cpu().contiguous(),
        )

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        tensors = {f"constant.{name}": value for name, value in self.constants.items()}
        hashes = torch.tensor(list(json.dumps(dict(self.hashes)).encode()), dtype=torch.uint8)
        return save({**tensors, "points": self.points, "outputs": self.outputs, "hashes": hashes})

    @classmethod
    def read(cls, path: Path) -> "NetworkRecord":
        """Read the file of a run.

        Args:
            path: the path of the file.

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            check_regular_file(path, InvalidRun)
            tensors = read_tensors(path)
        except FileNotFoundError:
            raise InvalidRun(
                f"{path.parent} has no {path.name}, which contains the constants of its network; "
                "copy the whole directory, or fit again"
            ) from None
        with parser_errors(path, "fit again"):
            kept = {
                name.removeprefix("constant."): v
                for name, v in tensors.items()
                if name.startswith("constant.")
            }
            hashes = dict(json.loads(bytes(tensors["hashes"].tolist())))
            return cls(
                constants=kept, hashes=hashes, points=tensors["points"], outputs=tensors["outputs"]
            )

    @torch.no_grad()
    def restore(self, model: BayesianModel, where: Path, factory: str) -> None:
        """Load the constants of the run into a network that was built again, and check its outputs.

        Args:
            model: the model; the buffers of its network are changed in place.
            where: the run directory, for messages.
            factory: the factory of the network, for messages.

        Raises:
            InvalidRun: if names, shapes or hashes of constants, or outputs, have changed.
        """
        advice = (
            "the posterior does not belong to this network; restore the code and files of "
            f"{factory}, or fit again"
        )
        named = constants(model.net)
        for name in [*self.constants, *self.hashes, *named]:
            stored = self.constants.get(name)
            if name not in named or (stored is None and name not in self.hashes):
                which = "is missing" if name not in named else "is new"
                raise InvalidRun(f"{where}: the buffer {name} of the network {which}; {advice}")
            if stored is not None and stored.shape != named[name].shape:
                raise InvalidRun(
                    f"{where}: the buffer {name} of the network has shape "
                    f"{tuple(named[name].shape)}, at the fit it had {tuple(stored.shape)}; {advice}"
                )
            if stored is None and _digest(named[name]) != self.hashes[name]:
                raise InvalidRun(
                    f"{where}: the buffer {name} of the network was changed since the fit; {advice}"
                )
        for name, value in self.constants.items():
            named[name].copy_(value)
        now = _probe_outputs(model, model.inputs(self.points))
        if not outputs_agree(now.cpu(), self.outputs.to(now.dtype)):
            raise InvalidRun(
                f"{where}: the outputs of the network at the probe points differ from those at the "
                "fit, so something besides parameters and buffers changed (a list of tensors, a "
                f"global, edited code); {advice}"
            )

    @property
    def graph(self) -> Graph | None:
        """Return the stored graph; None without one, or if it is too large to be stored.

        Its features are the inputs of the first layer, which `restore` puts in their place.
        """
        stored = {name.rpartition(".")[2]: value for name, value in self.constants.items()}
        if stored.keys() != {"inputs", "neighbors", "offsets"}:
            return None
        features = stored.pop("inputs")
        return Graph(features=features, **stored)

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the constants, which does not depend on their dtype or device."""
        return _joined(
            {**{name: _digest(value) for name, value in self.constants.items()}, **self.hashes}
        )


def constants(net: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of a private copy by name, without those that runs store elsewhere.

    These are the masks and fixed values of this package's layers.

    Args:
        net: the network.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for layer, module in net.named_modules():
        is_of_package = type(module).__module__.startswith("bnn_symm.")
        if is_of_package and not isinstance(module, FrozenBatchNorm | Neighborhood):
            continue
        for name, value in module._buffers.items():
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                found[f"{layer}.{name}" if layer else name] = value
    return found


def fingerprint_of_constants(net: nn.Module, *, without: Collection[str] = ()) -> str:
    """Return the fingerprint that the record of a network has.

    Args:
        net: the network.
        without: names of constants to leave out.
    """
    named = {name: value for name, value in constants(net).items() if name not in without}
    return _joined({name: _digest(value) for name, value in named.items()})


def _digest(value: Tensor) -> str:
    """Return the SHA-256 of a tensor, equal for all floating dtypes that represent its values."""
    value = value.detach().cpu().dequantize() if value.is_quantized else value.detach().cpu()
    value = torch.view_as_real(value) if value.is_complex() else value
    value = value.float() if value.is_floating_point() else value.long()
    digest = hashlib.sha256(f"{tuple(value.shape)}".encode())
    digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _joined(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of the hashes of all constants."""
    return hashlib.sha256(json.dumps(dict(hashes), sort_keys=True).encode()).hexdigest()


def _probe_outputs(model: BayesianModel, points: Tensor) -> Tensor:
    """Return the outputs at parameters derived from their names, independent of initial values."""
    values = {}
    for name, value in model.net.named_parameters():
        generator = torch_generator("probe parameters", name)
        # Gains, scales and biases are positive, so that roots and logarithms are defined.
        if value.dim() < 2:
            drawn = torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
        else:
            drawn = (
                torch.randn(value.shape, generator=generator, dtype=torch.float64)
                / value[0].numel() ** 0.5
            )
        values[name] = drawn.to(value.device, value.dtype)
    with torch.no_grad(), preserve_global_state():
        return functional_call(model.net, values, (points.clone(),))
