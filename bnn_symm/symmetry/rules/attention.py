"""Rules of attention, where heads are permuted as a whole.

Within a head, queries and keys share their units; values have units of their own.
"""

from typing import Any

from torch import Tensor

from bnn_symm.symmetry.rules.layers import pin_all, with_bias
from bnn_symm.symmetry.rules.shapes import cut_axis
from bnn_symm.symmetry.tracing.axis_segments import CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule


@rule("scaled_dot_product_attention")
def _attention(
    tracer: SymmetryTracer,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Axes:
    labels = tracer.labels
    batch = []
    for number, q in enumerate(tracer.axes(query)[:-2]):
        heads = q
        for other in (key, value):
            label = tracer.axis(other, number)
            if other.shape[number] != query.shape[number]:  # grouped queries
                label = labels.with_copies(label, query.shape[number] // other.shape[number])
            for each in (heads, label):
                labels.stop_tracking(each)
            heads = labels.same(heads, label)
        batch.append(heads)
    labels.contract(tracer.axis(query, -1), tracer.axis(key, -1))
    pin_all(tracer, (tracer.axis(query, -2), tracer.axis(key, -2), tracer.axis(value, -2)))
    _bias(tracer, out, batch, kwargs.get("attn_mask", args[0] if args else None))
    return (*batch, tracer.axis(query, -2), tracer.axis(value, -1))


def _bias(tracer: SymmetryTracer, out: Tensor, batch: list[Label], bias: Tensor | None) -> None:
    """Align the axes of what is added to the scores, whose last two axes are positions."""
    if bias is None or not tracer.is_hidden(bias):
        return
    axes = tracer.axes(bias)
    pin_all(tracer, axes[-2:])
    for label in axes:
        tracer.labels.stop_tracking(label)
    shapes = zip(axes[:-2], bias.shape[:-2], strict=True)
    for number, (label, size) in enumerate(shapes, start=len(batch) - len(axes) + 2):
        if size == out.shape[number] != 1:
            batch[number] = tracer.labels.same(batch[number], label)


# Arguments of torch's function after query, key and value.
_ARGUMENTS = (
    *("embed_dim", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v"),
    *("add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training"),
    *("key_padding_mask", "need_weights"),
)


def _project(
    tracer: SymmetryTracer, sources: tuple[Tensor, ...], given: dict[str, Any]
) -> list[Label]:
    """Contract query, key and value with their weights; return the labels of the weights' rows."""
    labels, weight, bias = tracer.labels, given["in_proj_weight"], given.get("in_proj_bias")
    sizes = [given["embed_dim"]] * 3
    for tensor in (weight, bias):  # rows of queries, keys and values are rescaled apart
        if tensor is not None:
            tracer.separate_rows(tensor, 3)
    if weight is not None:
        rows, weights = cut_axis(tracer, tracer.axis(weight, 0), sizes), [weight] * 3
    else:
        weights = [given[f"{kind}_proj_weight"] for kind in ("q", "k", "v")]
        rows = [tracer.axis(each, 0) for each in weights]
    for source, each in zip(sources, weights, strict=True):
        labels.contract(tracer.axis(source, -1), tracer.axis(each, 1))
    if bias is not None:
        for label, bias_rows in zip(
            rows, cut_axis(tracer, tracer.axis(bias, 0), sizes), strict=True
        ):
            labels.same(label, bias_rows)
    return rows


@rule("multi_head_attention_forward")
def _multi_head_attention(
    tracer: SymmetryTracer,
    out: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Label multi-head attention: queries and keys share units, values have units of their own."""
    given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
    if given.get("bias_k") is not None or given.get("bias_v") is not None:
        raise CannotDerive("attention with bias_k or bias_v")
    labels, heads = tracer.labels, given["num_heads"]
    rows = _project(tracer, (query, key, value), given)
    owners = []
    for label in rows:
        parts = labels.resolve(label)
        if len(parts) != 1 or labels.is_pinned(parts[0]):
            labels.freeze(label)
            continue
        owners.append(labels.own_blocks(parts[0], heads))
    for owner in owners[1:]:
        labels.align((owners[0],), (owner,))
    labels.contract(rows[0], rows[1])
    labels.contract(rows[2], tracer.axis(given["out_proj_weight"], 1))
    projected = with_bias(
        tracer, tracer.axis(given["out_proj_weight"], 0), given.get("out_proj_bias")
    )
    pin_all(tracer, (tracer.axis(query, 0), tracer.axis(key, 0), tracer.axis(value, 0)))
    axes = (*tracer.axes(query)[:-1], projected)
    weights_out = out[1]
    if weights_out is None:
        return (axes,)
    weight_axes = [labels.fixed(n) for n in weights_out.shape]
    if not given.get("average_attn_weights", True) and owners:
        weight_axes[-3] = (owners[0],)
    return axes, tuple(weight_axes)
