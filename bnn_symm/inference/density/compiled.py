"""Compilation of functions of tensors, with a warning and a fallback if it is not possible."""

import functools
import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

_OPTIONS = {
    # tanh by one exponential is six times as fast as its series, with the same absolute accuracy.
    "cpp.use_decompose_tanh": True,
    # All calls have arguments of the same shapes, so no call needs these checks.
    "size_asserts": False,
    "alignment_asserts": False,
}
_COMPILE_KEYWORDS = inspect.signature(torch.compile).parameters


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
            known = torch._inductor.list_options()
            keywords: dict[str, Any] = {
                "options": {name: on for name, on in _OPTIONS.items() if name in known}
            }
            if "isolate_recompiles" in _COMPILE_KEYWORDS:
                # Each instance counts its own recompilations, because torch limits their number and
                # a process may run many fits.
                keywords["isolate_recompiles"] = True
                if hasattr(torch.compiler, "skip_all_guards_unsafe"):
                    keywords["options"]["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
            # Sizes are constants, except for those marked as dynamic.
            self._compiled = torch.compile(function, fullgraph=True, dynamic=False, **keywords)
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
                torch._dynamo.mark_dynamic(arguments[number], 0)
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
