"""Compilation of a function of tensors, with one line and the function itself where it cannot be
had.
"""

import functools
import inspect
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

_OPTIONS = {
    # tanh by one exponential: six times as fast as by its own series, and as accurate in absolute
    # terms.
    "cpp.use_decompose_tanh": True,
    # Arguments are always alike, so nothing has to be looked at anew in every call.
    "size_asserts": False,
    "alignment_asserts": False,
}
_COMPILE_KEYWORDS = inspect.signature(torch.compile).parameters


class CompilerWarning(UserWarning):
    """Something runs uncompiled: to the same results up to rounding, but slower."""


@functools.cache
def has_compiler() -> bool:
    """Whether there is a C++ compiler, which `torch.compile` needs on the CPU."""
    return any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name
    )


class Compiled:
    """A function that is compiled when it is first called, for the arguments that it gets then.

    All later calls must have arguments of the same shapes, dtypes and devices, for nothing looks:
        to check what a
    compiled function depends on took longer than small networks take. torch keeps what it compiles
    on disk, so a second process with the same shapes only reads it. Where there is no compiler, or
    it fails, a warning says so in one line and the function runs as it is. Nothing random may
    happen in it.

    Args:
        function: of tensors; it may change them in place.
        name: what the warning calls it.
        dynamic_arguments: numbers of the arguments whose first axis differs from call to call; it must
            be 2 or more.
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
                # Each of these counts its own recompilations: torch has a limit, and a process may
                # make many fits.
                keywords["isolate_recompiles"] = True
                if hasattr(torch.compiler, "skip_all_guards_unsafe"):
                    keywords["options"]["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
            # Sizes are constants, but for those that are marked.
            self._compiled = torch.compile(function, fullgraph=True, dynamic=False, **keywords)
        else:
            _warn(name, "there is no C++ compiler; install g++ or clang++")
        self._works = False

    def __call__(self, *arguments: Any) -> Any:
        """The function's result."""
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
            result = self._function(
                *arguments
            )  # an error of the function itself is raised here, as it is
            _warn(self._name, (str(error).strip().splitlines() or [type(error).__name__])[0])
            self._compiled = None
            return result


def _warn(name: str, reason: str) -> None:
    warnings.warn(
        f"{name} runs uncompiled, and slower: {reason[:200]}", CompilerWarning, stacklevel=3
    )
