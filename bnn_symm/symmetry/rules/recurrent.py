"""Rules of recurrent layers and their cells, where the gates of a unit move together.

The rows of a weight are those of its gates one below the other, each with the same units. A hidden
unit flips where its candidate is odd: the rows of the candidate flip, and the columns that read the
unit, while gates keep their signs. A relu unit is rescaled the same way.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bnn_symm.symmetry.rules.shapes import cut_axis
from bnn_symm.symmetry.tracing.axis_segments import CannotDerive, Label
from bnn_symm.symmetry.tracing.tracer import Axes, SymmetryTracer, rule

# Kind of layer -> its gates, and the number of the one that is the candidate of the new state.
_GATES = {"lstm": (4, 2), "gru": (3, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}


def _layer(
    tracer: SymmetryTracer, kind: str, read: Label, state: Label, weights: Sequence[Tensor]
) -> tuple[Label, Label]:
    """Relate the weights of one layer; return the labels of its new state and of its cells.

    Args:
        tracer: the tracer of this pass.
        kind: a key of `_GATES`.
        read: label of the features that the layer reads.
        state: label of the hidden state that it reads.
        weights: of the input and of the state; then perhaps two biases; then perhaps the projection
            of the new state.
    """
    labels, (gates, candidate) = tracer.labels, _GATES[kind]
    projection = weights[-1] if len(weights) in (3, 5) else None
    cells: Label | None = None
    for tensor in weights[:-1] if projection is not None else weights:
        tracer.separate_rows(tensor, gates)
        rows = tracer.axis(tensor, 0)
        pieces = cut_axis(tracer, rows, [labels.size(rows) // gates] * gates)
        for piece in pieces:
            if piece is not pieces[candidate]:
                labels.align(piece, pieces[candidate])
                labels.fix_to_identity(piece)
        labels.fix_to_identity(pieces[candidate], sign=False, scale=kind != "rnn_relu")
        labels.fix_to_identity(pieces[candidate], sign=kind == "rnn_relu", scale=False)
        cells = pieces[candidate] if cells is None else labels.same(cells, pieces[candidate])
    assert cells is not None
    labels.contract(read, tracer.axis(weights[0], 1))
    labels.contract(state, tracer.axis(weights[1], 1))
    units = cells
    if projection is not None:
        labels.contract(cells, tracer.axis(projection, 1))
        units = tracer.axis(projection, 0)
    labels.mark_computed(labels.same(units, state))
    return labels.resolve(units), labels.resolve(cells)


def _register(kind: str) -> None:
    @rule(kind)
    def _recurrent(
        tracer: SymmetryTracer,
        out: Any,
        x: Tensor,
        states: Any,
        weights: Any,
        has_biases: Any,
        num_layers: Any,
        *args: Any,
    ) -> list[Axes]:
        if not isinstance(num_layers, int) or isinstance(num_layers, bool):
            raise CannotDerive("a recurrent layer of packed sequences")
        first, *_ = [states] if isinstance(states, Tensor) else states
        directions = 2 if args[2] else 1
        number = num_layers * directions
        if number > 1 and tracer.is_hidden(first):
            raise CannotDerive("first states of several recurrent layers that are computed")
        size, read = len(weights) // number, tracer.axis(x, -1)
        found = []
        for layer in range(num_layers):
            here = []
            for direction in range(directions):
                start = (layer * directions + direction) * size
                state = tracer.constant_axes(first) if number > 1 else tracer.axes(first)
                own = weights[start : start + size]
                here.append(_layer(tracer, kind, read, state[-1], own))
            read = tuple(part for units, _ in here for part in units)
            found += here
        axes: list[Axes] = [(*tracer.axes(x)[:-1], read)]
        for which, state in enumerate(out[1:]):
            axes.append(_last_states(tracer, state, [labels[which] for labels in found]))
        return axes

    @rule(f"{kind}_cell")
    def _cell(tracer: SymmetryTracer, out: Any, x: Tensor, state: Any, *weights: Any) -> Any:
        states = [state] if isinstance(state, Tensor) else list(state)
        own = [tensor for tensor in weights if tensor is not None]
        read = tracer.axis(x, -1)
        units, cells = _layer(tracer, kind, read, tracer.axis(states[0], -1), own)
        if len(states) > 1:
            cells = tracer.labels.same(cells, tracer.axis(states[1], -1))
        batch = tracer.axes(x)[:-1]
        return (*batch, units) if isinstance(out, Tensor) else ((*batch, units), (*batch, cells))


def _last_states(tracer: SymmetryTracer, state: Tensor, found: list[Label]) -> Axes:
    """Return the axes of the last states of all layers, each of which has units of its own."""
    labels = tracer.labels
    batch = [labels.fixed(size) for size in state.shape[1:-1]]
    if len(found) == 1:
        return (labels.fixed(1), *batch, found[0])
    if any(len(label) > 1 for label in found):
        for label in found:
            labels.freeze(label)
        return (labels.fixed(len(found)), *batch, labels.fixed(state.shape[-1], frozen=True))
    parts = [label[0] for label in found]
    return (labels.stacked(parts, len(parts)), *batch, labels.stacked(parts, state.shape[-1]))


for _kind in _GATES:
    _register(_kind)
