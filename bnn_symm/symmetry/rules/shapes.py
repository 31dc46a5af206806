"""Rules of operations that move entries: views, permutations of axes, concatenation."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from bnn_symm.symmetry.tracing.axis_labels import Labels
from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, pads_features, rule

_RESHAPES = (
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "view_as",
    "reshape_as",
    "ravel",
    "squeeze",
    "unsqueeze",
)


@rule(*_RESHAPES, "atleast_1d", "atleast_2d", carries=True)
def _reshape(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Match the shortest sequences of old and new axes that have equally many entries."""
    axes, old, new = tracer.axes(x), list(x.shape), list(out.shape)
    result: list[Label] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            result.append(axes[i])
            i, j = i + 1, j + 1
            continue
        # Axes of one entry may appear and disappear anywhere.
        if j < len(new) and new[j] == 1:
            result.append(tracer.labels.fixed(1))
            j += 1
            continue
        if i < len(old) and old[i] == 1:
            tracer.drop(x, axes[i])
            i += 1
            continue
        first, start = i, j
        before, after = old[i], new[j]
        i, j = i + 1, j + 1
        while before != after:
            if before < after:
                before *= old[i]
                i += 1
            else:
                after *= new[j]
                j += 1
        result.extend(_cut(tracer, _joined(tracer, axes[first:i]), new[start:j]))
    return tuple(result)


def _joined(tracer: SymmetryTracer, axes: Sequence[Label]) -> Label:
    """Flatten several axes into one, the last one fastest."""
    labels = tracer.labels
    label = labels.resolve(axes[0])
    for following in axes[1:]:
        label = labels.resolve(_joined_pair(labels, label, labels.resolve(following)))
    return label


def _joined_pair(labels: Labels, left: Label, right: Label) -> Label:
    if labels.is_neutral(right):
        if labels.is_neutral(left):
            return labels.neutral(labels.size(left) * labels.size(right))
        if all(labels.is_pinned(part) or part.inner == 1 for part in left):
            return labels.with_copies(left, labels.size(right))
    left, right = labels.pin_neutral(left), labels.pin_neutral(right)
    whole = _joined_blocks(labels, left, right)
    if whole is not None:
        return whole
    if not labels.is_fixed(left) and not labels.is_fixed(right):
        # Labels have the units of one axis alone, and the others stay in place.
        for label in (left, right):
            if any(part.within for part in label):
                labels.freeze(label)
        left, right = labels.resolve(left), labels.resolve(right)
        if not labels.is_fixed(left) and not labels.is_fixed(right):
            labels.freeze(right if labels.size(right) <= labels.size(left) else left)
            left, right = labels.resolve(left), labels.resolve(right)
    size = labels.size(right)
    if labels.is_fixed(right):
        return tuple(
            labels.fixed(labels.length(part) * size, frozen=labels.is_frozen(part))[0]
            if labels.is_pinned(part)
            else replace(part, inner=part.inner * size)
            for part in left
        )
    outer = labels.size(left)
    return (replace(right[0], outer=right[0].outer * outer),) if len(right) == 1 else right * outer


def _joined_blocks(labels: Labels, left: Label, right: Label) -> Label | None:
    """Flatten an axis of blocks and an axis of units within them into the axis of units."""
    if len(left) != 1 or len(right) != 1 or not right[0].within:
        return None
    if labels.parent(right[0].node) != left[0].node:
        return None
    if (left[0].outer, left[0].inner, left[0].copies) != (1, 1, 1):
        return None
    if left[0].within:
        return None
    # The axis of units has the flips of units alone. Those of whole blocks, such as a factor of
    # each head, are products of them.
    if labels.flips(left):
        labels.mark_flips_unsearched(left)
    labels.fix_to_identity(left)
    return (replace(right[0], within=False),)


def _cut(tracer: SymmetryTracer, label: Label, sizes: Sequence[int]) -> list[Label]:
    """Unflatten one axis into several; units that labels cannot express this way are frozen."""
    labels = tracer.labels
    if len(sizes) == 1:
        return [labels.resolve(label)]
    try:
        return _cut_units(labels, labels.resolve(label), sizes)
    except CannotDerive:
        labels.freeze(label)
        return [labels.fixed(size, frozen=True) for size in sizes]


def _cut_units(labels: Labels, label: Label, sizes: Sequence[int]) -> list[Label]:
    if len(sizes) == 1:
        return [label]
    if labels.is_neutral(label):
        return [labels.neutral(size) for size in sizes]
    label = labels.pin_neutral(label)
    if labels.is_fixed(label):
        frozen = any(map(labels.is_frozen, label))
        return [labels.fixed(size, frozen=frozen) for size in sizes]
    if len(label) > 1:
        rest = math.prod(sizes[1:])
        if all(labels.length(part) == rest and labels.is_plain(part) for part in label):
            return labels.sliced([(part,) for part in label], sizes)
        raise CannotDerive("an axis that joins several groups of units is cut into axes")
    part = next(iter(label))
    result: list[Label] = []
    rest = list(sizes)
    while len(rest) > 1 and part.outer > 1 and part.outer % rest[0] == 0:
        size = rest.pop(0)
        part = replace(part, outer=part.outer // size)
        result.append(labels.fixed(size))
    tail: list[Label] = []
    while len(rest) > 1 and part.inner > 1 and part.inner % rest[-1] == 0:
        size = rest.pop()
        part = replace(part, inner=part.inner // size)
        tail.insert(0, labels.fixed(size))
    while len(rest) > 1 and part.inner == 1 < part.copies and part.copies % rest[-1] == 0:
        size = rest.pop()
        part = replace(part, copies=part.copies // size)
        tail.insert(0, labels.neutral(size))
    middle = [size for size in rest if size != 1]
    if len(middle) <= 1:
        cut: list[Label] = [(part,)]
    elif (part.outer, part.copies, part.inner) == (1, 1, 1) and not part.within:
        cut = [(each,) for each in labels.cut_blocks(part, middle)]
    else:
        raise CannotDerive("repeated units are cut at positions that are not multiples of a repeat")
    for size in rest:
        result.append(labels.fixed(1) if size == 1 else cut.pop(0))
    return [*result, *tail]


@rule("permute", carries=True)
def _permute(tracer: SymmetryTracer, out: Tensor, x: Tensor, *dims: Any) -> Axes:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return tuple(tracer.axis(x, d) for d in order)


@rule("transpose", "swapaxes", "swapdims", carries=True)
def _transpose(tracer: SymmetryTracer, out: Tensor, x: Tensor, first: int, second: int) -> Axes:
    axes = list(tracer.axes(x))
    axes[first], axes[second] = axes[second], axes[first]
    return tuple(axes)


@rule("t", "T", "mT", "H", "mH", "adjoint", carries=True)
def _transposed(tracer: SymmetryTracer, out: Tensor, x: Tensor) -> Axes:
    axes = tracer.axes(x)
    return (*axes[:-2], axes[-1], axes[-2]) if x.dim() >= 2 else axes


@rule("movedim", "moveaxis", carries=True)
def _movedim(tracer: SymmetryTracer, out: Tensor, x: Tensor, source: Any, destination: Any) -> Axes:
    sources = [source] if isinstance(source, int) else list(source)
    places = [destination] if isinstance(destination, int) else list(destination)
    moved = {
        place % x.dim(): origin % x.dim() for origin, place in zip(sources, places, strict=True)
    }
    rest = iter(d for d in range(x.dim()) if d not in moved.values())
    return tuple(tracer.axis(x, moved[d] if d in moved else next(rest)) for d in range(x.dim()))


@rule("expand", "expand_as", "broadcast_to", "repeat", "tile", carries=True)
def _expand(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Label an expanded axis, whose entries are all equal and change together."""
    shift = out.dim() - x.dim()
    axes: list[Label] = [tracer.labels.neutral(size) for size in out.shape[:shift]]
    for size, label in zip(out.shape[shift:], tracer.axes(x), strict=True):
        before = tracer.labels.size(label)
        if size == before:
            axes.append(label)
        elif before == 1:
            tracer.drop(x, label)
            axes.append(tracer.labels.neutral(size))
        else:
            axes.append(_joined(tracer, [tracer.labels.fixed(size // before), label]))
    return tuple(axes)


@rule("repeat_interleave", carries=True)
def _repeat_interleave(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    repeats: Any,
    dim: int | None = None,
    **kwargs: Any,
) -> Axes:
    """Label an axis of which every entry is repeated: copies change together."""
    if dim is None or not isinstance(repeats, int):
        raise CannotDerive("repeat_interleave without an axis, or with several numbers")
    axes, dim = list(tracer.axes(x)), dim % x.dim()
    if x.shape[dim] == 1 < repeats:
        tracer.drop(x, axes[dim])
        axes[dim] = tracer.labels.neutral(repeats)
    else:
        axes[dim] = _joined(tracer, [axes[dim], tracer.labels.neutral(repeats)])
    return tuple(axes)


@rule("pixel_shuffle", carries=True)
def _pixel_shuffle(tracer: SymmetryTracer, out: Tensor, x: Tensor, factor: int) -> Axes:
    """Move entries from channels to positions: the channels that remain are units."""
    axes = tracer.axes(x)
    channels, *places = _cut(tracer, axes[-3], [out.shape[-3], factor, factor])
    for label in (*places, *axes[-2:]):
        tracer.labels.freeze(label)
    fixed = (tracer.labels.fixed(size, frozen=True) for size in out.shape[-2:])
    return (*axes[:-3], tracer.labels.resolve(channels), *fixed)


@rule("pixel_unshuffle", carries=True)
def _pixel_unshuffle(tracer: SymmetryTracer, out: Tensor, x: Tensor, factor: int) -> Axes:
    axes, labels = tracer.axes(x), tracer.labels
    for label in axes[-2:]:
        labels.freeze(label)
    channels = _joined(tracer, [axes[-3], labels.fixed(factor**2, frozen=True)])
    return (*axes[:-3], channels, *(labels.fixed(size, frozen=True) for size in out.shape[-2:]))


@rule("channel_shuffle", "native_channel_shuffle", carries=True)
def _channel_shuffle(tracer: SymmetryTracer, out: Tensor, x: Tensor, groups: int) -> Axes:
    axes = list(tracer.axes(x))
    blocks, units = _cut(tracer, axes[1], [groups, x.shape[1] // groups])
    axes[1] = _joined(tracer, [units, blocks])
    return tuple(axes)


@rule("unfold", "im2col", carries=True)
def _unfold(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    """Label patches as rows of channels and positions, or windows along one axis."""
    axes, labels = tracer.axes(x), tracer.labels
    if out.dim() == 3 and x.dim() == 4:
        for label in axes[2:]:
            labels.freeze(label)
        kernel = labels.fixed(out.shape[1] // x.shape[1], frozen=True)
        return (axes[0], _joined(tracer, [axes[1], kernel]), labels.fixed(out.shape[2]))
    dim = (args[0] if args else kwargs["dimension"]) % x.dim()
    labels.freeze(axes[dim])
    sizes = (labels.fixed(out.shape[dim], frozen=True), labels.fixed(out.shape[-1], frozen=True))
    return (*axes[:dim], sizes[0], *axes[dim + 1 :], sizes[1])


@rule("cat", "concat", "concatenate")
def _cat(tracer: SymmetryTracer, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    dim %= out.dim()
    axes: list[Label] = []
    for d in range(out.dim()):
        labels = [tracer.axis(tensor, d) for tensor in tensors]
        if d == dim:
            axes.append(_side_by_side(tracer, labels))
            continue
        label = labels[0]
        for other in labels[1:]:
            label = tracer.labels.same(label, other)
        axes.append(label)
    return tuple(axes)


def _side_by_side(tracer: SymmetryTracer, labels: Sequence[Label]) -> Label:
    """Return the label of an axis that joins others.

    Zeros in several places could be exchanged between these, which labels cannot express.
    """
    parts: list[AxisSegment] = []
    has_zeros = False
    for part in (part for label in labels for part in label):
        is_zero = tracer.labels.is_zero(part)
        if is_zero and has_zeros:
            parts += tracer.labels.fixed(tracer.labels.length(part), frozen=True)
        else:
            parts.append(part)
        has_zeros = has_zeros or is_zero
    return tuple(parts)


@rule("stack")
def _stack(tracer: SymmetryTracer, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    axes = list(tracer.axes(tensors[0]))
    for tensor in tensors[1:]:
        axes = [tracer.labels.same(a, b) for a, b in zip(axes, tracer.axes(tensor), strict=True)]
    axes.insert(dim % out.dim(), tracer.labels.fixed(len(tensors)))
    return tuple(axes)


@rule("chunk", "split", "tensor_split", "split_with_sizes", carries=True)
def _split(
    tracer: SymmetryTracer,
    out: Sequence[Tensor],
    x: Tensor,
    *args: Any,
    dim: int | None = None,
    **kwargs: Any,
) -> list[Axes]:
    where = dim if dim is not None else (args[1] if len(args) > 1 else 0)
    where %= x.dim()
    return _pieces(tracer, tracer.axes(x), where, [piece.shape[where] for piece in out])


@rule("unbind", carries=True)
def _unbind(tracer: SymmetryTracer, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> list[Axes]:
    axes, dim = tracer.axes(x), dim % x.dim()
    return [_picked(tracer, x, axes, dim, number) for number in range(len(out))]


def _pieces(tracer: SymmetryTracer, axes: Axes, dim: int, sizes: Sequence[int]) -> list[Axes]:
    """Return the axes of consecutive pieces of a tensor along one axis."""
    others = [*axes[:dim], *axes[dim + 1 :]]
    slices = tracer.labels.slice_blocks(axes[dim], others, sizes)
    if slices is None:
        labels = cut_axis(tracer, axes[dim], sizes)
        slices = [(label, others) for label in labels]
    return [(*rest[:dim], label, *rest[dim:]) for label, rest in slices]


def _picked(tracer: SymmetryTracer, x: Tensor, axes: Axes, dim: int, index: int) -> Axes:
    """Return the axes without one of which an entry is selected.

    The entry of an axis of units distinguishes these by their index. That of an axis of blocks has
    the units of its block.
    """
    label, others = axes[dim], [*axes[:dim], *axes[dim + 1 :]]
    size = tracer.labels.size(label)
    slices = tracer.labels.slice_blocks(label, others, [1] * size) if size > 1 else None
    if slices is not None:
        return tuple(slices[index % size][1])
    if size == 1:
        tracer.drop(x, label)
    else:
        tracer.labels.freeze(label)
    return tuple(others)


@rule("narrow", carries=True)
def _narrow(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, start: int, length: int
) -> Axes:
    return _sliced(tracer, tracer.axes(x), dim % x.dim(), start, start + length, 1)


@rule("select", carries=True)
def _select(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, index: int) -> Axes:
    return _picked(tracer, x, tracer.axes(x), dim % x.dim(), index)


@rule("__getitem__", carries=True)
def _getitem(tracer: SymmetryTracer, out: Tensor, x: Tensor, index: Any) -> Axes:
    items = list(index) if isinstance(index, tuple) else [index]
    items = [torch.as_tensor(item) if isinstance(item, list | range) else item for item in items]
    if any(isinstance(item, bool) for item in items):
        raise CannotDerive("indexing by True or False")
    named = sum(
        item.dim() if _is_mask(item) else 1
        for item in items
        if item is not None and item is not Ellipsis
    )
    missing = [slice(None)] * (x.dim() - named)
    if any(item is Ellipsis for item in items):
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = missing
    else:
        items += missing
    axes, dim = tracer.axes(x), 0
    by_tensor = any(isinstance(item, Tensor) and item.dim() for item in items)
    places: list[int] = []  # of axes that tensors select from
    chosen: list[Label] = []
    for item in items:
        if item is None:
            axes = (*axes[:dim], tracer.labels.fixed(1), *axes[dim:])
            dim += 1
        elif isinstance(item, slice):
            axes = _sliced(tracer, axes, dim, *item.indices(tracer.labels.size(axes[dim])))
            dim += 1
        elif by_tensor:
            if isinstance(item, Tensor):
                number = item.dim() if _is_mask(item) else 1
                chosen = max(chosen, select_by(tracer, axes[dim : dim + number], item), key=len)
            else:
                number = 1
                tracer.labels.freeze(axes[dim])
            axes = (*axes[:dim], *axes[dim + number :])
            places.append(dim)
        else:
            axes = _picked(tracer, x, axes, dim, int(item))
    if not by_tensor:
        return axes
    # Torch puts the selected entries in the place of neighboring axes, or else first.
    together = [i for i, item in enumerate(items) if isinstance(item, Tensor | int)]
    first = places[0] if together[-1] - together[0] == len(together) - 1 else 0
    shape = out.shape[first : first + out.dim() - len(axes)]
    if [tracer.labels.size(label) for label in chosen] != list(shape):
        chosen = [tracer.labels.fixed(size, frozen=True) for size in shape]
    return (*axes[:first], *chosen, *axes[first:])


def _is_mask(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dtype == torch.bool


def select_by(tracer: SymmetryTracer, axes: Sequence[Label], index: Tensor) -> list[Label]:
    """Select entries of some axes by a tensor of indices, which distinguishes their units.

    Args:
        tracer: the tracer of this pass.
        axes: labels of the axes, several for a mask.
        index: the indices, or a mask.

    Returns:
        The labels of the axes of the indices; none for a mask.
    """
    if tracer.is_hidden(index):
        raise CannotDerive("indexing by values that depend on hidden units")
    for label in axes:
        if tracer.depends_on_inputs(index):
            tracer.labels.pin(label)
            tracer.labels.fix_to_identity(label)
        else:
            tracer.labels.freeze(label)
    return [] if _is_mask(index) else list(tracer.axes(index))


@rule("flip", "roll", carries=True)
def _reordered(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dims: Any = None, **kwargs: Any
) -> Axes:
    where = dims if dims is not None else args[-1]
    for dim in [where] if isinstance(where, int) else where:
        tracer.labels.freeze(tracer.axis(x, dim))
    return tracer.axes(x)


@rule("pad")
def _pad(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, pad: Sequence[int], *args: Any, **kwargs: Any
) -> Axes:
    """Append equal entries to the features; along other axes, which have positions, units stay."""
    value = (args[1] if len(args) > 1 else kwargs.get("value")) or 0
    features = x.dim() - 1 if x.dim() <= 3 else 1
    is_appended = pads_features((x, pad, *args), kwargs) and min(pad) >= 0
    axes: list[Label] = []
    for dim, (label, after) in enumerate(zip(tracer.axes(x), out.shape, strict=True)):
        if x.shape[dim] == after:
            axes.append(label)
        elif dim == features and is_appended:
            place = 2 * (x.dim() - 1 - dim)
            first, last = (
                tracer.labels.neutral(width, zero=value == 0) if width else ()
                for width in pad[place : place + 2]
            )
            axes.append(_side_by_side(tracer, [first, label, last]))
        else:
            tracer.labels.freeze(label)
            axes.append(tracer.labels.fixed(after, frozen=True))
    return tuple(axes)


def cut_axis(tracer: SymmetryTracer, label: Label, sizes: Sequence[int]) -> list[Label]:
    """Return consecutive pieces of an axis.

    Units of a node that is cut can only be permuted within their piece from then on.

    Args:
        tracer: the tracer of this pass.
        label: the label of the axis.
        sizes: lengths of the pieces.
    """
    for size in list(accumulate(sizes))[:-1]:
        tracer.labels.align(
            label,
            (*tracer.labels.fresh(size), *tracer.labels.fresh(tracer.labels.size(label) - size)),
        )
    parts = list(tracer.labels.resolve(label))
    pieces: list[Label] = []
    for size in sizes:
        piece: list[AxisSegment] = []
        while sum(tracer.labels.length(part) for part in piece) < size:
            part = parts.pop(0)
            room = size - sum(tracer.labels.length(earlier) for earlier in piece)
            if tracer.labels.length(part) > room:  # a fixed segment, joined to its neighbor
                parts.insert(0, tracer.labels.fixed(tracer.labels.length(part) - room)[0])
                part = tracer.labels.fixed(room)[0]
            piece.append(part)
        pieces.append(tuple(piece))
    return pieces


def _sliced(tracer: SymmetryTracer, axes: Axes, dim: int, start: int, stop: int, step: int) -> Axes:
    """Return the axes of a tensor after one of them is sliced."""
    size = tracer.labels.size(axes[dim])
    length = max(0, math.ceil((stop - start) / step))
    if (start, length, step) == (0, size, 1):
        return axes
    if step != 1 or length == 0:
        tracer.labels.freeze(axes[dim])
        return (*axes[:dim], tracer.labels.fixed(length, frozen=True), *axes[dim + 1 :])
    sizes = [part for part in (start, length, size - start - length) if part]
    return _pieces(tracer, axes, dim, sizes)[1 if start else 0]
