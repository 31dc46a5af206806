"""Save a permutation spec as JSON, and load it for a network, certified again.

A loaded spec is used in place of a derived one: `symmetry_group(net, spec)` gives the group that
alignment and diagnostics take. A file may also be written by hand, for a network that has an
operation without a rule: a spec that is loaded for a network is always checked against its tensors
and certified by the outputs of the network, never believed.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from bnn_symm.arguments import checked
from bnn_symm.errors import SymmetryError, one_line
from bnn_symm.io.atomic import write_json
from bnn_symm.io.documents import read_json
from bnn_symm.symmetry.certificate import certify
from bnn_symm.symmetry.derive import NUM_POINTS
from bnn_symm.symmetry.group.fixed_values import dense_copy
from bnn_symm.symmetry.group.permutation_spec import PermutationSpec, Segment
from bnn_symm.symmetry.inputs import input_points

_ADAPTER = TypeAdapter(PermutationSpec)


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

    Every generator of its group is applied to random weights of the network, as after a derivation.
    What a certificate cannot show is that no symmetry is missing.

    Args:
        path: of a file of `save_spec`, or of one in its format.
        net: the network; it is not changed.
        input_shape: shape of one point; default that of the file, otherwise as for
            `permutation_spec`.

    Returns:
        The certified spec.

    Raises:
        SymmetryError: if the file is damaged or no spec, does not describe the tensors of the
            network, or has an element that changes its function.
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
    except SymmetryError as error:
        raise SymmetryError(f"{path}: {error}") from None
    certify(clone, spec, input_points(net, input_shape or spec.input_shape, NUM_POINTS))
    return spec


def _check_groups(spec: PermutationSpec) -> None:
    """Check that groups have their names, units and parents, and act on something."""
    known: list[str] = []
    for name, group in spec.groups.items():
        if group.name != name:
            raise SymmetryError(f"group {name!r} has the name {group.name!r}")
        if group.size < 1 or group.blocks < 1 or group.size % group.blocks:
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
    for name, axes in spec.axes.items():
        if name not in tensors:
            raise SymmetryError(f"the network has no tensor {name!r}")
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
