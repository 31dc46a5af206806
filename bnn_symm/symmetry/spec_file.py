"""Save a permutation spec as JSON, and load it for a network, certified again.

A loaded spec is used in place of a derived one: `symmetry_group(net, spec)` gives the group that
alignment and diagnostics take. A file may also be written by hand, for a network that has an
operation without a rule: a spec that is loaded for a network is always checked against its tensors
and certified by the outputs of the network.

A certificate is all that supports such a file, so it is stronger than that of a derived spec. Every
unit of every group has to reach the outputs at random weights, because anything could be claimed of
others. And many random elements of the whole group are tried, because elements of a wrong group
preserve the outputs with a probability of up to 1/2.
"""

import copy
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.arguments import checked
from bnn_symm.errors import SymmetryError, one_line
from bnn_symm.io.atomic import write_json
from bnn_symm.io.documents import read_json
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry.certificate import certify
from bnn_symm.symmetry.derive import NUM_POINTS
from bnn_symm.symmetry.group.fixed_values import data_buffers, dense_copy
from bnn_symm.symmetry.group.permutation_spec import PermutationSpec, Segment
from bnn_symm.symmetry.inputs import input_points

_ADAPTER = TypeAdapter(PermutationSpec)
# Points for networks of up to this number of weights; larger ones have those of a derivation.
_POINTS, _SMALL_NETWORK = 64, 20_000
# Random elements of the whole group, and draws of all weights until every unit has an effect.
_ELEMENTS, _MOST_TRIALS = 24, 8


@checked
def save_spec(spec: PermutationSpec, path: Path | str) -> None:
    """Save a spec as a JSON file, which replaces an existing one.

    Args:
        spec: the spec.
        path: of the file.
    """
    write_json(Path(path), asdict(spec))


@checked
def load_spec(
    path: Path | str, net: nn.Module, input_shape: tuple[int, ...] | None = None
) -> PermutationSpec:
    """Load the spec of a network, and certify it.

    Every generator and many random elements of its group are applied to random weights of the
    network. What that cannot show is that no symmetry is missing: the order of a group from a file
    by hand is a lower bound.

    Args:
        path: of a file of `save_spec`, or of one in its format.
        net: the network; it is not changed.
        input_shape: shape of one point; default as for `permutation_spec`, otherwise that of the
            file.

    Returns:
        The certified spec.

    Raises:
        SymmetryError: if the file is damaged or no spec, does not describe the tensors of the
            network, has units that no output depends on, or an element that changes the function.
        FileNotFoundError: if there is no such file.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from bnn_symm.symmetry import permutation_spec, symmetry_group
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> path = tempfile.mkdtemp() + "/spec.json"
        >>> save_spec(permutation_spec(net), path)
        >>> symmetry_group(net, load_spec(path, net)).order
        6
    """
    path = Path(path)
    content = read_json(path, SymmetryError)
    try:
        spec = _ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SymmetryError(f"{path}: {one_line(where, 80)}: {first['msg']}") from None
    try:
        _check_groups(spec)
        clone = dense_copy(net).double().eval()
        _check_tensors(spec, clone)
        _certify(clone, spec, input_shape or getattr(net, "input_shape", None) or spec.input_shape)
    except SymmetryError as error:
        raise SymmetryError(f"{path}: {error}") from None
    except Exception as error:  # of the network, or of a spec that does not suit it
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        raise SymmetryError(f"{path}: the network cannot be evaluated with it: {reason}") from error
    return spec


def _certify(net: nn.Module, spec: PermutationSpec, input_shape: tuple[int, ...] | None) -> None:
    """Certify a spec at the present values of a network and at new ones."""
    if input_shape is not None and spec.input_shape not in (None, tuple(input_shape)):
        raise SymmetryError(
            f"it is for inputs of shape {spec.input_shape}, the network has {tuple(input_shape)}"
        )
    is_small = sum(value.numel() for value in net.parameters()) <= _SMALL_NETWORK
    x = input_points(net, input_shape, _POINTS if is_small else NUM_POINTS)
    nets, missing = [net], _unreached(net, spec, x)
    for number in range(_MOST_TRIALS):
        trial = _with_new_values(net, number)
        if number == 0:
            nets.append(trial)
        still = _unreached(trial, spec, x)
        missing = {name: units & still[name] for name, units in missing.items()}
        if not any(bool(units.any()) for units in missing.values()):
            break
    for name, units in missing.items():
        if bool(units.any()):
            raise SymmetryError(
                f"group {name!r}: no output depends on unit {int(units.nonzero()[0])} at "
                f"{len(x)} random points, so nothing can be certified of it"
            )
    for each in nets:
        certify(each, spec, x, num_elements=_ELEMENTS, cause="the spec is wrong for this network")


def _unreached(net: nn.Module, spec: PermutationSpec, x: Tensor) -> dict[str, Tensor]:
    """Return, for each group that occurs in a tensor, which units have no effect on the outputs.

    Raises:
        SymmetryError: if the outputs depend on a parameter that the spec lacks.
    """
    # Statistics of batch norm are buffers that cannot be differentiated; their units have others.
    leaves = {
        name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()
    }
    with torch.enable_grad():
        outputs = functional_call(net, leaves, (x,))
        if not isinstance(outputs, Tensor):
            raise SymmetryError(f"the network returns a {type(outputs).__name__}, not a tensor")
        generator = torch_generator("directions of outputs")
        directions = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
        found = torch.autograd.grad(
            (directions * outputs).sum(), list(leaves.values()), allow_unused=True
        )
    gradients = dict(zip(leaves, found, strict=True))
    for name, gradient in gradients.items():
        if name not in spec.axes and gradient is not None and bool(gradient.any()):
            raise SymmetryError(f"it lacks the parameter {name!r}, on which the outputs depend")
    result = {}
    for name, group in spec.groups.items():
        is_reached = torch.zeros(group.size, dtype=torch.bool)
        occurs = False
        for tensor, dim, segment, start in spec.occurrences(name):
            gradient, occurs = gradients.get(tensor), True
            if gradient is not None and segment.size == group.size:
                is_reached |= (segment.by_unit(gradient, dim, start) != 0).any(-1)
        if occurs:
            result[name] = ~is_reached
    return result


def _with_new_values(net: nn.Module, number: int) -> nn.Module:
    """Return a copy of a network with normal values; those that were positive remain so."""
    generator, trial = torch_generator("new values", number), copy.deepcopy(net)
    data = data_buffers(trial)
    with torch.no_grad():
        for name, value in [*trial.named_parameters(), *trial.named_buffers()]:
            if value.is_floating_point() and name not in data:
                is_positive = bool((value > 0).all())
                size = max(1, value[0].numel()) if value.dim() > 1 else 1
                value.normal_(generator=generator).div_(size**0.5)
                if is_positive:
                    value.abs_().add_(0.1)
    return trial


def _check_groups(spec: PermutationSpec) -> None:
    """Check that groups have their names, units and parents, and act on something."""
    known: list[str] = []
    for name, group in spec.groups.items():
        if group.name != name:
            raise SymmetryError(f"group {name!r} has the name {group.name!r}")
        if min(group.size, group.blocks) < 1 or group.size % group.blocks:
            raise SymmetryError(
                f"group {name!r}: {group.size} units cannot form {group.blocks} equal blocks"
            )
        if group.parent is not None:
            if group.parent not in known:
                raise SymmetryError(f"group {name!r}: no group {group.parent!r} before it")
            if group.blocks != spec.groups[group.parent].size:
                raise SymmetryError(
                    f"group {name!r} has {group.blocks} blocks, but its parent "
                    f"{group.parent!r} has {spec.groups[group.parent].size} units"
                )
        places = [segment for _, _, segment, _ in spec.occurrences(name)]
        if not places and all(other.parent != name for other in spec.groups.values()):
            raise SymmetryError(f"group {name!r}: no tensor has its units")
        if group.signed and not any(segment.signed for segment in places):
            raise SymmetryError(f"group {name!r}: its units may flip, but no entry flips with them")
        known.append(name)


def _check_tensors(spec: PermutationSpec, net: nn.Module) -> None:
    """Check that the axes are those of the tensors of a network."""
    tensors: dict[str, torch.Tensor] = dict(net.named_parameters()) | dict(net.named_buffers())
    if min(spec.num_frozen_units, spec.num_unsearched_flips) < 0:
        raise SymmetryError("a number of units is negative")
    for name, axes in spec.axes.items():
        if name not in tensors or not tensors[name].is_floating_point():
            raise SymmetryError(f"the network has no tensor {name!r} of real numbers")
        for segment in (segment for axis in axes for segment in axis):
            _check_segment(spec, name, segment)
        shape = tuple(sum(segment.length for segment in axis) for axis in axes)
        if shape != tuple(tensors[name].shape):
            raise SymmetryError(
                f"{name!r} has shape {tuple(tensors[name].shape)} in the network, {shape} in the "
                "file"
            )
    for name, dim in spec.output_axes.items():
        if name not in spec.axes or not 0 <= dim < len(spec.axes[name]):
            raise SymmetryError(f"no dimension {dim} of {name!r}, which has the outputs")


def _check_segment(spec: PermutationSpec, name: str, segment: Segment) -> None:
    if min(segment.size, segment.outer, segment.inner) < 1 or abs(segment.scale) > 1:
        raise SymmetryError(f"{name!r} has a segment of no entries, or of an unknown scale")
    if segment.group is None:
        return
    group = spec.groups.get(segment.group)
    if group is None:
        raise SymmetryError(f"{name!r} has units of {segment.group!r}, which is no group")
    units = group.size // group.blocks if segment.within else group.size
    if segment.size != units:
        raise SymmetryError(
            f"{name!r} has {segment.size} units of group {segment.group!r}, expected {units}"
        )
