"""Rules of operations that move entries: views, permutations of axes, concatenation."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor

from bnn_symm.symmetry.tracing.axis_labels import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule

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
    label = labels.pin_neutral(axes[0])
    for following in axes[1:]:
        right = labels.pin_neutral(following)
        size = labels.size(right)
        if labels.is_fixed(right):
            label = tuple(
                labels.fixed(labels.length(part) * size, frozen=labels.is_frozen(part))[0]
                if labels.is_pinned(part)
                else replace(part, inner=part.inner * size)
                for part in label
            )
        elif labels.is_fixed(label):
            outer = labels.size(label)
            label = (
                (replace(right[0], outer=right[0].outer * outer),)
                if len(right) == 1
                else right * outer
            )
        else:
            label = _joined_blocks(tracer, label, right)
        label = labels.resolve(label)
    return label


def _joined_blocks(tracer: SymmetryTracer, left: Label, right: Label) -> Label:
    """Flatten an axis of blocks and an axis of units within them into the axis of units."""
    if (
        len(left) == len(right) == 1
        and right[0].within
        and tracer.labels.parent(right[0].node) == left[0].node
    ):
        plain = (left[0].outer, left[0].inner) == (1, 1)
        if plain:
            return (replace(right[0], within=False),)
    raise CannotDerive("two axes of hidden units become one")


def _cut(tracer: SymmetryTracer, label: Label, sizes: Sequence[int]) -> list[Label]:
    """Unflatten one axis into several."""
    labels = tracer.labels
    label = labels.resolve(label)
    if len(sizes) == 1:
        return [label]
    label = labels.pin_neutral(label)
    if labels.is_fixed(label):
        frozen = any(map(labels.is_frozen, label))
        return [labels.fixed(size, frozen=frozen) for size in sizes]
    if len(label) > 1:
        raise CannotDerive("an axis that joins several groups of units is cut into axes")
    part = next(iter(label))
    outer, units, inner = part.outer, labels.units(part), part.inner
    result: list[Label] = []
    rest = list(sizes)
    while rest and outer > 1 and outer % rest[0] == 0:
        size = rest.pop(0)
        outer //= size
        result.append(labels.fixed(size))
    tail: list[Label] = []
    while rest and inner > 1 and inner % rest[-1] == 0:
        size = rest.pop()
        inner //= size
        tail.insert(0, labels.fixed(size))
    if outer != 1 or inner != 1:
        raise CannotDerive("repeated units are cut at positions that are not multiples of a repeat")
    middle = [size for size in rest if size != 1]
    part = replace(part, outer=1, inner=1)
    if middle == [units]:
        cut: list[Label] = [(part,)]
    elif len(middle) == 2 and not part.within:
        owner = labels.own_blocks(part, middle[0])
        cut = [(owner,), (replace(part, within=True),)]
    else:
        raise CannotDerive(
            f"{units} hidden units are cut into axes of {rest}; expected two, such as (heads, "
            "units)"
        )
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


@rule("cat", "concat", "concatenate")
def _cat(tracer: SymmetryTracer, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> Axes:
    dim %= out.dim()
    axes: list[Label] = []
    for d in range(out.dim()):
        labels = [tracer.axis(tensor, d) for tensor in tensors]
        if d == dim:
            axes.append(tuple(part for label in labels for part in label))
            continue
        label = labels[0]
        for other in labels[1:]:
            label = tracer.labels.same(label, other)
        axes.append(label)
    return tuple(axes)


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
    pieces = cut_axis(tracer, tracer.axis(x, where), [piece.shape[where] for piece in out])
    axes = tracer.axes(x)
    return [(*axes[:where], piece, *axes[where + 1 :]) for piece in pieces]


@rule("unbind", carries=True)
def _unbind(tracer: SymmetryTracer, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> list[Axes]:
    _pick(tracer, x, tracer.axis(x, dim))
    axes = list(tracer.axes(x))
    del axes[dim]
    return [tuple(axes)] * len(out)


def _pick(tracer: SymmetryTracer, x: Tensor, label: Label) -> None:
    """Select one entry of an axis, which distinguishes several units by their index."""
    if tracer.labels.size(label) == 1:
        tracer.drop(x, label)
    else:
        tracer.labels.freeze(label)


@rule("narrow", carries=True)
def _narrow(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, start: int, length: int
) -> Axes:
    axes = list(tracer.axes(x))
    axes[dim] = _slice(tracer, axes[dim], start, start + length, 1)
    return tuple(axes)


@rule("select", carries=True)
def _select(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, index: int) -> Axes:
    _pick(tracer, x, tracer.axis(x, dim))
    axes = list(tracer.axes(x))
    del axes[dim]
    return tuple(axes)


@rule("__getitem__", carries=True)
def _getitem(tracer: SymmetryTracer, out: Tensor, x: Tensor, index: Any) -> Axes:
    items = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(item, Tensor | list) for item in items):
        raise CannotDerive("indexing by a tensor; use slices and integers")
    named = sum(item is not None and item is not Ellipsis for item in items)
    missing = [slice(None)] * (x.dim() - named)
    if any(item is Ellipsis for item in items):
        place = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[place : place + 1] = missing
    else:
        items += missing
    axes: list[Label] = []
    old = iter(zip(tracer.axes(x), x.shape, strict=True))
    for item in items:
        if item is None:
            axes.append(tracer.labels.fixed(1))
            continue
        label, size = next(old)
        if isinstance(item, slice):
            axes.append(_slice(tracer, label, *item.indices(size)))
        else:
            _pick(tracer, x, label)
    return tuple(axes)


@rule("flip", "roll", carries=True)
def _reordered(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dims: Any = None, **kwargs: Any
) -> Axes:
    where = dims if dims is not None else args[-1]
    for dim in [where] if isinstance(where, int) else where:
        tracer.labels.freeze(tracer.axis(x, dim))
    return tracer.axes(x)


@rule("pad")
def _pad(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    axes = []
    for label, before, after in zip(tracer.axes(x), x.shape, out.shape, strict=True):
        if before == after:
            axes.append(label)
            continue
        tracer.labels.freeze(label)
        axes.append(tracer.labels.fixed(after))
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


def _slice(tracer: SymmetryTracer, label: Label, start: int, stop: int, step: int) -> Label:
    size = tracer.labels.size(label)
    length = max(0, math.ceil((stop - start) / step))
    if (start, length, step) == (0, size, 1):
        return label
    if step != 1 or length == 0:
        tracer.labels.freeze(label)
        return tracer.labels.fixed(length)
    sizes = [part for part in (start, length, size - start - length) if part]
    return cut_axis(tracer, label, sizes)[1 if start else 0]
