"""Run a network in float64, regardless of the dtypes in its code.

Symmetries are certified to 1e-10 of the outputs, which is beyond float32. Casting parameters is not
enough: code may convert (`x.float()`), and constants that are neither parameters nor buffers keep
their dtype.
"""

from typing import Any

import torch
from torch import Tensor

from bnn_symm.torch_internals import OperationMode, tree_map

_WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
_CONVERSIONS = ("float", "half", "bfloat16")


class DoublePrecision(OperationMode):
    """While active, every operation takes and returns tensors in double precision."""

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the operation on wider arguments and widen what it returns."""
        name = getattr(func, "__name__", "")
        if name in _CONVERSIONS and args and isinstance(args[0], Tensor):
            return widened(args[0] if args[0].is_complex() else args[0].double())
        target = written_to(name, args, kwargs)
        if target is not None and target.dtype in _WIDE:
            return func(*args, **kwargs)  # a wider copy would lose the written values
        out = func(
            *_all_widened(args), **{key: _all_widened(value) for key, value in kwargs.items()}
        )
        return _all_widened(out)


def _all_widened(value: Any) -> Any:
    if isinstance(value, Tensor | torch.dtype | int | float | str) or value is None:
        return widened(value)
    plain = isinstance(value, tuple | list) and all(
        isinstance(item, Tensor | int | float) for item in value
    )
    if plain and not any(isinstance(item, Tensor) and item.dtype in _WIDE for item in value):
        return value  # as in most calls
    return tree_map(widened, value)


def widened(value: Any) -> Any:
    """Return a floating-point tensor or dtype in double precision, and anything else unchanged."""
    if isinstance(value, torch.dtype):
        return _WIDE.get(value, value)
    if type(value) in (Tensor, torch.nn.Parameter) and value.dtype in _WIDE:
        return value.to(_WIDE[value.dtype])
    return value


def written_to(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Return the tensor that an operation changes in place, if there is one.

    Args:
        name: name of the operation, such as `add_` or `__setitem__`.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
    """
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    in_place = (
        name == "__setitem__"
        or (name.endswith("_") and not name.endswith("__"))
        or kwargs.get("inplace") is True
    )
    return args[0] if in_place and args and isinstance(args[0], Tensor) else None
