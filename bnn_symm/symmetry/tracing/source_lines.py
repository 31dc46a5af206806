"""Find the line of the user's network that an operation, or an error, comes from."""

import inspect
import linecache
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from bnn_symm import torch_internals
from bnn_symm.errors import one_line

_TORCH = str(Path(torch.__file__).parent)
_FUNCTIONAL_CALL = inspect.unwrap(functional_call).__code__.co_filename
_INTERNALS = (_TORCH, str(Path(__file__).parent.parent), str(torch_internals.__file__))
_WRAPPERS = ("jaxtyping", "beartype")
_LIBRARIES = (*site.getsitepackages(), sysconfig.get_paths()["stdlib"], str(Path(_TORCH).parent))
_CODE = 60
_PATH = 80

Position = tuple[FrameType, int]


def calling_position(net: nn.Module) -> str:
    """Return the line and the module of a network's forward pass that are being executed."""
    return _described(_calls(), net)


def calling_line() -> str | None:
    """Return the line of the user's own code that is being executed, such as `net.py:12`."""
    for frame, line in _calls():
        file = frame.f_code.co_filename
        if not file.startswith((*_INTERNALS, *_LIBRARIES, "<")):
            return f"{Path(file).name}:{line}"
    return None


def raising_position(error: BaseException, net: nn.Module) -> str:
    """Return the line and the module of a network's forward pass in which an error was raised."""
    return _described(reversed(list(_raised(error.__traceback__))), net)


def _calls() -> Iterator[Position]:
    """Yield stack frames, innermost first, up to the call of the network."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _FUNCTIONAL_CALL:
        yield frame, frame.f_lineno
        frame = frame.f_back


def _raised(traceback: TracebackType | None) -> Iterator[Position]:
    """Yield frames of a traceback, outermost first, from the call of the network."""
    inside = False
    while traceback is not None:
        if inside:
            yield traceback.tb_frame, traceback.tb_lineno
        inside = inside or traceback.tb_frame.f_code.co_filename == _FUNCTIONAL_CALL
        traceback = traceback.tb_next


def _described(positions: Iterable[Position], net: nn.Module) -> str:
    """Describe the innermost line of the user's own code and the innermost module of the network.

    Without a line of the user's code, a line of a library is named.
    """
    paths = {id(module): path for path, module in net.named_modules()}
    user: str | None = None
    library: str | None = None
    module: str | None = None
    for frame, line in positions:
        file = frame.f_code.co_filename
        if module is None:
            module = _module(frame.f_locals.get("self"), paths)
        if (
            file.startswith(_INTERNALS)
            or any(wrapper in file for wrapper in _WRAPPERS)
            or file.startswith("<")
        ):
            continue
        text = f"{_short(file)}:{line} ({one_line(linecache.getline(file, line).strip(), _CODE)})"
        if not file.startswith(_LIBRARIES):
            user = text
            break
        library = library or text
    line_text = user or library
    position = [f"at {line_text}"] if line_text else []
    position += [f"in {module}"] if module else []
    return ", ".join(position) or "at an unknown line"


def _short(file: str) -> str:
    """Return a short path: relative to the working directory, or its last components."""
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return file if len(file) <= _PATH else str(Path("...", *path.parts[-2:]))


def _module(value: Any, paths: dict[int, str]) -> str | None:
    if not isinstance(value, nn.Module) or id(value) not in paths:
        return None
    path = paths[id(value)]
    return (
        f"module {path!r} ({type(value).__name__})"
        if path
        else f"the network ({type(value).__name__})"
    )
