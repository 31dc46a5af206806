"""Rules of elementwise operations and of reductions over axes.

An elementwise function commutes with every permutation. Whether it commutes with flips and positive
factors depends on whether it is odd, and on whether it is homogeneous of degree 1, as relu is.
"""

from typing import Any

from torch import Tensor

from bnn_symm.symmetry.rules.shapes import cut_axis
from bnn_symm.symmetry.tracing.axis_segments import Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule

# Attributes and conversions, which return the same entries.
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
_ODD += (
    "tan",
    "frac",
    "erfinv",
    "softshrink",
    "hardshrink",
    "sign",
    "sgn",
    "round",
    "trunc",
    "fix",
    "long",
    "int",
)
_EVEN = ("square", "cos", "cosh", "sinc", "i0", "isfinite", "isnan", "isinf", "logical_not", "bool")
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
        "_threshold",
        "lgamma",
        "digamma",
        "logit",
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
    ),
    *(
        "sqrt",
        "rsqrt",
        "clamp_min",
        "clamp_max",
        "erfc",
        "special_erfcx",
        "special_ndtri",
        "floor",
        "ceil",
        "nan_to_num",
    ),
)


@rule(*_SAME, "imag", "conj", carries=True)
def _same(tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return tracer.axes(x)


@rule("neg", "negative", "__neg__", carries=True)
def _negative(tracer: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    for label in (*tracer.axes(x), *tracer.carried(x)):
        if tracer.labels.is_hidden(label) and not tracer.is_leaf(x):
            # A flip exchanges relu(x) and relu(-x).
            tracer.labels.mark_flips_unsearched(label)
    return tracer.axes(x)


@rule(
    "dropout",
    "alpha_dropout",
    "feature_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
)
def _dropout(tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return tracer.axes(x)  # modules with an active dropout are rejected earlier


@rule(*_HOMOGENEOUS, carries=True)
def _homogeneous(tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(tracer, x, sign=False)


@rule("abs", "absolute", "__abs__", carries=True)
def _absolute(tracer: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    tracer.passed_on()[:] = [
        tracer.labels.as_invariant(label, scale=False) for label in tracer.carried(x)
    ]
    return tuple(tracer.labels.as_invariant(label, scale=False) for label in tracer.axes(x))


@rule(*_ODD, carries=True)
def _odd(tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(tracer, x, scale=False)


@rule("hardtanh", carries=True)
def _hard_tanh(
    tracer: SymmetryTracer,
    out: Any,
    x: Tensor,
    min_val: Any = -1.0,
    max_val: Any = 1.0,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    return _mapped(tracer, x, sign=min_val == -max_val, scale=False)


@rule("clamp", "clip", carries=True)
def _clamp(
    tracer: SymmetryTracer, out: Any, x: Tensor, min: Any = None, max: Any = None, **kwargs: Any
) -> Axes:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        bounded = [value for value in (x, min, max) if value is not None]
        for value in bounded:
            tracer.end_carried(value, proved=False)
        tracer.passed_on().clear()
        return _compare_all(tracer, out, *bounded)
    symmetric = min is not None and max is not None and min == -max
    return _mapped(tracer, x, sign=symmetric, scale=False)


@rule("reciprocal", carries=True)
def _reciprocal(tracer: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    return _mapped(tracer, x, scale=False)


@rule(*_EVEN, carries=True)
def _even(tracer: SymmetryTracer, out: Any, x: Tensor) -> Axes:
    tracer.passed_on().clear()
    axes = _mapped(tracer, x, scale=False)
    return tuple(tracer.labels.as_invariant(label) for label in axes)


@rule(*_NEITHER, carries=True)
def _neither(tracer: SymmetryTracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(tracer, x, sign=False, scale=False)


@rule("prelu")
def _prelu(tracer: SymmetryTracer, out: Any, x: Tensor, weight: Tensor) -> Axes:
    axes = list(_mapped(tracer, x, sign=False))
    if weight.numel() == 1:
        tracer.labels.pin(tracer.axis(weight, 0))
    else:
        dim = min(1, x.dim() - 1)
        tracer.labels.fix_to_identity(tracer.axis(weight, 0))
        axes[dim] = tracer.labels.product(
            axes[dim], tracer.axis(weight, 0), (0, tracer.rank(weight))
        )
    return tuple(axes)


def _mapped(tracer: SymmetryTracer, x: Tensor, *, sign: bool = True, scale: bool = True) -> Axes:
    """Return the axes of an elementwise function of `x`.

    Args:
        tracer: the tracer of this pass.
        x: the argument.
        sign: whether the function commutes with flips.
        scale: whether it commutes with positive factors.
    """
    for label in tracer.carried(x):
        if not sign and tracer.labels.flips(label):
            tracer.end(x, label)
    for label in (*tracer.carried(x), *tracer.axes(x)):
        tracer.labels.fix_to_identity(label, sign=not sign, scale=not scale)
    return tracer.axes(x)


# -- two arguments


@rule("add", "sub", "subtract", "__add__", "__radd__", "__sub__", "__rsub__", "rsub")
def _add(tracer: SymmetryTracer, out: Tensor, x: Any, y: Any, **kwargs: Any) -> Axes:
    return _joined(tracer, out, x, y)


@rule("maximum", "minimum", "fmax", "fmin")
def _maximum(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor) -> Axes:
    for value in (x, y):
        _mapped(tracer, value, sign=False)
    return _joined(tracer, out, x, y)


@rule(
    "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "atan2", "logaddexp", "hypot"
)
def _compare(tracer: SymmetryTracer, out: Tensor, x: Any, y: Any) -> Axes:
    return _compare_all(tracer, out, x, y)


@rule("where")
def _where(tracer: SymmetryTracer, out: Tensor, condition: Tensor, x: Any, y: Any) -> Axes:
    return _selected(tracer, out, condition, x, y)


@rule("masked_fill")
def _masked_fill(tracer: SymmetryTracer, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Axes:
    return _selected(tracer, out, mask, x, value)


def _selected(tracer: SymmetryTracer, out: Tensor, condition: Any, x: Any, y: Any) -> Axes:
    """Return the axes of entries selected from two values, which flip together, as in a sum.

    If the condition may change as well, flips of several units are not searched.
    """
    if tracer.is_hidden(condition):
        return _compare_all(tracer, out, condition, x, y)
    # Zero is left out, since it flips with anything.
    values = [value for value in (x, y) if isinstance(value, Tensor) or value != 0]
    axes = list(_joined(tracer, out, *values))
    for dim, label in enumerate(tracer.axes(condition), start=out.dim() - condition.dim()):
        if condition.shape[dim - out.dim()] != out.shape[dim] or out.shape[dim] == 1:
            continue
        if any(
            isinstance(v, Tensor) and v.dim() >= out.dim() - dim and v.shape[dim - out.dim()] > 1
            for v in values
        ):
            tracer.labels.align(axes[dim], label)
            axes[dim] = tracer.labels.resolve(axes[dim])
        else:
            axes[dim] = label
    return tuple(axes)


def _compare_all(tracer: SymmetryTracer, out: Tensor, *values: Any) -> Axes:
    for value in values:
        if isinstance(value, Tensor):
            for label in tracer.axes(value):
                tracer.labels.stop_tracking(label)
    return _joined(tracer, out, *values)


def _joined(tracer: SymmetryTracer, out: Tensor, *values: Any) -> Axes:
    """Return the axes of a sum: entries that meet change together.

    One that meets a constant does not change.
    """
    tensors = [value for value in values if isinstance(value, Tensor)]
    dropped = [(tensor, label) for tensor in tensors for label in _broadcast(tracer, out, tensor)]
    flips = {id(tensor): tracer.flips(tensor) for tensor in tensors}
    for tensor, label in dropped:
        tracer.end(tensor, label)
    result: list[Label] = []
    for dim in range(-out.dim(), 0):
        whole = [t for t in tensors if t.dim() >= -dim and t.shape[dim] == out.shape[dim]]
        label = tracer.axis(whole[0], dim) if whole else tracer.labels.neutral(out.shape[dim])
        others = [tensor for tensor in tensors if not any(tensor is other for other in whole)]
        if others or len(tensors) < len(values):
            if tracer.labels.flips(label) and any(flips[id(tensor)] for tensor in others):
                # All units may flip together with the other term.
                tracer.labels.mark_flips_unsearched(label)
            for tensor in whole:
                tracer.labels.fix_to_identity(tracer.axis(tensor, dim))
        for tensor in whole[1:]:
            label = tracer.labels.same(label, tracer.axis(tensor, dim))
        result.append(label)
    return tuple(result)


def _broadcast(tracer: SymmetryTracer, out: Tensor, tensor: Tensor) -> list[Label]:
    """Return the labels of the axes of one entry that broadcast."""
    axes = enumerate(tracer.axes(tensor), start=-tensor.dim())
    return [label for dim, label in axes if tensor.shape[dim] == 1 != out.shape[dim]]


@rule("mul", "multiply", "__mul__", "__rmul__", carries=True)
def _multiply(tracer: SymmetryTracer, out: Tensor, x: Any, y: Any) -> Axes:
    result: list[Label | None] = [None] * out.dim()
    rank = [0] * out.dim()
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        tracer.mark_factor_flips_unsearched(x, y)
    for tensor in (x, y):
        if not isinstance(tensor, Tensor):
            continue
        for dim, label in enumerate(tracer.axes(tensor), start=out.dim() - tensor.dim()):
            if out.shape[dim] != 1 and tensor.shape[dim - out.dim()] == 1:
                tracer.drop(tensor, label)
                continue
            other = result[dim]
            result[dim] = (
                label
                if other is None
                else tracer.labels.product(other, label, (rank[dim], tracer.rank(tensor)))
            )
            rank[dim] = tracer.rank(tensor)
    return tuple(label for label in result if label is not None)


@rule("div", "divide", "true_divide", "__truediv__", carries=True)
def _divide(
    tracer: SymmetryTracer, out: Tensor, x: Any, y: Any, rounding_mode: str | None = None
) -> Axes:
    if isinstance(x, Tensor) and isinstance(y, Tensor) and tracer.depends_on_parameters(y):
        # Both may flip as a whole, as in a spectral norm.
        for label in filter(tracer.labels.flips, (*tracer.axes(x), *tracer.carried(x))):
            tracer.labels.mark_flips_unsearched(label)
    for value in (x, y) if rounding_mode else (y,):
        if isinstance(value, Tensor):  # a reciprocal flips with its argument
            _mapped(tracer, value, sign=rounding_mode is None, scale=False)
    return _multiply(tracer, out, x, y)


@rule("__rtruediv__", "__rdiv__", carries=True)
def _divide_into(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Any) -> Axes:
    return _divide(tracer, out, y, x)


@rule("copy", "fill")
def _copy(
    tracer: SymmetryTracer, out: Tensor, target: Tensor, source: Any, *args: Any, **kwargs: Any
) -> Axes:
    if not isinstance(source, Tensor):
        return tracer.constant_axes(out)
    return _joined(tracer, out, source)


@rule("zero")
def _zero(tracer: SymmetryTracer, out: Tensor, target: Tensor) -> Axes:
    return tracer.constant_axes(out)


@rule("new_tensor")
def _constant(tracer: SymmetryTracer, out: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return tracer.constant_axes(out)


@rule("pow", "__pow__", "float_power", carries=True)
def _power(tracer: SymmetryTracer, out: Tensor, x: Tensor, exponent: Any) -> Axes:
    if isinstance(exponent, Tensor):
        tracer.end_carried(x)
        tracer.end_carried(exponent)
        tracer.passed_on().clear()
        return _compare_all(tracer, out, x, exponent)
    if exponent == 1:
        return tracer.axes(x)
    if exponent % 2 == 0:
        return _even(tracer, out, x)
    return _mapped(tracer, x, sign=exponent % 2 == 1, scale=False)


@rule("addcmul", "addcdiv")
def _add_product(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor, z: Tensor, **kwargs: Any
) -> Axes:
    return _combined(tracer, out, (_multiply, y * z, y, z), (_add, None, x))


@rule("lerp")
def _interpolate(tracer: SymmetryTracer, out: Tensor, x: Tensor, y: Tensor, weight: Any) -> Axes:
    return _compare_all(tracer, out, x, y, *([weight] if isinstance(weight, Tensor) else []))


def _combined(tracer: SymmetryTracer, out: Tensor, first: Any, second: Any) -> Axes:
    """Apply a rule to the result of another; each is (rule, its result, *arguments)."""
    inner, result, *arguments = first
    tracer.label(result, inner(tracer, result, *arguments))
    outer, _, *others = second
    return outer(tracer, out, *others, result)


@rule("glu")
def _glu(tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: int = -1) -> Axes:
    """Label one half of an axis times the sigmoid of the other half."""
    axes, dim = tracer.axes(x), dim % x.dim()
    size = out.shape[dim]
    value, gate = cut_axis(tracer, axes[dim], [size, size])
    for label in (value, gate):  # they share their class, and the gate does not flip
        if tracer.labels.flips(label):
            tracer.labels.mark_flips_unsearched(label)
        tracer.labels.fix_to_identity(label)
    for label in axes:
        tracer.labels.fix_to_identity(label)
    joint = tracer.labels.product(value, gate, (0, 0))
    return (*axes[:dim], joint, *axes[dim + 1 :])


@rule("local_response_norm", carries=True)
def _local_response_norm(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any
) -> Axes:
    tracer.labels.freeze(tracer.axis(x, 1))  # a channel is divided by those beside it
    axes = tuple(map(tracer.labels.resolve, tracer.axes(x)))
    for label in axes:
        tracer.labels.stop_tracking(label)
    return axes


# -- reductions


@rule("mean", "sum", "nansum", "nanmean", carries=True)
def _linear_reduction(
    tracer: SymmetryTracer,
    out: Tensor,
    x: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Axes:
    return _reduced(tracer, x, dim, keepdim, linear=True)


@rule("amax", "amin")
def _extreme(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: Any = (), keepdim: bool = False
) -> Axes:
    return _reduced(tracer, _changed(tracer, x, sign=False), dim, keepdim)


@rule("logsumexp", "var", "std", "prod")
def _other_reduction(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dim: Any = None, **kwargs: Any
) -> Axes:
    for label in tracer.axes(x):
        tracer.labels.stop_tracking(label)  # several units may flip together
    return _reduced(tracer, x, _named_dims(args, dim), bool(kwargs.get("keepdim", False)))


@rule("norm", "vector_norm", "linalg_vector_norm")
def _norm(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, dim: Any = None, **kwargs: Any
) -> Axes:
    _mapped(tracer, x, scale=False)
    # A norm is even in every entry.
    axes = tuple(tracer.labels.as_invariant(label) for label in tracer.axes(x))
    return _reduced(
        tracer, x, _named_dims(args, dim), bool(kwargs.get("keepdim", False)), axes=axes
    )


def _named_dims(args: tuple[Any, ...], dim: Any) -> Any:
    names = [
        value
        for value in args
        if isinstance(value, int | tuple | list) and not isinstance(value, bool)
    ]
    return dim if dim is not None or not names else names[-1]


@rule("max", "min")
def _max(
    tracer: SymmetryTracer, out: Any, x: Tensor, dim: Any = None, keepdim: bool = False
) -> Any:
    if isinstance(dim, Tensor):
        return _maximum(tracer, out, x, dim)
    _mapped(tracer, x, sign=False)
    if dim is None:
        return _reduced(tracer, x, None, False)
    axes = _reduced(tracer, x, dim, keepdim)
    if not tracer.labels.is_fixed(tracer.axis(x, dim)):
        tracer.forbid(
            out.indices, "the place of a maximum among hidden units changes with their order"
        )
        return axes, None
    return axes, tuple(tracer.labels.as_invariant(label) for label in axes)


@rule("argmax", "argmin")
def _argmax(
    tracer: SymmetryTracer, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False
) -> Axes:
    _mapped(tracer, x, sign=False)
    tracer.labels.freeze(tracer.axis(x, dim)) if dim is not None else [
        tracer.labels.freeze(label) for label in tracer.axes(x)
    ]
    return _reduced(tracer, x, dim, keepdim)


@rule("normalize")
def _normalize(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    return _mapped(tracer, x, scale=False)  # it is odd in every entry


@rule("softmax", "log_softmax", "softmin")
def _softmax(tracer: SymmetryTracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Axes:
    _mapped(tracer, x, sign=False, scale=False)
    return tracer.axes(x)


def _changed(tracer: SymmetryTracer, x: Tensor, *, sign: bool = True, scale: bool = True) -> Tensor:
    _mapped(tracer, x, sign=sign, scale=scale)
    return x


def _reduced(
    tracer: SymmetryTracer,
    x: Tensor,
    dim: Any,
    keepdim: bool,
    *,
    linear: bool = False,
    axes: Axes | None = None,
) -> Axes:
    """Return the axes that a reduction keeps.

    Units that are summed over may be permuted, but not flipped or rescaled.

    Args:
        tracer: the tracer of this pass.
        x: the tensor that is reduced.
        dim: the reduced axes, None for all.
        keepdim: whether a reduced axis is kept with one entry.
        linear: whether the reduction of a single entry is that entry.
        axes: labels to use instead of those of `x`.
    """
    dims = range(x.dim()) if dim is None or dim == () else ([dim] if isinstance(dim, int) else dim)
    gone = {d % x.dim() for d in dims}
    result = []
    for d, label in enumerate(tracer.axes(x) if axes is None else axes):
        if d not in gone:
            result.append(label)
            continue
        if linear and x.shape[d] == 1:
            if keepdim:
                result.append(label)
            else:
                tracer.drop(x, label)
            continue
        tracer.labels.stop_tracking(label)  # all may flip together
        if keepdim:
            result.append(tracer.labels.fixed(1))
    return tuple(result)
