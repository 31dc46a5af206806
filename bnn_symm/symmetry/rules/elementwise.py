"""Rules of operations that treat entries one by one, and of those that reduce axes.

An entrywise function commutes with every permutation. Whether it commutes with flips and positive
factors depends on whether it is odd, and on whether it is homogeneous of degree 1, as relu is.
"""

from typing import Any

from torch import Tensor

from bnn_symm.symmetry.tracing.axis_labels import Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule

# Attributes and conversions: the same entries, or none at all.
_SAME = (
    *(
        "clone",
        "contiguous",
        "detach",
        "to",
        "type",
        "type_as",
        "float",
        "double",
        "half",
        "bfloat16",
        "cpu",
        "cuda",
    ),
    *("data", "real", "requires_grad_", "positive", "__pos__", "alias"),
)
_HOMOGENEOUS = ("relu", "leaky_relu", "rrelu")
_ODD = (
    "tanh",
    "sin",
    "asin",
    "atan",
    "arctan",
    "erf",
    "sinh",
    "asinh",
    "arcsinh",
    "softsign",
    "tanhshrink",
)
_ODD += ("softshrink", "hardshrink", "sign", "sgn", "round", "trunc", "fix", "long", "int")
_EVEN = ("square", "cos", "cosh", "isfinite", "isnan", "isinf", "logical_not", "bool")
_NEITHER = (
    *(
        "gelu",
        "silu",
        "sigmoid",
        "logsigmoid",
        "log_sigmoid",
        "softplus",
        "elu",
        "selu",
        "celu",
        "mish",
        "relu6",
    ),
    *(
        "hardswish",
        "hardsigmoid",
        "threshold",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
    ),
    *("sqrt", "rsqrt", "clamp_min", "clamp_max", "erfc", "floor", "ceil", "nan_to_num"),
)


@rule(*_SAME, "imag", "conj", carries=True)
def _same(w: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return w.axes(x)


@rule("neg", "negative", "__neg__", carries=True)
def _negative(w: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    for label in (*w.axes(x), *w.carried(x)):
        if w.labels.is_hidden(label) and not w.is_leaf(x):
            w.labels.doubt(label)  # relu(x) and relu(-x) change places when it flips
    return w.axes(x)


@rule(
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
)
def _dropout(w: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return w.axes(x)  # modules that drop anything are refused before


@rule(*_HOMOGENEOUS, carries=True)
def _homogeneous(w: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(w, x, sign=False)


@rule("abs", "absolute", "__abs__", carries=True)
def _absolute(w: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    w.passed_on()[:] = [w.labels.without_flavors(label, scale=False) for label in w.carried(x)]
    return tuple(w.labels.without_flavors(label, scale=False) for label in w.axes(x))


@rule(*_ODD, carries=True)
def _odd(w: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(w, x, scale=False)


@rule("hardtanh", carries=True)
def _hard_tanh(
    w: SymmetryTracer,
    out: Any,
    x: Tensor,
    min_val: Any = -1.0,
    max_val: Any = 1.0,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    return _mapped(w, x, sign=min_val == -max_val, scale=False)


@rule("clamp", "clip", carries=True)
def _clamp(
    w: SymmetryTracer, out: Any, x: Tensor, min: Any = None, max: Any = None, **kwargs: Any
) -> Axes:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        bounded = [value for value in (x, min, max) if value is not None]
        for value in bounded:
            w.settle(value, proved=False)
        w.passed_on().clear()
        return _compare_all(w, out, *bounded)
    symmetric = min is not None and max is not None and min == -max
    return _mapped(w, x, sign=symmetric, scale=False)


@rule("reciprocal", carries=True)
def _reciprocal(w: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    return _mapped(w, x, scale=False)


@rule(*_EVEN, carries=True)
def _even(w: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    w.passed_on().clear()
    axes = _mapped(w, x, scale=False)
    return tuple(w.labels.without_flavors(label) for label in axes)


@rule(*_NEITHER, carries=True)
def _neither(w: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(w, x, sign=False, scale=False)


@rule("prelu")
def _prelu(w: SymmetryTracer, out: Any, x: Tensor, weight: Tensor) -> Axes:
    axes = list(_mapped(w, x, sign=False))
    if weight.numel() == 1:
        w.labels.pin(w.axis(weight, 0))
    else:
        dim = min(1, x.dim() - 1)
        w.labels.fix_to_identity(w.axis(weight, 0))
        axes[dim] = w.labels.product(axes[dim], w.axis(weight, 0), (0, w.rank(weight)))
    return tuple(axes)


def _mapped(w: SymmetryTracer, x: Tensor, *, sign: bool = True, scale: bool = True) -> Axes:
    """Axes of an entrywise function of `x` that commutes, or not, with flips and with positive
    factors.
    """
    for label in w.carried(x):
        if not sign and w.labels.flips(label):
            w.end(x, label)
    for label in (*w.carried(x), *w.axes(x)):
        w.labels.fix_to_identity(label, sign=not sign, scale=not scale)
    return w.axes(x)


# -- two arguments


@rule("add", "sub", "subtract", "__add__", "__radd__", "__sub__", "__rsub__", "rsub")
def _add(w: SymmetryTracer, out: Tensor, x: Any, y: Any, **kwargs: Any) -> Axes:
    return _joined(w, out, x, y)


@rule("maximum", "minimum", "fmax", "fmin")
def _maximum(w: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    for value in (x, y):
        _mapped(w, value, sign=False)
    return _joined(w, out, x, y)


@rule(
    "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "atan2", "logaddexp", "hypot"
)
def _compare(w: SymmetryTracer, out: Tensor, x: Any, y: Any) -> Axes:
    return _compare_all(w, out, x, y)


@rule("where")
def _where(w: SymmetryTracer, out: Tensor, condition: Tensor, x: Any, y: Any) -> Axes:
    return _chosen(w, out, condition, x, y)


@rule("masked_fill")
def _masked_fill(w: SymmetryTracer, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Axes:
    return _chosen(w, out, mask, x, value)


def _chosen(w: SymmetryTracer, out: Tensor, condition: Any, x: Any, y: Any) -> Axes:
    """Entries of one of two values: both flip together, as in a sum, unless the condition may change as well."""
    if w.is_hidden(condition):
        return _compare_all(w, out, condition, x, y)
    values = [
        value for value in (x, y) if isinstance(value, Tensor) or value != 0
    ]  # zero flips with anything
    axes = list(_joined(w, out, *values))
    for dim, label in enumerate(w.axes(condition), start=out.dim() - condition.dim()):
        if condition.shape[dim - out.dim()] != out.shape[dim] or out.shape[dim] == 1:
            continue
        if any(
            isinstance(v, Tensor) and v.dim() >= out.dim() - dim and v.shape[dim - out.dim()] > 1
            for v in values
        ):
            w.labels.align(axes[dim], label)
            axes[dim] = w.labels.resolve(axes[dim])
        else:
            axes[dim] = label
    return tuple(axes)


def _compare_all(w: SymmetryTracer, out: Tensor, *values: Any) -> Axes:
    for value in values:
        if isinstance(value, Tensor):
            for label in w.axes(value):
                w.labels.give_up(label)
    return _joined(w, out, *values)


def _joined(w: SymmetryTracer, out: Tensor, *values: Any) -> Axes:
    """Axes of a sum: entries that meet change together; one that meets a constant does not
    change.
    """
    tensors = [value for value in values if isinstance(value, Tensor)]
    dropped = [(tensor, label) for tensor in tensors for label in _broadcast(w, out, tensor)]
    flips = {id(tensor): w.flips(tensor) for tensor in tensors}
    for tensor, label in dropped:
        w.end(tensor, label)
    result: list[Label] = []
    for dim in range(-out.dim(), 0):
        whole = [t for t in tensors if t.dim() >= -dim and t.shape[dim] == out.shape[dim]]
        label = w.axis(whole[0], dim) if whole else w.labels.neutral(out.shape[dim])
        others = [tensor for tensor in tensors if not any(tensor is one for one in whole)]
        if others or len(tensors) < len(values):
            if w.labels.flips(label) and any(flips[id(tensor)] for tensor in others):
                w.labels.doubt(label)  # all may flip together, with the other term
            for tensor in whole:
                w.labels.fix_to_identity(w.axis(tensor, dim))
        for tensor in whole[1:]:
            label = w.labels.same(label, w.axis(tensor, dim))
        result.append(label)
    return tuple(result)


def _broadcast(w: SymmetryTracer, out: Tensor, tensor: Tensor) -> list[Label]:
    """The labels of those axes of one entry that become longer."""
    axes = enumerate(w.axes(tensor), start=-tensor.dim())
    return [label for dim, label in axes if tensor.shape[dim] == 1 != out.shape[dim]]


@rule("mul", "multiply", "__mul__", "__rmul__", carries=True)
def _multiply(w: SymmetryTracer, out: Tensor, x: Any, y: Any) -> Axes:
    result: list[Label | None] = [None] * out.dim()
    rank = [0] * out.dim()
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        w.doubt_of_factors(x, y)
    for tensor in (x, y):
        if not isinstance(tensor, Tensor):
            continue
        for dim, label in enumerate(w.axes(tensor), start=out.dim() - tensor.dim()):
            if out.shape[dim] != 1 and tensor.shape[dim - out.dim()] == 1:
                w.drop(tensor, label)
                continue
            other = result[dim]
            result[dim] = (
                label
                if other is None
                else w.labels.product(other, label, (rank[dim], w.rank(tensor)))
            )
            rank[dim] = w.rank(tensor)
    return tuple(label for label in result if label is not None)


@rule("div", "divide", "true_divide", "__truediv__", carries=True)
def _divide(
    w: SymmetryTracer, out: Tensor, x: Any, y: Any, rounding_mode: str | None = None
) -> Axes:
    if isinstance(x, Tensor) and isinstance(y, Tensor) and w.depends(y):
        for label in (one for one in (*w.axes(x), *w.carried(x)) if w.labels.flips(one)):
            w.labels.doubt(label)  # both may flip as a whole, as in a spectral norm
    for value in (x, y) if rounding_mode else (y,):
        if isinstance(value, Tensor):  # a reciprocal flips with its argument
            _mapped(w, value, sign=rounding_mode is None, scale=False)
    return _multiply(w, out, x, y)


@rule("__rtruediv__", "__rdiv__", carries=True)
def _divide_into(w: SymmetryTracer, out: Tensor, x: Tensor, y: Any) -> Axes:
    return _divide(w, out, y, x)


@rule("copy", "fill")
def _copy(
    w: SymmetryTracer, out: Tensor, target: Tensor, source: Any, *args: Any, **kwargs: Any
) -> Axes:
    if not isinstance(source, Tensor):
        return w.constant_axes(out)
    return _joined(w, out, source)


@rule("zero")
def _zero(w: SymmetryTracer, out: Tensor, target: Tensor) -> Axes:
    return w.constant_axes(out)


@rule(
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_tensor",
)
def _constant(w: SymmetryTracer, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return w.constant_axes(out)


@rule("pow", "__pow__", "float_power", carries=True)
def _power(w: SymmetryTracer, out: Tensor, x: Tensor, exponent: Any) -> Axes:
    if isinstance(exponent, Tensor):
        w.settle(x)
        w.settle(exponent)
        w.passed_on().clear()
        return _compare_all(w, out, x, exponent)
    if exponent == 1:
        return w.axes(x)
    if exponent % 2 == 0:
        return _even(w, out, x)
    return _mapped(w, x, sign=exponent % 2 == 1, scale=False)


# -- reductions


@rule("mean", "sum", "nansum", "nanmean", carries=True)
def _linear_reduction(
    w: SymmetryTracer, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any
) -> Axes:
    return _reduced(w, x, dim, keepdim, linear=True)


@rule("amax", "amin")
def _extreme(
    w: SymmetryTracer, out: Tensor, x: Tensor, dim: Any = (), keepdim: bool = False
) -> Axes:
    return _reduced(w, _changed(w, x, sign=False), dim, keepdim)


@rule("logsumexp", "var", "std", "prod")
def _other_reduction(
    w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dim: Any = None, **kwargs: Any
) -> Axes:
    for label in w.axes(x):
        w.labels.give_up(label)  # several units may flip together
    return _reduced(w, x, _named_dims(args, dim), bool(kwargs.get("keepdim", False)))


@rule("norm", "vector_norm", "linalg_vector_norm")
def _norm(
    w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dim: Any = None, **kwargs: Any
) -> Axes:
    _mapped(w, x, scale=False)
    axes = tuple(w.labels.without_flavors(label) for label in w.axes(x))  # even in every entry
    return _reduced(w, x, _named_dims(args, dim), bool(kwargs.get("keepdim", False)), axes=axes)


def _named_dims(args: tuple[Any, ...], dim: Any) -> Any:
    names = [
        value
        for value in args
        if isinstance(value, int | tuple | list) and not isinstance(value, bool)
    ]
    return dim if dim is not None or not names else names[-1]


@rule("max", "min")
def _max(w: SymmetryTracer, out: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, Tensor):
        return _maximum(w, out, x, dim)
    _mapped(w, x, sign=False)
    if dim is None:
        return _reduced(w, x, None, False)
    axes = _reduced(w, x, dim, keepdim)
    if not w.labels.is_fixed(w.axis(x, dim)):
        w.forbid(out.indices, "the place of a maximum among hidden units changes with their order")
        return axes, None
    return axes, tuple(w.labels.without_flavors(label) for label in axes)


@rule("argmax", "argmin")
def _argmax(
    w: SymmetryTracer, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False
) -> Axes:
    _mapped(w, x, sign=False)
    w.labels.hold(w.axis(x, dim)) if dim is not None else [
        w.labels.hold(label) for label in w.axes(x)
    ]
    return _reduced(w, x, dim, keepdim)


@rule("normalize")
def _normalize(w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(w, x, scale=False)  # odd in every entry


@rule("softmax", "log_softmax", "softmin")
def _softmax(w: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    _mapped(w, x, sign=False, scale=False)
    return w.axes(x)


def _changed(w: SymmetryTracer, x: Tensor, *, sign: bool = True, scale: bool = True) -> Tensor:
    _mapped(w, x, sign=sign, scale=scale)
    return x


def _reduced(
    w: SymmetryTracer,
    x: Tensor,
    dim: Any,
    keepdim: bool,
    *,
    linear: bool = False,
    axes: Axes | None = None,
) -> Axes:
    """Axes without those reduced; units that are summed over may change places, but not sign or
    size.

    Args:
        w: the watch.
        x: what is reduced.
        dim: its axes, None for all.
        keepdim: whether an axis of one entry stays.
        linear: whether of one entry the result is that entry.
        axes: labels in place of those of `x`.
    """
    dims = range(x.dim()) if dim is None or dim == () else ([dim] if isinstance(dim, int) else dim)
    gone = {d % x.dim() for d in dims}
    result = []
    for d, label in enumerate(w.axes(x) if axes is None else axes):
        if d not in gone:
            result.append(label)
            continue
        if linear and x.shape[d] == 1:
            if keepdim:
                result.append(label)
            else:
                w.drop(x, label)
            continue
        w.labels.give_up(label)  # all may flip together
        if keepdim:
            result.append(w.labels.fixed(1))
    return tuple(result)
