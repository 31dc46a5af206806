"""Compilation of functions of tensors, with a warning and a fallback if it is not possible."""

import functools
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bnn_symm.torch_internals import compile_keywords, mark_first_axis_dynamic

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


def _warn(name: str, reason: str) -> None:
    warnings.warn(
        f"{name} runs uncompiled and slower: {reason[:200]}", CompilerWarning, stacklevel=3
    )
