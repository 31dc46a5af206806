"""Trace a forward pass: observe every operation, and label its result by the rule of the operation.

The pass runs unmodified on real tensors, so control flow, views and modules of any author are
supported. A rule is a function `rule(tracer, out, *args, **kwargs)`, called with the result and the
arguments of the operation; it returns the labels of the result. An operation without a rule is an
error that names it and the line, unless no argument can be permuted.

An axis of one entry that broadcasts, or that a reshape drops, does not end there: from then on its
flip and its factor act on the whole tensor. The tensor *carries* its label, until an operation that
commutes with some flips only.

Tensors that no operation of the pass has produced are constants. Where the entries of a constant
are equal along an axis, units that meet it may still be permuted. Elsewhere the constant
distinguishes units. That does not prove that no permutation of them is a symmetry, so they are
frozen.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.advice import advise
from bnn_symm.errors import SymmetryError, one_line
from bnn_symm.symmetry.tracing.axis_labels import Labels
from bnn_symm.symmetry.tracing.axis_segments import CannotDerive, Label
from bnn_symm.symmetry.tracing.precision import written_to
from bnn_symm.symmetry.tracing.source_lines import calling_line, calling_position
from bnn_symm.torch_internals import OperationMode, is_transformed, tree_leaves, unobserved

Axes = tuple[Label, ...]
Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""Name of an operation -> its rule; the modules in `rules` register them."""

CARRYING: set[str] = set()
"""Operations whose result carries the labels of its arguments: it flips and rescales with them."""

NEVER_FLIPPING = {
    "softmax",
    "log_softmax",
    "softmin",
    "logsumexp",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "argmin",
}
"""Operations that do not carry labels, and whose flipped arguments no later flip can undo."""

# Functions that torch dispatches to one of two implementations, and whose own name is generic.
_DISPATCHED = {
    getattr(F, name): name
    for name in (
        *(
            f"{kind}_pool{d}d"
            for kind in ("max", "adaptive_max", "fractional_max")
            for d in (1, 2, 3)
        ),
    )
    if hasattr(F, name)
}
# Results of these operations on a parameter still count as the parameter (`SymmetryTracer.rank`).
_VIEWS = (
    "view",
    "reshape",
    "unsqueeze",
    "squeeze",
    "flatten",
    "expand",
    "t",
    "T",
    "transpose",
    "to",
    "__getitem__",
)
# Operations whose results have the shape of a tensor, and values of their own.
CONSTANTS = (
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
)
# Operations whose result has an axis with entries of each argument.
_JOINING = ("cat", "concat", "concatenate")
# Operations that leave the slices of an axis apart.
_SLICING = {"permute", "transpose", "unbind", "select", "__getitem__", "contiguous", "detach"}
# Operations whose results do not depend on the values of a tensor.
_METADATA = {
    *(
        "size",
        "shape",
        "dim",
        "ndim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "storage_offset",
        "element_size",
    ),
    *(
        "__len__",
        "dtype",
        "device",
        "layout",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "is_leaf",
        "grad",
    ),
    *(
        "requires_grad",
        "grad_fn",
        "is_cuda",
        "is_cpu",
        "is_mps",
        "is_meta",
        "is_sparse",
        "is_nested",
        "is_quantized",
    ),
    *(
        "__hash__",
        "__repr__",
        "__format__",
        "_version",
        "_is_view",
        "_base",
        "is_inference",
        "is_conj",
        "is_neg",
        "is_signed",
        "get_device",
    ),
    *(
        "is_same_size",
        "has_names",
        "names",
        "data_ptr",
        "untyped_storage",
        "is_tensor",
        "result_type",
        "itemsize",
    ),
    *(
        "nbytes",
        "is_nonzero_static",
        "is_shared",
        "is_pinned",
        "retains_grad",
        "_backward_hooks",
        "dense_dim",
    ),
}


def rule(*names: str, carries: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule under the names of an operation: function, method and in-place method.

    Args:
        names: names of the operation in torch.
        carries: whether the result flips and rescales as a whole when an argument does.

    Returns:
        A decorator that returns the rule unchanged.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = function
            if carries:
                CARRYING.add(name)
        return function

    return register


class SymmetryTracer(OperationMode):
    """While active, labels the result of every operation.

    Args:
        labels: the nodes.
        leaves: name -> parameter or buffer; each axis starts with a label of its own.
        trainable: names of the leaves that may take any value.
        inputs: the points, and buffers that are inputs of the function too.
        net: the network whose modules messages name.
        hold: whether the units that an operation without a rule reads are kept in place, in place
            of an error.
    """

    def __init__(
        self,
        labels: Labels,
        leaves: Mapping[str, Tensor],
        trainable: Collection[str],
        inputs: Sequence[Tensor],
        net: nn.Module,
        *,
        hold: bool = False,
    ) -> None:
        super().__init__()
        self._hold = hold
        self.labels = labels
        self.read: set[str] = set()
        self.unknown: list[str] = []
        self._net = net
        self._names = {id(value): name for name, value in leaves.items()}
        self._leaves = set(self._names)
        self._untrained = {id(value) for name, value in leaves.items() if name not in trainable}
        # Tensors are kept alive, since labels are stored by the identity of the tensor.
        self._axes: dict[int, tuple[Tensor, Axes | str]] = {}
        self._carried: dict[int, tuple[Label, ...]] = {}
        # Tensors that move with no unit, and whether they are frozen rather than tied to inputs.
        self._tied: dict[int, tuple[Tensor, bool]] = {id(value): (value, False) for value in inputs}
        # Memory that was changed through another tensor, with the labels of what was written; and
        # tensors there that were labeled before.
        self._written: dict[int, tuple[Tensor, list[Label]]] = {}
        self._stale: dict[int, list[Label]] = {}
        self._constants: dict[int, Axes] = {}  # axes of the constants in one operation
        self._passed_on: list[Label] = []  # labels that the result of one operation carries
        self._escaped = False  # inputs have left torch, and may return as constants
        labels.locate = calling_line
        self._numbers: dict[int, tuple[Label, ...]] = {}
        for value in leaves.values():
            fresh = (
                labels.fixed
                if value.numel() == 1 and id(value) in self._untrained
                else labels.fresh
            )
            self._axes[id(value)] = (value, tuple(fresh(size) for size in value.shape))
            if value.dim() == 0:
                self._carried[id(value)] = self._numbers[id(value)] = (fresh(1),)

    # -- interface of the rules

    def axes(self, tensor: Tensor) -> Axes:
        """Return the labels of a tensor's axes; those of a constant are fixed or neutral."""
        stale = self._stale.pop(id(tensor), None) or self._overwritten(tensor)
        if stale is not None:
            # Which entries have changed is not known, so that the units of all stay in place.
            for label in stale:
                self.labels.freeze(label)
            if id(tensor) not in self._axes:
                fixed = [self.labels.fixed(size, frozen=True) for size in tensor.shape]
                target = self._written[tensor.untyped_storage().data_ptr()][0]
                is_same = target.shape == tensor.shape and id(target) in self._axes
                self.label(tensor, self.axes(target) if is_same else fixed)
        entry = self._axes.get(id(tensor))
        if entry is not None:
            if isinstance(entry[1], str):
                raise CannotDerive(entry[1])
            return entry[1]
        tied = self._tied.get(id(tensor)) or self._tied.get(id(tensor._base))
        if tied is not None:
            return tuple(
                self.labels.neutral(size)
                if size > 1 and tensor.stride(dim) == 0
                else self.labels.fixed(size, frozen=tied[1] or self._are_equal(tensor, dim))
                for dim, size in enumerate(tensor.shape)
            )
        if id(tensor) not in self._constants:
            self._constants[id(tensor)] = self.constant_axes(tensor)
        return self._constants[id(tensor)]

    @staticmethod
    def _are_equal(tensor: Tensor, dim: int) -> bool:
        """Return whether the entries along an axis are equal, as after a copy of one of them."""
        return tensor.shape[dim] > 1 and bool((tensor == tensor.narrow(dim, 0, 1)).all())

    def constant_axes(self, tensor: Tensor) -> Axes:
        """Return the labels of a constant tensor, neutral along axes of equal entries."""
        zero = not self._escaped and not bool(tensor.any())
        axes = []
        for dim, size in enumerate(tensor.shape):
            equal = zero or (
                not self._escaped and size > 0 and bool((tensor == tensor.narrow(dim, 0, 1)).all())
            )
            if size == 1:
                axes.append(self.labels.fixed(1))
            else:
                axes.append(
                    self.labels.neutral(size, zero=zero)
                    if equal
                    else self.labels.fixed(size, frozen=True)
                )
        return tuple(axes)

    def separate_rows(self, tensor: Tensor, number: int) -> None:
        """Give pieces of a parameter's rows classes of their own, unless they have been read.

        Args:
            tensor: the parameter; other tensors are left unchanged.
            number: number of equal pieces.
        """
        if id(tensor) in self._names:
            first, *rest = self.axes(tensor)
            self.label(tensor, (self.labels.separated(first, number), *rest))

    def axis(self, tensor: Tensor, dim: int) -> Label:
        """Return the label of one axis."""
        return self.axes(tensor)[dim]

    def depends_on_inputs(self, tensor: Tensor) -> bool:
        """Return whether a tensor is computed from the inputs, and from no hidden unit."""
        tied = self._tied.get(id(tensor)) or self._tied.get(id(tensor._base))
        return tied is not None and not tied[1]

    def is_leaf(self, tensor: Any) -> bool:
        """Return whether a tensor is a parameter or buffer, or a view of one."""
        return id(tensor) in self._leaves

    def rank(self, tensor: Any) -> int:
        """Return 0 for a computed tensor, 1 for a parameter, 2 for what depends on constants only.

        Of two factors that may change, that of the higher rank is fixed to the identity.
        """
        return 2 if id(tensor) in self._untrained else int(self.is_leaf(tensor))

    def is_hidden(self, tensor: Any) -> bool:
        """Return whether any entry of a tensor might be permuted, flipped or rescaled."""
        if not isinstance(tensor, Tensor):
            return False
        if id(tensor) not in self._axes:
            return self._overwritten(tensor) is not None
        entry = self._axes[id(tensor)][1]
        return (
            isinstance(entry, str)
            or id(tensor) in self._stale
            or any(map(self.labels.is_hidden, (*entry, *self.carried(tensor))))
        )

    def _has_units(self, tensor: Tensor) -> bool:
        """Return whether any entry of a tensor is that of a unit, and not just equal to others."""
        entry = self._axes.get(id(tensor))
        if entry is None or isinstance(entry[1], str) or id(tensor) in self._stale:
            return self.is_hidden(tensor)
        return any(
            not self.labels.is_pinned(part) and not self.labels.is_neutral((part,))
            for label in (*entry[1], *self.carried(tensor))
            for part in self.labels.resolve(label)
        )

    def all_labels(self, tensor: Tensor) -> Axes:
        """Return the labels of a leaf's axes, and for a scalar the label of its sign."""
        return (*self.axes(tensor), *self._numbers.get(id(tensor), ()))

    def forbid(self, tensor: Tensor, why: str) -> None:
        """Make any later use of a tensor an error."""
        self._axes[id(tensor)] = (tensor, why)

    def label(self, tensor: Tensor, axes: Sequence[Label], carried: Sequence[Label] = ()) -> None:
        """Assign labels to a tensor."""
        assert [self.labels.size(label) for label in axes] == list(tensor.shape), (
            axes,
            tensor.shape,
        )
        self.labels.keep_unselected(axes)
        if not self.is_leaf(tensor):
            for label in (*axes, *carried):
                self.labels.mark_computed(label)
        self._axes[id(tensor)] = (tensor, tuple(axes))
        self._carried[id(tensor)] = tuple(carried)
        self._tied.pop(id(tensor), None)

    # -- axes of one entry

    def carried(self, tensor: Any) -> tuple[Label, ...]:
        """Return the labels of dropped axes of one entry whose factors act on the whole tensor."""
        return self._carried.get(id(tensor), ())

    def drop(self, tensor: Tensor, label: Label) -> None:
        """Drop an axis of one entry; the result of this operation carries its label."""
        if self.labels.is_fixed(label):
            return
        if self.is_leaf(tensor) and self._flips_otherwise(tensor, label):
            self.labels.pin(label)  # the same as flipping all entries of its other axis
            self.labels.fix_to_identity(label)
        else:
            self._passed_on.append(label)

    def passed_on(self) -> list[Label]:
        """Return the labels that this operation's result carries so far; a rule may modify them."""
        return self._passed_on

    def end(self, tensor: Tensor, label: Label) -> None:
        """End the label of an axis of one entry, so that it neither flips nor is rescaled.

        Where it is the only label that may flip in its tensor, that is proved. With others, the
        product of two flips may be a symmetry, and it is not searched.
        """
        self.labels.end(label, proved=not self._is_unproved(tensor, label))

    def end_carried(self, tensor: Any, *, proved: bool = True) -> None:
        """End the labels that a tensor carries before an operation that does not commute.

        Args:
            tensor: any value.
            proved: whether the operation is known to commute with no flip.
        """
        carried = [label for label in self.carried(tensor) if not self.labels.is_fixed(label)]
        unproved = [not proved or self._is_unproved(tensor, label) for label in carried]
        self._carried.pop(id(tensor), None)
        for label, is_unproved in zip(carried, unproved, strict=True):
            self.labels.end(label, proved=not is_unproved)

    def flips(self, tensor: Any) -> bool:
        """Return whether any axis of a tensor may change sign."""
        if (
            not isinstance(tensor, Tensor)
            or id(tensor) not in self._axes
            or id(tensor) in self._untrained
        ):
            return False
        return any(map(self.labels.flips, (*self.axes(tensor), *self.carried(tensor))))

    def mark_factor_flips_unsearched(self, x: Tensor, y: Tensor) -> None:
        """Mark flips of two factors that may flip as a whole, by all entries of an axis of each.

        A factor of one entry is tracked further; if it ends, the flips of the other factor might
        cancel it.
        """
        if self.flips(x) and self.flips(y):
            flipping = [
                [label for label in self.axes(t) if self.labels.flips(label)] for t in (x, y)
            ]
            whole = [[label for label in axes if self.labels.size(label) > 1] for axes in flipping]
            if all(whole):
                for label in (*whole[0], *whole[1]):
                    self.labels.mark_flips_unsearched(label)
        for value, other in ((x, y), (y, x)):
            if value.numel() == 1 and self.flips(value) and self.depends_on_parameters(other):
                for label in (*self.axes(value), *self.carried(value)):
                    self.labels.mark_shared(label)

    def depends_on_parameters(self, tensor: Tensor) -> bool:
        """Return whether a tensor is computed from parameters."""
        return (
            id(tensor) in self._axes
            and not self.is_leaf(tensor)
            and id(tensor) not in self._untrained
        )

    def _is_unproved(self, tensor: Tensor, label: Label) -> bool:
        return (
            self.labels.flips(label)
            and not self.is_leaf(tensor)
            and self._flips_otherwise(tensor, label)
        )

    def _flips_otherwise(self, tensor: Tensor, label: Label) -> bool:
        others = [*self.axes(tensor), *self.carried(tensor)]
        return any(self.labels.flips(other) for other in others if other is not label)

    # -- tracing

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operation and label its result."""
        name = _name(func)
        if name in _METADATA:
            return func(*args, **kwargs)
        target = written_to(getattr(func, "__name__", ""), args, kwargs)
        self._constants.clear()
        with unobserved():
            if target is not None and not is_transformed([target]) and not self._is_tied(target):
                self._constants[id(target)] = self.constant_axes(target)  # before it changes
        out = func(*args, **kwargs)
        with unobserved():
            self._record(name, target, out, args, kwargs)
        return out

    def _record(
        self,
        name: str,
        target: Tensor | None,
        out: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        outputs = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        if name == "__setitem__":
            outputs = [args[0]]
        if is_transformed(inputs):
            raise SymmetryError(
                f"operation {name!r} {calling_position(self._net)} runs inside a transform of "
                "torch.func, such as vmap, where single operations are not observed: symmetries "
                "cannot be derived; write the operation for whole batches, such as with einsum"
            )
        if name in CONSTANTS and len(inputs) == 1:
            return
        if any(self.is_hidden(value) for value in inputs):
            self.read |= {self._names[id(value)] for value in inputs if id(value) in self._names}
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
            self._label(name, out, inputs, outputs, args, kwargs)
            if target is not None:
                self._write(target)
        elif any(self._is_tied(value) for value in inputs):
            self._record_without_units(name, out, inputs, outputs, args, kwargs)

    def _record_without_units(
        self,
        name: str,
        out: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
        args: Any,
        kwargs: dict[str, Any],
    ) -> None:
        """Tie the result of an operation to the inputs, unless it has parts that are constant."""
        joins = name in _JOINING and not all(map(self._is_tied, inputs))
        appends = name == "pad" and pads_features(args, kwargs)
        if name in ("fill_", "zero_") and len(inputs) == 1:
            self._forget(inputs[0])
        elif joins or appends or any(map(self._has_equal_entries, inputs)):
            self._label(name, out, inputs, outputs, args, kwargs)
        else:
            is_partial = name == "__setitem__" and not self._is_proved(args[0])
            self._tie(outputs, inputs, frozen=is_partial)
            self._escaped = self._escaped or not outputs

    def _forget(self, tensor: Tensor) -> None:
        """Make a tensor a constant, whose values are looked at where it is used."""
        self._axes.pop(id(tensor), None)
        self._carried.pop(id(tensor), None)
        self._tied.pop(id(tensor), None)

    def _is_proved(self, tensor: Tensor) -> bool:
        """Return whether a tensor is computed from inputs, each entry of which is distinguished."""
        return id(tensor) in self._tied and not self._tied[id(tensor)][1]

    def _label(
        self,
        name: str,
        out: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
        args: Any,
        kwargs: dict[str, Any],
    ) -> None:
        """Apply the rule of an operation."""
        self._freeze_slices(name, inputs)
        known = RULES.get(name) or RULES.get(name.removesuffix("_"))
        has_units = any(id(v) not in self._untrained and self._has_units(v) for v in inputs)
        if not outputs or (known is None and not has_units):
            self._freeze(name, inputs, outputs)
            return
        if known is None:
            self._refuse(
                name,
                f"no rule for the operation {name!r} {calling_position(self._net)}: the "
                "permutation symmetries of this network cannot be derived; use operations that "
                "have a rule, register one with bnn_symm.symmetry.tracing.tracer.rule, or keep the "
                f"units that it reads in place with {advise('--hold', 'hold=True')}",
            )
            self._freeze(name, inputs, outputs)
            return
        try:
            self._passed_on = []
            for value in {id(value): value for value in inputs}.values():
                if name in CARRYING or name.removesuffix("_") in CARRYING:
                    self._passed_on += self.carried(value)
                else:
                    self.end_carried(value, proved=name in NEVER_FLIPPING)
            try:
                axes = known(self, out, *args, **kwargs)
            except (TypeError, KeyError, IndexError) as error:  # arguments that no rule knows
                raise CannotDerive(f"arguments of this form ({one_line(error, 80)})") from error
        except CannotDerive as error:
            if not has_units:
                self._freeze(name, inputs, outputs)
                return
            self._refuse(
                name,
                f"operation {name!r} {calling_position(self._net)}: {error}; symmetries cannot be "
                f"derived; {advise('--hold', 'hold=True')} keeps the units that it reads in place",
            )
            self._freeze(name, inputs, outputs)
            return
        untrained = all(
            id(value) in self._untrained or not self._is_tied(value) for value in inputs
        )
        if isinstance(out, Tensor):
            axes = (axes,)
            if name in _VIEWS and self.is_leaf(inputs[0]):
                self._leaves.add(id(out))
        for value, value_axes in zip(outputs, axes, strict=True):
            if value_axes is not None:
                self.label(value, value_axes, self._passed_on)
                if untrained:
                    self._untrained.add(id(value))

    def _refuse(self, name: str, message: str) -> None:
        """Refuse to derive, unless units that an operation reads are to be kept in place."""
        if not self._hold:
            raise SymmetryError(message) from None
        if name not in self.unknown:
            self.unknown.append(name)

    def _freeze_slices(self, name: str, inputs: list[Tensor]) -> None:
        """Freeze axes whose slices have units of their own, unless the operation is a view."""
        if name in _SLICING:
            return
        for value in inputs:
            entry = self._axes.get(id(value))
            if entry is not None and not isinstance(entry[1], str):
                for label in entry[1]:
                    if self.labels.has_slices(label):
                        self.labels.freeze(label)

    def _freeze(self, name: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Freeze the hidden units of the inputs, whose values leave what labels can track."""
        for value in inputs:
            if self.is_hidden(value):
                try:
                    axes = self.axes(value)
                except CannotDerive as error:
                    raise SymmetryError(
                        f"operation {name!r} {calling_position(self._net)}: {error}; symmetries "
                        "cannot be derived"
                    ) from None
                for label in (*axes, *self.carried(value)):
                    self.labels.freeze(label)
        self._tie(outputs, inputs, frozen=True)

    def _is_tied(self, tensor: Tensor) -> bool:
        """Return whether a tensor's values depend on inputs, parameters or buffers."""
        return (
            id(tensor) in self._axes
            or id(tensor) in self._tied
            or self._overwritten(tensor) is not None
        )

    def _tie(self, outputs: list[Tensor], inputs: list[Tensor], *, frozen: bool = False) -> None:
        """Mark results that move with no unit; they are frozen if they come from buffers alone."""
        tied = [value for value in inputs if self._is_tied(value)]
        frozen = frozen or all(
            id(v) in self._untrained or (id(v) in self._tied and self._tied[id(v)][1]) for v in tied
        )
        for value in outputs:
            self._forget(value)
            self._tied[id(value)] = (value, frozen)
            base = value._base
            if base is not None and id(base) not in self._axes:
                is_partial = not self._is_proved(base) and value.numel() < base.numel()
                self._tied[id(base)] = (base, frozen or is_partial)

    def _has_equal_entries(self, tensor: Tensor) -> bool:
        """Return whether a labeled tensor has entries that are equal along an axis."""
        entry = self._axes.get(id(tensor))
        if entry is None or isinstance(entry[1], str):
            return False
        return any(
            self.labels.is_neutral((part,))
            for label in entry[1]
            for part in self.labels.resolve(label)
        )

    def _write(self, target: Tensor) -> None:
        """Mark other tensors of the same memory, which have changed along with a tensor."""
        memory = target.untyped_storage().data_ptr()
        written = [*self.axes(target), *self.carried(target)]
        before = self._written.get(memory)
        every = written if before is None else [*before[1], *written]
        for value, axes in list(self._axes.values()):
            if value is not target and value.untyped_storage().data_ptr() == memory:
                own = [] if isinstance(axes, str) else [*axes, *self.carried(value)]
                self._stale[id(value)] = [*self._stale.get(id(value), []), *every, *own]
        self._written[memory] = (target, every)

    def _overwritten(self, tensor: Tensor) -> list[Label] | None:
        if not self._written or id(tensor) in self._axes or id(tensor) in self._tied:
            return None
        entry = self._written.get(tensor.untyped_storage().data_ptr())
        return None if entry is None else entry[1]


def pads_features(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether `torch.nn.functional.pad` appends constants to the features of points.

    Features are the last of two or three axes, and else the second.

    Args:
        args: positional arguments of the operation.
        kwargs: keyword arguments of the operation.
    """
    widths = args[1] if len(args) > 1 else kwargs["pad"]
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    place = 0 if args[0].dim() <= 3 else 2 * (args[0].dim() - 2)
    return mode == "constant" and any(widths[place : place + 2])


def _name(func: Any) -> str:
    if func in _DISPATCHED:
        return _DISPATCHED[func]
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # a property, such as x.T
        return getattr(getattr(func, "__self__", None), "__name__", name)
    return name
