"""What a user's network is besides its trainable parameters, kept with a run.

Code of the user's own makes the network anew whenever a run is opened. What it draws at random,
reads from elsewhere or was edited since would change predictions in silence. So
`network.safetensors` holds the network's constants (buffers, frozen parameters, plain tensors),
which are put back, and outputs at a few points for parameters that follow from their names, which
have to come out again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.architectures import outputs_agree, preserve_global_state
from bnn_symm.errors import InvalidRun
from bnn_symm.io.arrays import read_tensors
from bnn_symm.io.boundary import parser_errors
from bnn_symm.io.paths import check_regular_file
from bnn_symm.models import BayesianModel
from bnn_symm.randomness import torch_generator

_NUM_POINTS = 4
# Constants larger than this in all are kept as their SHA-256: a frozen backbone needs no copy in
# every run.
_MOST_BYTES = 64 * 2**20
# What safetensors can hold; complex and quantized tensors are kept as their SHA-256 too.
_STORABLE = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}


@dataclass(frozen=True, kw_only=True)
class NetworkRecord:
    """Constants of a network, and its outputs at probe points.

    Attributes:
        constants: name -> tensor, of those that are kept whole.
        hashes: name -> fingerprint, of the others.
        points: (point, *feature), rows of the training part.
        outputs: (point, output), at the parameters of `_probe_parameters`.
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
            points: of the data; the first few are used.
        """
        named = constants(model.net)
        is_small = (
            sum(value.numel() * value.element_size() for value in named.values()) <= _MOST_BYTES
        )
        kept = {
            name: value for name, value in named.items() if is_small and value.dtype in _STORABLE
        }
        points = points[:_NUM_POINTS].to(model.device, model.dtype)
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

        Raises:
            InvalidRun: if it is missing or damaged.
        """
        try:
            check_regular_file(path, InvalidRun)
            tensors = read_tensors(path)
        except FileNotFoundError:
            raise InvalidRun(
                f"{path.parent} has no {path.name}, which holds what its network is besides its "
                "parameters; copy the "
                f"whole directory, or fit again"
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
        """Put the constants of the run into a network that was made anew, and check its outputs.

        Args:
            model: whose network's buffers are changed in place.
            where: of the run, for messages.
            factory: that made the network, for messages.

        Raises:
            InvalidRun: if names or shapes of constants, those that are kept as hashes, or outputs
                are not the run's.
        """
        advice = f"its posterior is not about this network; put back the code and files of {factory}, or fit again"
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
        now = _probe_outputs(model, self.points.to(model.device, model.dtype))
        if not outputs_agree(now.cpu(), self.outputs.to(now.dtype)):
            raise InvalidRun(
                f"{where}: the network's outputs at the run's probe points are others than at the "
                "fit, so something "
                "besides parameters and buffers differs (a list of tensors, a global, edited "
                f"code); {advice}"
            )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the constants, whatever their dtype and device."""
        return _joined(
            {**{name: _digest(value) for name, value in self.constants.items()}, **self.hashes}
        )


def constants(net: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of a private copy by name, but those of this package's layers, which runs
    keep elsewhere.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for layer, module in net.named_modules():
        if type(module).__module__.startswith("bnn_symm."):
            continue
        for name, value in module._buffers.items():
            if value is not None and id(value) not in seen:
                seen.add(id(value))
                found[f"{layer}.{name}" if layer else name] = value
    return found


def fingerprint_of_constants(net: nn.Module) -> str:
    """Return the fingerprint that the record of a network has."""
    return _joined({name: _digest(value) for name, value in constants(net).items()})


def _digest(value: Tensor) -> str:
    """Return the SHA-256 of a tensor: the same in every floating dtype that holds its values, and
    on every device.
    """
    value = value.detach().cpu().dequantize() if value.is_quantized else value.detach().cpu()
    value = torch.view_as_real(value) if value.is_complex() else value
    value = value.float() if value.is_floating_point() else value.long()
    digest = hashlib.sha256(f"{tuple(value.shape)}".encode())
    digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _joined(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(hashes), sort_keys=True).encode()).hexdigest()


def _probe_outputs(model: BayesianModel, points: Tensor) -> Tensor:
    """Return outputs at parameters that follow from their names, so that no factory's initial
    values matter.
    """
    values = {}
    for name, value in model.net.named_parameters():
        generator = torch_generator("probe parameters", name)
        if (
            value.dim() < 2
        ):  # gains, scales and biases: positive, so that roots and logarithms are defined
            drawn = torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
        else:
            drawn = (
                torch.randn(value.shape, generator=generator, dtype=torch.float64)
                / value[0].numel() ** 0.5
            )
        values[name] = drawn.to(value.device, value.dtype)
    with torch.no_grad(), preserve_global_state():
        return functional_call(model.net, values, (points.clone(),))
