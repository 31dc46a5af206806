"""Rules of layers: linear maps, convolutions, norms, pooling and embeddings.

Where two axes are multiplied and summed over they are the same units; what comes out has the axes
of the weights that made it.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from bnn_symm.symmetry.tracing.axis_labels import CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule

# -- products


@rule("linear", carries=True)
def _linear(
    w: SymmetryTracer, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Axes:
    if not _absorbed(w, x, weight):
        w.labels.contract(w.axis(x, -1), w.axis(weight, 1))
    made = (w.axis(weight, 0),) if weight.dim() > 1 else ()
    if bias is not None:
        _end_carried(w, (*w.axes(x)[:-1], *made))
        made = tuple(with_bias(w, label, bias) for label in made)
    return (*w.axes(x)[:-1], *made)


def _absorbed(w: SymmetryTracer, x: Tensor, weight: Tensor) -> bool:
    """Whether the weight's axis takes back the factor of one unit that all entries of `x` have, as
    of one channel.
    """
    carried = [label for label in w.passed_on() if w.labels.is_hidden(label)]
    if len(carried) != 1 or w.carried(weight) or weight.dim() < 2:
        return False
    (scalar,), read = w.labels.resolve(carried[0]), w.labels.resolve(w.axis(weight, 1))
    if not w.labels.is_fixed(w.axis(x, -1)) or len(read) != 1 or not w.labels.is_plain(read[0]):
        return False
    if not w.is_leaf(weight) or not w.labels.is_plain(scalar):
        return False
    w.labels.absorb(scalar, read[0])
    w.passed_on().remove(carried[0])
    return True


def _end_carried(w: SymmetryTracer, axes: Axes) -> None:
    """A bias is added, so that the result does not flip as a whole any more."""
    carried = [label for label in w.passed_on() if not w.labels.is_fixed(label)]
    for label in carried:
        others = [*axes, *(other for other in carried if other is not label)]
        w.labels.end(label, proved=not (w.labels.flips(label) and any(map(w.labels.flips, others))))
    w.passed_on().clear()


def with_bias(w: SymmetryTracer, label: Label, bias: Tensor | None) -> Label:
    """The label of what a layer makes, once its bias is added."""
    return label if bias is None else w.labels.same(label, w.axis(bias, 0))


@rule("matmul", "__matmul__", "mm", "bmm", "mv", "dot", "vdot", carries=True)
def _matmul(w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    left = [f"b{d}" for d in range(out.dim() + 2 - x.dim(), out.dim())] if x.dim() > 2 else []
    right = [f"b{d}" for d in range(out.dim() + 2 - y.dim(), out.dim())] if y.dim() > 2 else []
    left += ["row", "sum"] if x.dim() > 1 else ["sum"]
    right += ["sum", "column"] if y.dim() > 1 else ["sum"]
    batch = [f"b{d}" for d in range(2, out.dim())] if x.dim() > 2 or y.dim() > 2 else []
    result = batch + ["row"] * (x.dim() > 1) + ["column"] * (y.dim() > 1)
    return _contracted(w, [(x, left), (y, right)], result, out)


@rule("addmm", "baddbmm")
def _addmm(
    w: SymmetryTracer, out: Tensor, bias: Tensor, x: Tensor, y: Tensor, **kwargs: Any
) -> Axes:
    axes = _matmul(w, out, x, y)
    return (*axes[:-1], w.labels.same(axes[-1], w.axis(bias, -1)))


@rule("__rmatmul__", carries=True)
def _matmul_from_the_right(w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    return _matmul(w, out, y, x)


@rule("inner", carries=True)
def _inner(w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    w.labels.contract(w.axis(x, -1), w.axis(y, -1))
    return (*w.axes(x)[:-1], *w.axes(y)[:-1])


@rule("outer", "ger", carries=True)
def _outer(w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    w.doubt_of_factors(x, y)
    return (*w.axes(x), *w.axes(y))


@rule("bilinear")
def _bilinear(
    w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Axes:
    w.labels.contract(w.axis(x, -1), w.axis(weight, 1))
    w.labels.contract(w.axis(y, -1), w.axis(weight, 2))
    batch = w.axes(x)[:-1]
    for label, other in zip(batch, w.axes(y)[:-1], strict=True):
        w.labels.fix_to_identity(label)
        w.labels.fix_to_identity(other)
        w.labels.align(label, other)
    return (*batch, with_bias(w, w.axis(weight, 0), bias))


@rule("einsum", carries=True)
def _einsum(w: SymmetryTracer, out: Tensor, equation: str, *operands: Any) -> Axes:
    tensors = (
        operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    )
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow or "." in equation or len(tensors) > 2:
        raise CannotDerive("einsum of this form; write one or two operands, '->' and no ellipsis")
    words = [list(word) for word in inputs.split(",")]
    if any(len(set(word)) < len(word) for word in words):
        raise CannotDerive("einsum with a repeated letter in one operand")
    return _contracted(w, list(zip(tensors, words, strict=True)), list(result), out)


def _contracted(
    w: SymmetryTracer, operands: list[tuple[Tensor, list[str]]], result: list[str], out: Tensor
) -> Axes:
    """Axes of a sum of products, by the names of the operands' axes."""
    if len(operands) == 2:
        (x, _), (y, _) = operands
        flipping = [
            {n for n, label in zip(own, w.axes(t), strict=True) if w.labels.flips(label)}
            for t, own in operands
        ]
        if not flipping[0] & flipping[1] - set(result):
            w.doubt_of_factors(x, y)
    labels: dict[str, Label] = {}
    rank: dict[str, int] = {}
    size: dict[str, int] = {}
    for tensor, names in operands:
        for name, length in zip(names, tensor.shape, strict=True):
            size[name] = max(length, size.get(name, 1))
    for tensor, names in operands:
        for name, label in zip(names, w.axes(tensor), strict=True):
            other = labels.get(name)
            if w.labels.size(label) != size[name]:
                w.drop(tensor, label)  # broadcast
                continue
            if other is None:
                labels[name] = label
            elif name in result:
                labels[name] = w.labels.product(other, label, (rank[name], w.rank(tensor)))
            else:
                w.labels.contract(other, label)
            rank[name] = w.rank(tensor)
    for name, label in labels.items():
        alone = [tensor for tensor, names in operands if name in names]
        if name not in result and len(alone) == 1:
            if size[name] == 1:
                w.drop(alone[0], label)
            else:
                w.labels.give_up(label)  # summed over alone
    return tuple(labels[name] for name in result)


# -- convolutions and pooling


@rule("conv1d", "conv2d", "conv3d", carries=True)
def _convolution(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Axes:
    pin_all(w, w.axes(weight)[2:])
    channel = x.dim() - weight.dim() + 1  # of an image without a batch axis, 0
    if groups == 1:
        w.labels.contract(w.axis(x, channel), w.axis(weight, 1))
        made = w.axis(weight, 0)
    else:
        made = _grouped(w, w.axis(x, channel), weight, groups)
    if bias is not None:
        _end_carried(w, (*w.axes(x)[:channel], made))
    return (*w.axes(x)[:channel], with_bias(w, made, bias), *_spatial(w, x, out, weight.dim() - 2))


def _grouped(w: SymmetryTracer, channels: Label, weight: Tensor, groups: int) -> Label:
    """Channels move in blocks: the blocks of the output with those of the input."""
    labels = w.labels
    channels, made = labels.resolve(channels), labels.resolve(w.axis(weight, 0))
    if len(channels) != 1 or len(made) != 1:
        raise CannotDerive("a grouped convolution of joined groups of channels")
    read, write = channels[0], made[0]
    if labels.is_pinned(read):
        owner = labels.own_blocks(write, groups)
        labels.pin((owner,))
        labels.pin(w.axis(weight, 1))
        return made
    of_read, of_write = labels.own_blocks(read, groups), labels.own_blocks(write, groups)
    labels.align((of_read,), (of_write,))
    labels.contract((replace(read, within=True),), w.axis(weight, 1))
    return made


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    groups = kwargs.get("groups", args[3] if len(args) > 3 else 1)
    if groups != 1:
        raise CannotDerive("a transposed convolution in groups")
    pin_all(w, w.axes(weight)[2:])
    channel = x.dim() - weight.dim() + 1
    w.labels.contract(w.axis(x, channel), w.axis(weight, 0))
    made = with_bias(w, w.axis(weight, 1), bias)
    return (*w.axes(x)[:channel], made, *_spatial(w, x, out, weight.dim() - 2))


def _spatial(w: SymmetryTracer, x: Tensor, out: Tensor, number: int) -> list[Label]:
    """The last axes, which an operation over neighbors leaves in no other order."""
    for label in w.axes(x)[x.dim() - number :]:
        w.labels.hold(label)  # positions, unless somebody convolves over units
    return [w.labels.fixed(size) for size in out.shape[out.dim() - number :]]


def pin_all(w: SymmetryTracer, axes: Axes) -> None:
    """Entries of these axes stay where they are."""
    for label in axes:
        w.labels.pin(label)
        w.labels.fix_to_identity(label)


@rule(*(f"{kind}_pool{d}d" for kind in ("avg", "adaptive_avg") for d in (1, 2, 3)))
def _mean_pool(w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    number = _pooled_axes(x, out)
    return (*w.axes(x)[: x.dim() - number], *_spatial(w, x, out, number))


@rule(*(f"{kind}_pool{d}d" for kind in ("max", "adaptive_max") for d in (1, 2, 3)))
def _max_pool(w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    for label in w.axes(x):
        w.labels.fix_to_identity(label, scale=False)
    return _mean_pool(w, out, x)


def _pooled_axes(x: Tensor, out: Tensor) -> int:
    """Axes from the first that changed its length; one that keeps it is not told apart from
    channels otherwise.
    """
    return min(x.dim() - 2, 3) if x.dim() > 2 else 1


@rule("interpolate", "upsample")
def _interpolate(w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return (*w.axes(x)[:2], *_spatial(w, x, out, x.dim() - 2))


@rule("_weight_norm")
def _weight_norm(
    w: SymmetryTracer, out: Tensor, direction: Tensor, size: Tensor, dim: int = 0
) -> Axes:
    """`size * direction / |direction|`: a unit's size and direction flip the weight, one of the two is looked at."""
    axes = list(w.axes(direction))
    for label in axes:
        w.labels.fix_to_identity(label, sign=False)
    longer = [d for d in range(size.dim()) if size.shape[d] == 1 != direction.shape[d]]
    for d in longer:
        w.drop(size, w.axis(size, d))
    for d in set(range(size.dim())) - set(longer):
        axes[d] = w.labels.product(axes[d], w.axis(size, d), (0, 1))
    return tuple(axes)


# -- norms


@rule("layer_norm")
def _layer_norm(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    first = x.dim() - len(normalized_shape)
    return _normalized(w, x, range(first, x.dim()), weight, bias)


@rule("rms_norm")
def _rms_norm(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: Any = None,
) -> Axes:
    axes = list(w.axes(x))
    first = x.dim() - len(normalized_shape)
    for dim in range(x.dim()):
        w.labels.fix_to_identity(axes[dim], sign=False)
        if weight is not None and dim >= first:
            axes[dim] = w.labels.product(
                axes[dim], w.axis(weight, dim - first), (0, w.rank(weight))
            )
    return tuple(axes)


@rule("group_norm")
def _group_norm(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    if num_groups > 1:
        for part in w.labels.resolve(w.axis(x, 1)):
            if not w.labels.is_pinned(part):
                w.labels.own_blocks(part, num_groups)
    return _normalized(w, x, [1], weight, bias)


@rule("batch_norm", "instance_norm")
def _channel_norm(
    w: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    for statistic in (running_mean, running_var):
        if statistic is not None:
            w.labels.fix_to_identity(w.axis(x, 1))
            w.labels.same(w.axis(x, 1), w.axis(statistic, 0))
    return _normalized(w, x, [1], weight, bias)


def _normalized(
    w: SymmetryTracer, x: Tensor, affine: Any, weight: Tensor | None, bias: Tensor | None
) -> Axes:
    """Normalized entries keep their order only; the affine map after the norm flips and rescales
    them again.

    All units that are normalized together may flip together: that is given up.
    """
    axes = list(w.axes(x))
    for label in axes:
        w.labels.give_up(label, before_norm=True)
    for number, dim in enumerate(affine):
        label = axes[dim]
        if weight is not None:
            label = w.labels.product(label, w.axis(weight, number), (0, w.rank(weight)))
        if bias is not None:
            label = w.labels.same(label, w.axis(bias, number))
        axes[dim] = label
    return tuple(axes)


# -- tokens


@rule("embedding")
def _embedding(
    w: SymmetryTracer, out: Tensor, tokens: Tensor, weight: Tensor, *args: Any, **kwargs: Any
) -> Axes:
    pin_all(w, (w.axis(weight, 0),))
    return (*w.axes(tokens), w.axis(weight, 1))
