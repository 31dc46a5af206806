"""Compilation of functions of tensors, with a warning and a fallback if it is not possible."""

import functools
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bnn_symm.torch_internals import (
    KernelCall,
    compile_keywords,
    mark_first_axis_dynamic,
    record_kernels,
)

_OPTIONS = {
    # tanh by one exponential is six times as fast as its series, with the same absolute accuracy.
    "cpp.use_decompose_tanh": True,
    # All calls have arguments of the same shapes, so no call needs these checks.
    "size_asserts": False,
    "alignment_asserts": False,
}


class CompilerWarning(UserWarning):
    """Warns that a function runs uncompiled: slower, with the same results up to rounding."""


@functools.cache
def has_compiler() -> bool:
    """Return whether there is a C++ compiler, which `torch.compile` needs on the CPU."""
    return any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name
    )


class Compiled:
    """A function that is compiled at its first call, for the arguments of that call.

    All later calls must have arguments of the same shapes, dtypes and devices. There are no guards,
    because checking them takes longer than small networks take. torch caches compiled code on disk,
    so a second process with the same shapes only reads it. If there is no compiler, or it fails, a
    warning is issued and the function runs uncompiled. It must not draw random numbers.

    Args:
        function: a function of tensors, which may modify them in place.
        name: its name in the warning.
        dynamic_arguments: positions of arguments whose first axis varies from call to call. Its
            length must be at least 2.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, *, dynamic_arguments: Sequence[int] = ()
    ):
        self._function = function
        self._name = name
        self._dynamic_arguments = dynamic_arguments
        self._compiled: Callable[..., Any] | None = None
        if has_compiler():
            # Sizes are constants, except for those marked as dynamic.
            self._compiled = torch.compile(
                function, fullgraph=True, dynamic=False, **compile_keywords(_OPTIONS)
            )
        else:
            _warn(name, "there is no C++ compiler; install g++ or clang++")
        self._works = False

    @property
    def is_compiled(self) -> bool:
        """Return whether calls run compiled code; it may still fail at the first call."""
        return self._compiled is not None

    def __call__(self, *arguments: Any) -> Any:
        """Return the result of the function."""
        if self._compiled is None:
            return self._function(*arguments)
        if self._works:
            return self._compiled(*arguments)
        try:
            for number in self._dynamic_arguments:
                mark_first_axis_dynamic(arguments[number])
            result = self._compiled(*arguments)
            self._works = True
            return result
        except Exception as error:
            result = self._function(*arguments)  # raises an error of the function itself unchanged
            _warn(self._name, (str(error).strip().splitlines() or [type(error).__name__])[0])
            self._compiled = None
            return result


class Replayed:
    """A function that modifies tensors in place, always the same ones, and is called many times.

    If it is compiled, for the CPU, the kernels of its second call are recorded. From then on only
    these are called, in the same memory. That takes a tenth of the time of a call of the compiled
    function where networks are small. The third call does both and compares the results. If any bit
    differs, or nothing was recorded, the function is called as before.

    Args:
        function: a function of tensors, which modifies them in place and returns nothing.
        tensors: its arguments in all calls.
    """

    def __init__(self, function: Callable[..., Any], tensors: Sequence[Tensor]):
        self._function, self._tensors = function, list(tensors)
        self._kernels: list[KernelCall] = []
        self.is_replayed = False
        on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
        self._calls_left = 2 if isinstance(function, Compiled) and on_cpu else -1

    def __call__(self) -> None:
        """Call the function with its tensors."""
        if self.is_replayed:
            for kernel, arguments, keywords in self._kernels:
                kernel(*arguments, **keywords)
            return
        if self._calls_left < 0 or not self._is_compiled():
            self._function(*self._tensors)
            return
        self._calls_left -= 1
        if self._calls_left == 1:
            self._function(*self._tensors)
        elif self._calls_left == 0:
            self._kernels = record_kernels(lambda: self._function(*self._tensors))
        else:
            self._verify()

    def _is_compiled(self) -> bool:
        return isinstance(self._function, Compiled) and self._function.is_compiled

    def _verify(self) -> None:
        """Replay the kernels, and call the function; keep the result of the function."""
        before = [tensor.clone() for tensor in self._tensors]
        for kernel, arguments, keywords in self._kernels:
            kernel(*arguments, **keywords)
        replayed = [tensor.clone() for tensor in self._tensors]
        for tensor, value in zip(self._tensors, before, strict=True):
            tensor.copy_(value)
        self._function(*self._tensors)
        self.is_replayed = bool(self._kernels) and all(
            tensor.numpy().tobytes() == value.numpy().tobytes()
            for tensor, value in zip(self._tensors, replayed, strict=True)
        )


def _warn(name: str, reason: str) -> None:
    warnings.warn(
        f"{name} runs uncompiled and slower: {reason[:200]}", CompilerWarning, stacklevel=3
    )
