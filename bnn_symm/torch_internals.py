"""What the package uses of torch beyond its documented interface, in one place.

Each function has a test, which fails if a version of torch changes what it relies on.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["OperationMode", "tree_leaves", "tree_map"]


class OperationMode(TorchFunctionMode, ABC):
    """While active, receives every operation on tensors in place of torch."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Pass the operation to `operate`."""
        return self.operate(func, args, kwargs or {})

    @abstractmethod
    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of an operation; `func` called here is not received again.

        Args:
            func: torch's function, or the descriptor of an attribute.
            args: positional arguments.
            kwargs: keyword arguments.
        """


def unobserved() -> AbstractContextManager[Any]:
    """Return a context in which no mode receives operations."""
    return torch._C.DisableTorchFunction()


def is_transformed(tensors: Sequence[Tensor]) -> bool:
    """Return whether the code is being compiled, or runs under a transform of `torch.func`.

    Args:
        tensors: the arguments of the transformed function.
    """
    return torch.compiler.is_compiling() or any(map(is_functorch_wrapped_tensor, tensors))


@contextmanager
def batchable_kernels(net: nn.Module) -> Iterator[None]:
    """Provide a context in which a network uses kernels that `torch.func.vmap` can batch.

    Fused kernels of attention and of recurrent layers have no batched form: `vmap` calls them once
    for each vector, and warns.

    Args:
        net: the network.
    """
    # Only where it is needed, because convolutions are faster with oneDNN. `mkldnn.flags` warns.
    enabled = torch._C._get_mkldnn_enabled()
    is_recurrent = any(isinstance(module, nn.RNNBase) for module in net.modules())
    torch._C._set_mkldnn_enabled(enabled and not is_recurrent)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def compile_keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of `torch.compile` that this version supports.

    Args:
        options: options of the compiler; unknown ones are left out.

    Returns:
        The options and, if possible, no guards: a call does not check its arguments, and each
        compiled function counts its own recompilations, whose number torch limits.
    """
    known = torch._inductor.list_options()
    kept = {name: value for name, value in options.items() if name in known}
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        return {"options": kept}
    if hasattr(torch.compiler, "skip_all_guards_unsafe"):
        kept["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    return {"options": kept, "isolate_recompiles": True}


def mark_first_axis_dynamic(tensor: Tensor) -> None:
    """Let compiled code take any length of at least 2 of the first axis of a tensor.

    Args:
        tensor: an argument of the first call.
    """
    torch._dynamo.mark_dynamic(tensor, 0)


# One call of a compiled kernel: the function, and its arguments.
KernelCall = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def record_kernels(call: Callable[[], Any]) -> list[KernelCall]:
    """Run compiled code on the CPU, and return the kernels that it calls.

    Most of the time of a small compiled function is spent on everything but its kernels: on Dynamo,
    on checks, and on new tensors for every intermediate value. Called again with the same
    arguments, the kernels alone do the same, in the same tensors. This is the idea of CUDA graphs.
    The caller should verify it.

    Args:
        call: calls functions that have been compiled by a former call.

    Returns:
        The kernels in the order of their calls; empty if the code has other operations.
    """
    calls: list[KernelCall] = []
    others: list[str] = []

    class Recorded:
        def __init__(self, function: Callable[..., Any]):
            self._function = function

        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            calls.append((self._function, arguments, keywords))
            result = self._function(*arguments, **keywords)
            if result is not None and "out" not in keywords:
                others.append("a new tensor")
            return result

    class Products:
        def __init__(self, kernels: Any):
            self._kernels = kernels

        def __getattr__(self, name: str) -> Any:
            return Recorded(getattr(self._kernels, name))

    class Torch:
        def __getattr__(self, name: str) -> Any:
            if name == "ops":
                others.append(name)
            return getattr(torch, name)

    # Imported here, as the compiler takes seconds to import, and what does not compile is quicker.
    from torch._inductor.codecache import PyCodeCache

    # The generated modules have a function `call`. It allocates tensors, and calls kernels, which
    # are functions of the module, products of matrices, and, as a last resort, torch's operations.
    # The results of convolutions and of torch's operations are in new tensors each time.
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for module in getattr(PyCodeCache, "modules", ()):
        names = vars(module)
        if "call" not in names:
            continue
        for name, value in list(names.items()):
            if name.startswith("cpp_fused"):
                names[name] = Recorded(value)
            elif name == "extern_kernels":
                names[name] = Products(value)
            elif value is torch:
                names[name] = Torch()
            else:
                continue
            replaced.append((names, name, value))
    try:
        call()
    finally:
        for names, name, value in replaced:
            names[name] = value
    return [] if others else calls
