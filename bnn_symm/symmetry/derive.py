"""Derive the permutation spec of a network by tracing one forward pass, and certify it.

    permutation_spec(net) -> PermutationSpec

Every axis of every parameter starts as units of its own. Each operation relates axes
(`tracing.axis_labels`, `rules`); the permutations that remain possible once the outputs are pinned
are the symmetries. The result is then verified: every generator is applied to random weights, and
the outputs are compared in float64 (`certificate`).

The derivation sees the structure of a network as if nothing were fixed: weights with fixed entries
take part at their full shape, and so do buffers. `symmetry.group` finds the subgroup that the fixed
values leave.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn_symm.arguments import checked
from bnn_symm.errors import BnnSymmError, SymmetryError, one_line
from bnn_symm.symmetry.certificate import TOLERANCE, certify, random_values, relative_difference
from bnn_symm.symmetry.group.fixed_values import data_buffers, dense_copy, frozen_parameters
from bnn_symm.symmetry.group.permutation_spec import Axis, Group, PermutationSpec, Segment
from bnn_symm.symmetry.inputs import input_points
from bnn_symm.symmetry.rules import (  # noqa: F401 - the rules register themselves
    attention,
    elementwise,
    layers,
    recurrent,
    selections,
    shapes,
)
from bnn_symm.symmetry.tracing.axis_labels import Labels
from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.precision import DoublePrecision
from bnn_symm.symmetry.tracing.source_lines import raising_position
from bnn_symm.symmetry.tracing.tracer import SymmetryTracer

__all__ = [
    "NUM_POINTS",
    "TOLERANCE",
    "permutation_spec",
    "random_values",
    "relative_difference",
]

NUM_POINTS = 3
"""Number of points in the traced pass."""

_CERTIFIED_POINTS = 8
_SMALL_NETWORK = 20_000


@checked
def permutation_spec(
    net: nn.Module, input_shape: tuple[int, ...] | None = None, *, hold: bool = False
) -> PermutationSpec:
    """Derive the signed permutations of hidden units that preserve the network's function.

    Args:
        net: any module whose operations have rules; it is not changed. Fixed entries and buffers
            are treated as if they could be permuted too.
        input_shape: shape of one point; default `net.input_shape`, which `build_network` sets, or
            the features of the first linear layer.
        hold: whether an operation without a rule keeps the units that it reads in place, in place
            of an error. Nothing is proved of these units: `num_frozen_units` of the spec counts
            them, `frozen_at` is the line of the first, and `unknown_operations` has the names.

    Returns:
        The certified spec.

    Raises:
        SymmetryError: if an operation has no rule (the message names the operation, the line and
            the module), or the input shape is unknown.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> list(permutation_spec(net).groups)
        ['0']
    """
    clone, x = dense_copy(net).double().eval(), input_points(net, input_shape, NUM_POINTS)
    leaves = {name: value.detach().clone() for name, value in clone.named_parameters()}
    trainable = leaves.keys() - frozen_parameters(clone)
    data = data_buffers(clone)
    leaves |= {
        name: value.clone()
        for name, value in clone.named_buffers()
        if value.is_floating_point() and name not in data
    }
    labels = Labels()
    inputs = (x, *data.values())
    tracer = SymmetryTracer(labels, leaves, trainable, inputs, clone, hold=hold)
    out = _trace(clone, tracer, leaves, x)
    _check_observed(clone, leaves, [name for name in trainable if name not in tracer.read], x)
    outputs, labels.locate = [], lambda: None  # no line of the user's code is running any more
    try:
        tracer.end_carried(out)
        for label in tracer.axes(out):
            outputs.extend(part.node for part in labels.resolve(label))
            labels.pin(label)
            labels.fix_to_identity(label)
        axes = {name: tracer.axes(leaves[name]) for name in leaves if name in tracer.read}
        labels.pin_padding(label for tensor_axes in axes.values() for label in tensor_axes)
        _keep_blocks_selected(labels, axes)
        labels.pin_ended(label for tensor_axes in axes.values() for label in tensor_axes)
        labels.mark_pinned_flips_unsearched(
            label for name in axes.keys() & trainable for label in axes[name]
        )
        for name in axes.keys() & trainable:
            if not axes[name]:  # a scalar, whose flip a spec cannot express
                for label in filter(labels.flips, tracer.all_labels(leaves[name])):
                    labels.mark_flips_unsearched(label)
        spec = _spec(labels, axes, outputs)
    except CannotDerive as error:
        raise SymmetryError(f"the outputs of the network: {error}") from None
    small = sum(value.numel() for value in leaves.values()) <= _SMALL_NETWORK
    number = _CERTIFIED_POINTS if small else NUM_POINTS  # few units may be inactive at all 3 points
    certify(clone, spec, input_points(net, input_shape, number))
    leaf_labels = [
        label
        for name in leaves
        if name in tracer.read & trainable
        for label in tracer.all_labels(leaves[name])
    ]
    return replace(
        spec,
        input_shape=tuple(x.shape[1:]),
        num_frozen_units=labels.num_frozen_units(leaf_labels),
        frozen_at=labels.first_frozen_at(leaf_labels),
        unknown_operations=tuple(tracer.unknown),
        num_unsearched_flips=labels.num_unsearched_flips(leaf_labels),
    )


def _keep_blocks_selected(labels: Labels, leaves: Mapping[str, tuple[Label, ...]]) -> None:
    """Keep units in their block where no axis of a tensor selects the block.

    Such units would have the same order in all blocks, which a spec cannot express.
    """
    is_kept = True
    while is_kept:
        is_kept = False
        for axes in leaves.values():
            resolved = [labels.resolve(label) for label in axes]
            for label in resolved:
                owners = [labels.parent(part.node) for part in label if part.within]
                if owners and not (len(label) == 1 and _selects(labels, resolved, owners[0])):
                    for part in label:
                        if part.within:
                            labels.keep_within(part.node, frozen=labels.units(part) > 1)
                    is_kept = True


def _selects(labels: Labels, axes: list[Label], owner: int | None) -> bool:
    """Return whether an axis consists of units in the blocks of an owner, or of the owner."""
    for label in axes:
        if len(label) == 1 and not label[0].within and label[0].outer == 1:
            node: int | None = label[0].node
            if node == owner or labels.parent(label[0].node) == owner:
                return True
    return False


def _trace(
    net: nn.Module, tracer: SymmetryTracer, leaves: Mapping[str, Tensor], x: Tensor
) -> Tensor:
    """Return the outputs of one traced forward pass."""
    try:
        with torch.no_grad(), _single_operations(), DoublePrecision(), tracer:
            out = functional_call(net, dict(leaves), (x,))
    except BnnSymmError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise SymmetryError(
            f"the network raises {type(error).__name__} {raising_position(error, net)}, on "
            f"{len(x)} random points of shape {tuple(x.shape[1:])}: {one_line(error, 120)}"
        ) from error
    if not isinstance(out, Tensor):
        raise SymmetryError(
            f"the network returns a {type(out).__name__}; symmetries are derived for a network "
            "that returns one tensor"
        )
    return out


def _check_observed(
    net: nn.Module, leaves: Mapping[str, Tensor], unread: Iterable[str], x: Tensor
) -> None:
    """Refuse a network whose outputs depend on parameters that no observed operation has read."""
    tried = {name: leaves[name].clone().requires_grad_() for name in unread}
    if not tried:
        return
    with torch.enable_grad(), _single_operations(), DoublePrecision():
        out = functional_call(net, dict(leaves) | tried, (x,))
    if not out.requires_grad:
        return
    gradients = torch.autograd.grad(out.sum(), tuple(tried.values()), allow_unused=True)
    for name, gradient in zip(tried, gradients, strict=True):
        if gradient is not None and bool(gradient.any()):
            raise SymmetryError(
                f"the outputs depend on the parameter {name!r} through operations that are not "
                "observed: symmetries cannot be derived; use operations of torch on whole tensors"
            )


@contextmanager
def _single_operations() -> Iterator[None]:
    """Disable the fused path of attention, so that every operation in it has a rule."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _spec(
    labels: Labels, leaves: Mapping[str, tuple[Label, ...]], outputs: list[int]
) -> PermutationSpec:
    """Convert the labels at the end of the pass to a spec with named groups."""
    resolved = {
        name: tuple(labels.resolve(label) for label in axes) for name, axes in leaves.items()
    }
    names, signed, scaled = _names(labels, resolved), {}, {}
    for node in names:
        parts = [
            part
            for axes in resolved.values()
            for label in axes
            for part in label
            if part.node == node
        ]
        signs = {labels.signs.find(part.sign)[0] for part in parts}
        signed[node] = _single_root(signs)
        if len(signs - {0}) > 1:
            labels.mark_flips_unsearched((parts[0],))
        scaled[node] = _single_root({labels.scales.find(part.scale)[0] for part in parts})

    def segment(part: AxisSegment) -> Segment:
        if part.node not in names:
            return Segment(group=None, size=labels.length(part))
        scale, power = labels.scales.find(part.scale)
        return Segment(
            group=names[part.node],
            size=labels.units(part),
            outer=part.outer,
            inner=part.inner * part.copies,
            within=part.within,
            signed=signed[part.node] is not None
            and labels.signs.find(part.sign)[0] == signed[part.node],
            scale=power if scaled[part.node] is not None and scale == scaled[part.node] else 0,
        )

    axes: dict[str, tuple[Axis, ...]] = {
        name: tuple(_merge_fixed(tuple(segment(part) for part in label)) for label in tensor_axes)
        for name, tensor_axes in resolved.items()
    }
    groups = {}
    for node in _parents_first(labels, names):
        parent = labels.parent(node)
        groups[names[node]] = Group(
            name=names[node],
            size=labels.node_size(node),
            parent=names.get(parent) if parent is not None else None,
            blocks=labels.node_size(parent) if parent is not None else 1,
            signed=signed[node] is not None,
        )
    output_axes = {
        name: dim
        for name, tensor_axes in leaves.items()
        for dim, label in enumerate(tensor_axes)
        if any(part.node in outputs for part in label)
        or any(p.node in outputs for p in labels.resolve(label))
    }
    before_norms = tuple(name for node, name in names.items() if labels.only_before_norm(node))
    return PermutationSpec(groups, _orient(axes), output_axes, flips_before_norms=before_norms)


def _names(labels: Labels, resolved: Mapping[str, tuple[Label, ...]]) -> dict[int, str]:
    """Return node -> name of its group, that of the first layer that produces its units."""
    names: dict[int, str] = {}
    for dims in (slice(0, 1), slice(1, None)):  # a layer's output units lie on its first axis
        for name, axes in resolved.items():
            for label in axes[dims]:
                for part in label:
                    if labels.is_pinned(part) or part.node in names:
                        continue
                    _assign_name(labels, names, part.node, name)
    return names


def _assign_name(labels: Labels, names: dict[int, str], node: int, tensor: str) -> None:
    layer = tensor.rpartition(".")[0] or tensor
    owners, parent = [], labels.parent(node)
    while parent is not None and not labels.node_pinned(parent):
        owners.insert(0, parent)
        parent = labels.parent(parent)
    for owner in owners:
        if owner not in names:
            names[owner] = _unused_name(f"{layer}.blocks", names)
    names.setdefault(node, _unused_name(layer, names))


def _unused_name(name: str, names: Mapping[int, str]) -> str:
    number = 2
    candidate = name
    while candidate in names.values():
        candidate, number = f"{name}#{number}", number + 1
    return candidate


def _parents_first(labels: Labels, names: Mapping[int, str]) -> list[int]:
    order: list[int] = []

    def add(node: int | None) -> None:
        if node is not None and node in names and node not in order:
            add(labels.parent(node))
            order.append(node)

    for node in names:
        add(node)
    return order


def _single_root(roots: set[int]) -> int | None:
    """Return the scale class that all occurrences of a group share, or None.

    With several classes it is ambiguous which occurrences flip together, so none does.
    """
    roots = roots - {0}
    return roots.pop() if len(roots) == 1 else None


def _merge_fixed(axis: Axis) -> Axis:
    """Merge neighboring segments that belong to no group."""
    joined: list[Segment] = []
    for segment in axis:
        if joined and segment.group is None and joined[-1].group is None:
            joined[-1] = Segment(group=None, size=joined[-1].length + segment.length)
        else:
            joined.append(segment)
    return tuple(joined)


def _orient(axes: Mapping[str, tuple[Axis, ...]]) -> dict[str, tuple[Axis, ...]]:
    """Choose the signs of the powers so that the first axis of a unit's own layer has power 1."""
    first: dict[str, int] = {}
    for tensor_axes in axes.values():
        for segment in tensor_axes[0] if tensor_axes else ():
            if segment.group is not None and segment.scale:
                first.setdefault(segment.group, segment.scale)

    def turned(segment: Segment) -> Segment:
        if segment.group is None or not segment.scale:
            return segment
        return replace(segment, scale=segment.scale * first.get(segment.group, 1))

    return {
        name: tuple(tuple(turned(s) for s in axis) for axis in tensor_axes)
        for name, tensor_axes in axes.items()
    }
