"""Rules of selections and sums by indices: gather, scatter, sorted entries, layers of graphs.

Indices distinguish the entries of an axis, which stay in place; along all other axes entries keep
their units.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bnn_symm.symmetry.rules.shapes import select_by
from bnn_symm.symmetry.tracing.axis_segments import CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule


@rule("index_select", carries=True)
def _index_select(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, index: Tensor) -> Axes:
    axes, dim = list(tracer.axes(x)), dim % x.dim()
    selected = select_by(tracer, [axes[dim]], index)
    axes[dim] = selected[0] if selected else tracer.labels.fixed(1)
    return tuple(axes)


@rule("gather", carries=True)
def _gather(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, index: Tensor, **kwargs: Any
) -> Axes:
    dim %= x.dim()
    chosen = select_by(tracer, [tracer.axis(x, dim)], index)
    return _along(tracer, tracer.axes(x), x.shape, chosen, index, dim)


@rule("take_along_dim", carries=True)
def _take_along(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, index: Tensor, dim: int | None = None
) -> Axes:
    if dim is None or x.dim() != index.dim():
        raise CannotDerive("a selection from all axes at once")
    return _gather(tracer, out, x, dim, index)


def _along(
    tracer: SymmetryTracer,
    axes: Axes,
    shape: Sequence[int],
    chosen: Sequence[Label],
    index: Tensor,
    dim: int,
) -> Axes:
    """Align all axes but one with those of the indices; that one has the axis of the indices."""
    result = []
    for d, label in enumerate(axes):
        if d == dim:
            result.append(chosen[d])
        elif index.shape[d] == shape[d]:
            tracer.labels.align(label, chosen[d])
            result.append(tracer.labels.resolve(label))
        else:
            tracer.labels.freeze(label)
            result.append(tracer.labels.fixed(index.shape[d], frozen=True))
    return tuple(result)


@rule("scatter", "scatter_add", "scatter_reduce")
def _scatter(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    reduce: str = "sum",
    **kwargs: Any,
) -> Axes:
    values = kwargs.get("value", src)
    if not isinstance(values, Tensor):
        raise CannotDerive("a scatter of a number")
    dim %= x.dim()
    chosen = select_by(tracer, [tracer.axis(values, dim), tracer.axis(x, dim)], index)
    moved = _along(tracer, tracer.axes(values), values.shape, chosen, index, dim)
    return _collected(tracer, x, moved, dim, reduce)


@rule("index_add", "index_copy", "index_reduce")
def _index_add(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str = "sum",
    **kwargs: Any,
) -> Axes:
    dim %= x.dim()
    select_by(tracer, [tracer.axis(source, dim), tracer.axis(x, dim)], index)
    return _collected(tracer, x, tracer.axes(source), dim, reduce)


def _collected(tracer: SymmetryTracer, x: Tensor, values: Axes, dim: int, reduce: str) -> Axes:
    """Return the axes of a tensor after values are written or added to entries of one axis."""
    labels = tracer.labels
    axes: list[Label] = []
    for d, (label, other) in enumerate(zip(tracer.axes(x), values, strict=True)):
        for each in (label, other):
            if reduce not in ("sum", "add", "mean"):
                labels.fix_to_identity(each, scale=reduce == "prod")
        if d == dim:
            labels.freeze(label)
            axes.append(labels.fixed(x.shape[d], frozen=True))
        elif labels.size(label) == labels.size(other):
            axes.append(labels.same(label, other))
        else:
            labels.freeze(label)
            labels.freeze(other)
            axes.append(labels.fixed(x.shape[d], frozen=True))
    return tuple(axes)


@rule("topk", "sort", "kthvalue", "mode", "median")
def _sorted(
    tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, dim: int | None = None, **kwargs: Any
) -> list[Axes]:
    """Label sorted entries: the axis that is sorted stays in place, unless it has no units."""
    numbers = [value for value in args if isinstance(value, int) and not isinstance(value, bool)]
    is_first = type(out).__name__.endswith(("sort", "median", "mode"))
    own = numbers if is_first else numbers[1:]
    where = dim if dim is not None else (own[0] if own else -1)
    values = out[0]
    axes = list(tracer.axes(x))
    for label in axes:
        tracer.labels.fix_to_identity(label, scale=False)
    where %= x.dim()
    tracer.labels.freeze(axes[where])
    if values.dim() < x.dim():
        del axes[where]
    else:
        axes[where] = tracer.labels.fixed(values.shape[where], frozen=True)
    return [tuple(axes), tuple(tracer.labels.as_invariant(label) for label in axes)]


@rule("argsort")
def _argsort(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int = -1, **kwargs: Any) -> Axes:
    for label in tracer.axes(x):
        tracer.labels.fix_to_identity(label, scale=False)
    tracer.labels.freeze(tracer.axis(x, dim))
    return tuple(
        tracer.labels.as_invariant(tracer.labels.resolve(label)) for label in tracer.axes(x)
    )


@rule("cumsum", "cumprod", "logcumsumexp")
def _cumulative(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int, **kwargs: Any) -> Axes:
    for label in tracer.axes(x):
        tracer.labels.stop_tracking(label)
    tracer.labels.freeze(tracer.axis(x, dim))
    return tuple(map(tracer.labels.resolve, tracer.axes(x)))


@rule("__setitem__")
def _setitem(
    tracer: SymmetryTracer, out: Any, target: Tensor, index: Any, value: Any
) -> list[Axes]:
    """Freeze all units of both tensors, since any entry may have been written."""
    for tensor in (target, value):
        if isinstance(tensor, Tensor):
            for label in tracer.axes(tensor):
                tracer.labels.freeze(label)
    return [tuple(tracer.labels.fixed(size, frozen=True) for size in target.shape)]
