"""Rules of layers: linear maps, convolutions, norms, pooling and embeddings.

Two axes that are multiplied and summed over hold the same units; the result has the remaining axes
of the weight.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bnn_symm.symmetry.tracing.axis_segments import AxisSegment, CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import RULES, Axes, SymmetryTracer, rule

# -- products


@rule("linear", carries=True)
def _linear(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Axes:
    if not _absorbed(tracer, x, weight):
        tracer.labels.contract(tracer.axis(x, -1), tracer.axis(weight, 1))
    output = (tracer.axis(weight, 0),) if weight.dim() > 1 else ()
    if bias is not None:
        _broadcast_bias(tracer, tracer.axes(x)[:-1], output)
        output = tuple(with_bias(tracer, label, bias) for label in output)
    return (*tracer.axes(x)[:-1], *output)


def _absorbed(tracer: SymmetryTracer, x: Tensor, weight: Tensor) -> bool:
    """Return whether the weight's axis cancels the factor of a unit that all of `x` has."""
    carried = [label for label in tracer.passed_on() if tracer.labels.is_hidden(label)]
    if len(carried) != 1 or tracer.carried(weight) or weight.dim() < 2:
        return False
    (scalar,), read = (
        tracer.labels.resolve(carried[0]),
        tracer.labels.resolve(tracer.axis(weight, 1)),
    )
    if (
        not tracer.labels.is_fixed(tracer.axis(x, -1))
        or len(read) != 1
        or not tracer.labels.is_plain(read[0])
    ):
        return False
    if not tracer.is_leaf(weight) or not tracer.labels.is_plain(scalar):
        return False
    tracer.labels.absorb(scalar, read[0])
    tracer.passed_on().remove(carried[0])
    return True


def _broadcast_bias(tracer: SymmetryTracer, others: Axes, output: Axes) -> None:
    """Exclude flips and factors of the axes along which a bias is the same for all units.

    Args:
        tracer: the derivation.
        others: the axes without the output's.
        output: the axis of the output, if there is one.
    """
    labels = tracer.labels
    _end_passed_on(tracer, (*others, *output))
    for label in others:
        if labels.flips(label) and any(map(labels.flips, output)):
            labels.mark_flips_unsearched(label)  # all of them, with all units of the output
        labels.fix_to_identity(label)


def _end_passed_on(tracer: SymmetryTracer, axes: Axes) -> None:
    """End the labels that the result carries: with a bias it no longer flips as a whole."""
    carried = [label for label in tracer.passed_on() if not tracer.labels.is_fixed(label)]
    for label in carried:
        others = [*axes, *(other for other in carried if other is not label)]
        tracer.labels.end(
            label, proved=not (tracer.labels.flips(label) and any(map(tracer.labels.flips, others)))
        )
    tracer.passed_on().clear()


def with_bias(tracer: SymmetryTracer, label: Label, bias: Tensor | None) -> Label:
    """Return the label of a layer's output after its bias is added."""
    return label if bias is None else tracer.labels.same(label, tracer.axis(bias, 0))


@rule("matmul", "__matmul__", "mm", "bmm", "mv", "dot", "vdot", carries=True)
def _matmul(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    left = [f"b{d}" for d in range(out.dim() + 2 - x.dim(), out.dim())] if x.dim() > 2 else []
    right = [f"b{d}" for d in range(out.dim() + 2 - y.dim(), out.dim())] if y.dim() > 2 else []
    left += ["row", "sum"] if x.dim() > 1 else ["sum"]
    right += ["sum", "column"] if y.dim() > 1 else ["sum"]
    batch = [f"b{d}" for d in range(2, out.dim())] if x.dim() > 2 or y.dim() > 2 else []
    result = batch + ["row"] * (x.dim() > 1) + ["column"] * (y.dim() > 1)
    return _contracted(tracer, [(x, left), (y, right)], result, out)


@rule("addmm", "baddbmm")
def _addmm(tracer: SymmetryTracer, out: Tensor, bias: Tensor, *args: Any, **kwargs: Any) -> Axes:
    named = [kwargs[name] for name in ("mat1", "mat2", "batch1", "batch2") if name in kwargs]
    x, y = [*args, *named][:2]
    product = x @ y
    tracer.label(product, _matmul(tracer, product, x, y), list(tracer.passed_on()))
    tracer.passed_on().clear()
    tracer.end_carried(product)
    return RULES["add"](tracer, out, bias, product)


@rule("__rmatmul__", carries=True)
def _matmul_from_the_right(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    return _matmul(tracer, out, y, x)


@rule("inner", carries=True)
def _inner(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    tracer.labels.contract(tracer.axis(x, -1), tracer.axis(y, -1))
    return (*tracer.axes(x)[:-1], *tracer.axes(y)[:-1])


@rule("outer", "ger", carries=True)
def _outer(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    tracer.mark_factor_flips_unsearched(x, y)
    return (*tracer.axes(x), *tracer.axes(y))


@rule("bilinear")
def _bilinear(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
) -> Axes:
    tracer.labels.contract(tracer.axis(x, -1), tracer.axis(weight, 1))
    tracer.labels.contract(tracer.axis(y, -1), tracer.axis(weight, 2))
    batch = tracer.axes(x)[:-1]
    for label, other in zip(batch, tracer.axes(y)[:-1], strict=True):
        tracer.labels.fix_to_identity(label)
        tracer.labels.fix_to_identity(other)
        tracer.labels.align(label, other)
    return (*batch, with_bias(tracer, tracer.axis(weight, 0), bias))


@rule("einsum", carries=True)
def _einsum(tracer: SymmetryTracer, out: Tensor, equation: str, *operands: Any) -> Axes:
    tensors = (
        operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    )
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    if not isinstance(equation, str) or not arrow:
        raise CannotDerive("einsum of this form; write '->' and the letters of the result")
    subscripts = [
        _letters(letters, tensor.dim())
        for letters, tensor in zip(inputs.split(","), tensors, strict=True)
    ]
    result = "".join(_letters(result, out.dim()))
    while len(tensors) > 2:  # the first two become one
        others = set(result).union(*subscripts[2:])
        both = [*dict.fromkeys(subscripts[0] + subscripts[1])]
        kept = [name for name in both if name in others]
        product = torch.einsum(
            f"{''.join(subscripts[0])},{''.join(subscripts[1])}->{''.join(kept)}", *tensors[:2]
        )
        pair = list(zip(tensors[:2], subscripts[:2], strict=True))
        tracer.label(product, _contracted(tracer, pair, kept, product))
        tensors, subscripts = [product, *tensors[2:]], [kept, *subscripts[2:]]
    if any(len(set(letters)) < len(letters) for letters in subscripts):
        raise CannotDerive("einsum with a repeated letter in one operand")
    return _contracted(tracer, list(zip(tensors, subscripts, strict=True)), list(result), out)


def _letters(subscripts: str, dims: int) -> list[str]:
    """Return one letter for each axis; those of an ellipsis are capital, aligned at the right."""
    before, dots, after = subscripts.partition("...")
    if not dots:
        return list(before)
    number = dims - len(before) - len(after)
    return [*before, *"ZYXWVU"[:number][::-1], *after]


def _contracted(
    tracer: SymmetryTracer, operands: list[tuple[Tensor, list[str]]], result: list[str], out: Tensor
) -> Axes:
    """Return the axes of a sum of products, given names of the operands' axes."""
    if len(operands) == 2:
        (x, _), (y, _) = operands
        flipping = [
            {
                n
                for n, label in zip(names, tracer.axes(t), strict=True)
                if tracer.labels.flips(label)
            }
            for t, names in operands
        ]
        if not flipping[0] & flipping[1] - set(result):
            tracer.mark_factor_flips_unsearched(x, y)
    labels: dict[str, Label] = {}
    rank: dict[str, int] = {}
    size: dict[str, int] = {}
    for tensor, names in operands:
        for name, length in zip(names, tensor.shape, strict=True):
            size[name] = max(length, size.get(name, 1))
    for tensor, names in operands:
        for name, label in zip(names, tracer.axes(tensor), strict=True):
            other = labels.get(name)
            if tracer.labels.size(label) != size[name]:
                tracer.drop(tensor, label)  # broadcast
                continue
            if other is None:
                labels[name] = label
            elif name in result:
                labels[name] = tracer.labels.product(
                    other, label, (rank[name], tracer.rank(tensor))
                )
            else:
                tracer.labels.contract(other, label)
            rank[name] = tracer.rank(tensor)
    for name, label in labels.items():
        alone = [tensor for tensor, names in operands if name in names]
        if name not in result and len(alone) == 1:
            if size[name] == 1:
                tracer.drop(alone[0], label)
            else:
                tracer.labels.stop_tracking(label)  # summed over in one operand only
    return tuple(labels[name] for name in result)


# -- convolutions and pooling


@rule("conv1d", "conv2d", "conv3d", carries=True)
def _convolution(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Axes:
    pin_all(tracer, tracer.axes(weight)[2:])
    channel = x.dim() - weight.dim() + 1  # 0 for an image without a batch axis
    if groups == 1:
        tracer.labels.contract(tracer.axis(x, channel), tracer.axis(weight, 1))
        output = tracer.axis(weight, 0)
    else:
        output = _grouped(tracer, tracer.axis(x, channel), weight, groups)
    if bias is not None:
        _broadcast_bias(tracer, tracer.axes(x)[:channel], (output,))
    return (
        *tracer.axes(x)[:channel],
        with_bias(tracer, output, bias),
        *_spatial(tracer, x, out, weight.dim() - 2),
    )


def _grouped(tracer: SymmetryTracer, channels: Label, weight: Tensor, groups: int) -> Label:
    """Align the channels of a grouped convolution, which move in blocks; return the output's."""
    labels = tracer.labels
    channels, output = labels.resolve(channels), labels.resolve(tracer.axis(weight, 0))
    if len(channels) != 1 or len(output) != 1 or not all(map(labels.can_move_in_blocks, channels)):
        return _separate_channels(tracer, channels, output, weight, groups)
    read, write = channels[0], output[0]
    if labels.is_pinned(read):
        try:
            labels.pin((labels.own_blocks(write, groups),))
        except CannotDerive:
            labels.freeze(output)
        labels.pin(tracer.axis(weight, 1))
        return output
    try:
        of_read, of_write = labels.own_blocks(read, groups), labels.own_blocks(write, groups)
        labels.align((of_read,), (of_write,))
        labels.contract((replace(read, within=True),), tracer.axis(weight, 1))
    except CannotDerive:  # other layers cut the channels into other blocks
        return _separate_channels(tracer, channels, output, weight, groups)
    return output


def _separate_channels(
    tracer: SymmetryTracer, channels: Label, output: Label, weight: Tensor, groups: int
) -> Label:
    """Align the channels of a depthwise convolution, a factor of each; else keep them in place."""
    labels = tracer.labels
    if weight.shape[0] == groups and weight.shape[1] == 1:
        pin_all(tracer, (tracer.axis(weight, 1),))
        return labels.product(channels, output, (0, tracer.rank(weight)))
    for label in (channels, output, tracer.axis(weight, 1)):
        labels.freeze(label)
    return labels.resolve(output)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(
    tracer: SymmetryTracer,
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
    pin_all(tracer, tracer.axes(weight)[2:])
    channel = x.dim() - weight.dim() + 1
    tracer.labels.contract(tracer.axis(x, channel), tracer.axis(weight, 0))
    output = tracer.axis(weight, 1)
    if bias is not None:
        _broadcast_bias(tracer, tracer.axes(x)[:channel], (output,))
    output = with_bias(tracer, output, bias)
    return (*tracer.axes(x)[:channel], output, *_spatial(tracer, x, out, weight.dim() - 2))


def _spatial(tracer: SymmetryTracer, x: Tensor, out: Tensor, number: int) -> list[Label]:
    """Return the trailing axes of an operation over neighbors, whose order is kept."""
    for label in tracer.axes(x)[x.dim() - number :]:
        tracer.labels.freeze(label)  # positions, unless the convolution runs over units
    return [tracer.labels.fixed(size) for size in out.shape[out.dim() - number :]]


def pin_all(tracer: SymmetryTracer, axes: Axes) -> None:
    """Keep the entries of some axes in place."""
    for label in axes:
        tracer.labels.pin(label)
        tracer.labels.fix_to_identity(label)


@rule(*(f"{kind}_pool{d}d" for kind in ("avg", "adaptive_avg") for d in (1, 2, 3)))
def _mean_pool(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    number = _pooled_axes(x, out)
    return (*tracer.axes(x)[: x.dim() - number], *_spatial(tracer, x, out, number))


@rule(*(f"{kind}_pool{d}d" for kind in ("max", "adaptive_max") for d in (1, 2, 3)))
def _max_pool(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    for label in tracer.axes(x):
        tracer.labels.fix_to_identity(label, scale=False)
    return _mean_pool(tracer, out, x)


def _pooled_axes(x: Tensor, out: Tensor) -> int:
    """Return the number of trailing axes that a pooling operation runs over."""
    return min(x.dim() - 2, 3) if x.dim() > 2 else 1


@rule("interpolate", "upsample")
def _interpolate(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return (*tracer.axes(x)[:2], *_spatial(tracer, x, out, x.dim() - 2))


@rule("_weight_norm")
def _weight_norm(
    tracer: SymmetryTracer, out: Tensor, direction: Tensor, size: Tensor, dim: int = 0
) -> Axes:
    """Label `size * direction / |direction|`, where a flip of size or direction flips the weight.

    Only one of the two is tracked.
    """
    axes = list(tracer.axes(direction))
    for label in axes:
        tracer.labels.fix_to_identity(label, sign=False)
    longer = [d for d in range(size.dim()) if size.shape[d] == 1 != direction.shape[d]]
    for d in longer:
        tracer.drop(size, tracer.axis(size, d))
    for d in set(range(size.dim())) - set(longer):
        axes[d] = tracer.labels.product(axes[d], tracer.axis(size, d), (0, 1))
    return tuple(axes)


# -- norms


@rule("layer_norm")
def _layer_norm(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    first = x.dim() - len(normalized_shape)
    return _normalized(tracer, x, range(first, x.dim()), weight, bias)


@rule("rms_norm")
def _rms_norm(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: Any = None,
) -> Axes:
    axes = list(tracer.axes(x))
    first = x.dim() - len(normalized_shape)
    for dim in range(x.dim()):
        tracer.labels.fix_to_identity(axes[dim], sign=False)
        if weight is not None and dim >= first:
            axes[dim] = tracer.labels.product(
                axes[dim], tracer.axis(weight, dim - first), (0, tracer.rank(weight))
            )
    return tuple(axes)


@rule("group_norm")
def _group_norm(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Axes:
    if num_groups > 1:
        channels = tracer.labels.resolve(tracer.axis(x, 1))
        for part in channels:
            if len(channels) > 1:
                tracer.labels.freeze((part,))
            elif not tracer.labels.is_pinned(part):
                _own_groups(tracer, part, num_groups)
    return _normalized(tracer, x, [1], weight, bias)


def _own_groups(tracer: SymmetryTracer, part: AxisSegment, number: int) -> None:
    try:
        tracer.labels.own_blocks(part, number)
    except CannotDerive:  # channels of several layers, or other blocks
        tracer.labels.freeze((part,))


@rule("batch_norm", "instance_norm")
def _channel_norm(
    tracer: SymmetryTracer,
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
            tracer.labels.fix_to_identity(tracer.axis(x, 1))
            tracer.labels.same(tracer.axis(x, 1), tracer.axis(statistic, 0))
    return _normalized(tracer, x, [1], weight, bias)


def _normalized(
    tracer: SymmetryTracer, x: Tensor, affine: Any, weight: Tensor | None, bias: Tensor | None
) -> Axes:
    """Label normalized entries, which only the affine map afterwards flips and rescales.

    A flip of all units that are normalized together remains possible and is not searched.
    """
    axes = list(tracer.axes(x))
    for label in axes:
        tracer.labels.stop_tracking(label, before_norm=True)
    for number, dim in enumerate(affine):
        label = axes[dim]
        if weight is not None:
            label = tracer.labels.product(
                label, tracer.axis(weight, number), (0, tracer.rank(weight))
            )
        if bias is not None:
            label = tracer.labels.same(label, tracer.axis(bias, number))
        axes[dim] = label
    return tuple(axes)


# -- tokens


@rule("embedding")
def _embedding(
    tracer: SymmetryTracer, out: Tensor, tokens: Tensor, weight: Tensor, *args: Any, **kwargs: Any
) -> Axes:
    pin_all(tracer, (tracer.axis(weight, 0),))
    return (*tracer.axes(tokens), tracer.axis(weight, 1))
