"""Watching a forward pass: every operation is seen with its tensors, and its rule labels what comes out.

The pass runs as it is, on real tensors, so control flow, views and modules of any author are no obstacle. A rule is
a function `rule(watch, out, *args, **kwargs)`, called with what the operation returned and what it was called with;
it returns the labels of the result. An operation without a rule is an error that names it and the line, unless
nothing that it sees can be permuted.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry.labels import CannotDerive, Label, Labels

Axes = tuple[Label, ...]
Rule = Callable[..., Any]

RULES: dict[str, Rule] = {}
"""Name of an operation -> its rule; filled by the modules of rules."""

# Functions whose own name says nothing: torch chooses between two by an argument.
_DISPATCHED = {
    getattr(F, name): name
    for name in (*(f"{kind}_pool{d}d" for kind in ("max", "adaptive_max", "fractional_max") for d in (1, 2, 3)),)
    if hasattr(F, name)
}
# Of a parameter these are the parameter still, where it matters which of two factors is one.
_VIEWS = ("view", "reshape", "unsqueeze", "squeeze", "flatten", "expand", "t", "T", "transpose", "to", "__getitem__")
# Frames that are not the user's: this package, torch, and type checkers that wrap functions.
_OTHERS_CODE = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
_WRAPPERS = ("jaxtyping", "beartype")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names that torch gives an operation: function, method and in-place method."""

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = function
        return function

    return register


class Watch(TorchFunctionMode):
    """While active, labels every tensor that an operation makes.

    Args:
        labels: the nodes.
        leaves: name -> parameter or buffer; each axis starts with a label of its own.
    """

    def __init__(self, labels: Labels, leaves: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.labels = labels
        self.read: set[str] = set()
        self._names = {id(value): name for name, value in leaves.items()}
        self._leaves = set(self._names)
        # Tensors are kept alive, since a label goes by the identity of its tensor.
        self._axes: dict[int, tuple[Tensor, Axes | str]] = {}
        for value in leaves.values():
            self._axes[id(value)] = (value, tuple(labels.fresh(size) for size in value.shape))

    # -- what rules use -----------------------------------------------------------------------------------

    def axes(self, tensor: Tensor) -> Axes:
        """The labels of a tensor's axes; of a constant, all fixed."""
        entry = self._axes.get(id(tensor))
        if entry is None:
            return tuple(self.labels.fixed(size) for size in tensor.shape)
        if isinstance(entry[1], str):
            raise CannotDerive(entry[1])
        return entry[1]

    def axis(self, tensor: Tensor, dim: int) -> Label:
        """The label of one axis."""
        return self.axes(tensor)[dim]

    def is_leaf(self, tensor: Any) -> bool:
        """Whether it is a parameter or buffer itself, or a view of one."""
        return id(tensor) in self._leaves

    def is_hidden(self, tensor: Any) -> bool:
        """Whether any of its entries might be permuted."""
        if not isinstance(tensor, Tensor) or id(tensor) not in self._axes:
            return False
        entry = self._axes[id(tensor)][1]
        return isinstance(entry, str) or not all(self.labels.is_fixed(label) for label in entry)

    def forbid(self, tensor: Tensor, why: str) -> None:
        """Any later use of this tensor is an error."""
        self._axes[id(tensor)] = (tensor, why)

    def label(self, tensor: Tensor, axes: Sequence[Label]) -> None:
        """Gives a tensor its labels."""
        assert [self.labels.size(label) for label in axes] == list(tensor.shape), (axes, tensor.shape)
        self._axes[id(tensor)] = (tensor, tuple(axes))

    # -- watching -----------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the operation and labels its result."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        outputs = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        name = _name(func)
        written = name == "__setitem__" and any(self.is_hidden(value) for value in inputs)
        if not written and (not outputs or not any(self.is_hidden(value) for value in inputs)):
            return out
        if kwargs.get("out") is None:
            kwargs = {key: value for key, value in kwargs.items() if key != "out"}
        self.read |= {self._names[id(value)] for value in inputs if id(value) in self._names}
        known = RULES.get(name) or RULES.get(name.removesuffix("_"))
        if known is None:
            raise SymmetryError(
                f"no rule for the operation {name!r} at {_line()}: the permutation symmetries of this network cannot "
                f"be derived; use operations that have a rule, or register one with bnn_symm.symmetry.watch.rule"
            )
        try:
            axes = known(self, out, *args, **kwargs)
        except CannotDerive as error:
            raise SymmetryError(f"operation {name!r} at {_line()}: {error}; symmetries cannot be derived") from None
        if isinstance(out, Tensor):
            self.label(out, axes)
            if name in _VIEWS and self.is_leaf(inputs[0]):
                self._leaves.add(id(out))
        else:
            for value, own in zip(outputs, axes, strict=True):
                if own is not None:
                    self.label(value, own)
        return out


def _name(func: Any) -> str:
    if func in _DISPATCHED:
        return _DISPATCHED[func]
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # a property, such as x.T
        return getattr(getattr(func, "__self__", None), "__name__", name)
    return name


def _line() -> str:
    """The innermost line of the user's code."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith(_OTHERS_CODE) and not any(word in frame.filename for word in _WRAPPERS):
            return f"{frame.filename}:{frame.lineno} ({frame.line})"
    return "an unknown line"
