"""Checks of the arguments of public functions.

A wrong argument is reported in one sentence at the call, instead of by an exception from deep
inside the package.
"""

import functools
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from bnn_symm.errors import ConfigError, one_line
from bnn_symm.io.memory import points_at_once

Function = TypeVar("Function", bound=Callable[..., Any])

_TABLES = (
    "load_dataset(FILE) returns a Dataset; BNNClassifier and BNNRegressor take arrays and tables"
)
_REMEDIES = {
    ("Tensor", "ndarray"): "convert it with torch.as_tensor",
    ("Tensor", "list"): "convert it with torch.as_tensor",
    ("Tensor", "tuple"): "convert it with torch.as_tensor",
    ("Tensor", "Series"): "convert it with torch.as_tensor(series.to_numpy())",
    (
        "Tensor",
        "DataFrame",
    ): "encode it with dataset.preprocessing.encode, or use BNNClassifier or BNNRegressor",
    (
        "Tensor",
        "DataLoader",
    ): "pass all points as one tensor; the package draws its minibatches itself",
    ("Tensor", "Split"): "pass its tensor x",
    ("Tensor", "Dataset"): "pass the tensor x of one of its splits, such as dataset.test.x",
    ("ndarray", "Tensor"): "convert it with .numpy()",
    ("Split", "Dataset"): "pass one of its splits, such as dataset.test",
    ("Dataset", "Split"): "pass the whole data set, not one of its splits",
    ("Posterior", "Run"): "pass run.posterior",
    (
        "Posterior",
        "BayesianModel",
    ): "fit it first, such as MeanFieldVI().fit(model, dataset, seed=0)",
    ("Module", "BayesianModel"): "pass model.net",
    ("Posterior", "str"): "open a run with load_run(PATH).posterior",
    ("Posterior", "PosixPath"): "open a run with load_run(PATH).posterior",
    ("Config", "str"): "read a file with load_config(PATH)",
    ("Config", "PosixPath"): "read a file with load_config(PATH)",
    ("Config", "dict"): "check it with parse_config",
}
_NAMES = {
    "Tensor": "torch.Tensor",
    "Module": "torch.nn.Module",
    "PathLike": "a path",
    "str": "text",
}
_GENERAL = {
    "Tensor": "convert it with torch.as_tensor",
    "Dataset": _TABLES,
    "Split": f"pass a split of a Dataset, such as dataset.test; {_TABLES}",
    "BayesianModel": "create one with BayesianModel(net, Prior(), likelihood)",
    "Posterior": "a method's fit(...) returns one",
    "LazyDraws": "use SamplePosterior.from_draws(model, draws)",
    "int": "convert it with int()",
}


def check_tensor(name: str, value: Any, dtype: torch.dtype) -> None:
    """Raise an error unless an argument is a tensor of the network's floating-point type.

    Tensors of integers pass.

    Args:
        name: name of the argument.
        value: value of the argument.
        dtype: floating-point type of the network.

    Raises:
        ConfigError: if the type is wrong; the message states how to convert the argument.
    """
    if not isinstance(value, Tensor):
        raise ConfigError(_message(name, value, Tensor))
    if value.is_floating_point() and value.dtype != dtype:
        raise ConfigError(
            f"{name}: got a tensor of {value.dtype}, the network computes in {dtype}; convert it "
            f"with .to({dtype})"
        )


def check_finite(name: str, value: Tensor) -> None:
    """Raise an error if a tensor has NaN or infinite values.

    Args:
        name: name of the argument.
        value: tensor whose first axis counts rows.

    Raises:
        ConfigError: naming the first row with such a value.
    """
    if not value.is_floating_point() or not value.numel():
        return
    first = 0
    for rows in value.split(points_at_once(value[0].numel())):
        finite = rows.reshape(len(rows), -1).isfinite().all(1)
        if not bool(finite.all()):
            row = first + int(torch.nonzero(~finite)[0])
            raise ConfigError(
                f"{name}: row {row} has NaN or infinite values; fill or drop such rows first"
            )
        first += len(rows)


def check_at_least(name: str, value: int, smallest: int) -> None:
    """Raise an error if a number is too small.

    Args:
        name: name of the argument.
        value: value of the argument.
        smallest: value from which on it is allowed.

    Raises:
        ConfigError: if it is smaller.
    """
    if value < smallest:
        raise ConfigError(f"{name}: got {value}, expected {smallest} or more")


def checked(function: Function) -> Function:
    """Decorate a function so that arguments of the wrong type raise a `ConfigError`.

    Annotations that are classes, tensors, literals, sequences of these or unions of these are
    checked. Other annotations and the shapes of tensors are not checked.

    Args:
        function: function whose annotations are checked at each call.

    Returns:
        The decorated function.
    """
    signature = inspect.signature(function)
    name = getattr(function, "__name__", str(function))

    @functools.cache
    def expected() -> dict[str, tuple[Any, ...]]:
        hints = _hints(function)
        alternatives = {
            argument: _alternatives(hint)
            for argument, hint in hints.items()
            if argument in signature.parameters
        }
        return {argument: kinds for argument, kinds in alternatives.items() if kinds is not None}

    @functools.wraps(function)
    def wrapper(*args: Any, **keywords: Any) -> Any:
        try:
            given = signature.bind(*args, **keywords).arguments
        except TypeError as error:
            known = ", ".join(key for key in signature.parameters if key not in ("self", "cls"))
            raise ConfigError(f"{name}: {error}; it takes ({one_line(known, 180)})") from None
        for argument, kinds in expected().items():
            if argument in given and not any(_matches(given[argument], kind) for kind in kinds):
                raise ConfigError(f"{name}: {_message(argument, given[argument], *kinds)}")
        return function(*args, **keywords)

    return typing.cast(Function, wrapper)


class _SequenceOf(tuple[Any, ...]):
    """List the alternative types of the items of a sequence."""


class _OneOf(tuple[Any, ...]):
    """List the values that a literal allows."""


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _alternatives(hint: Any) -> tuple[Any, ...] | None:
    """Return the types that an annotation allows; None for annotations that are not checked."""
    if get_origin(hint) in (Union, UnionType):
        members = [_alternatives(member) for member in get_args(hint)]
        if None in members:
            return None
        return tuple(kind for kinds in members if kinds for kind in kinds)
    if get_origin(hint) is Literal:
        return (_OneOf(get_args(hint)),)
    if get_origin(hint) in (Sequence, list) or (
        get_origin(hint) is tuple and get_args(hint)[1:] == (Ellipsis,)
    ):
        items = _alternatives(get_args(hint)[0])
        return None if items is None else (_SequenceOf(items),)
    if get_origin(hint) in (Mapping, dict) or hint is Mapping:
        return (Mapping,)
    if hint in (str, Path):
        return (str,) if hint is str else (os.PathLike,)
    array = getattr(hint, "array_type", None)
    if array in (Tensor, np.ndarray):
        return (array,)
    if hint in (NoneType, None):
        return (NoneType,)
    is_class = isinstance(hint, type) and not getattr(hint, "_is_protocol", False)
    if is_class and (
        hint in (Tensor, int, float) or hint.__module__.split(".")[0] in ("bnn_symm", "torch")
    ):
        return (hint,)
    return None


def _matches(value: Any, kind: Any) -> bool:
    if isinstance(kind, _OneOf):
        return any(type(value) is type(known) and value == known for known in kind)
    if isinstance(kind, _SequenceOf):
        is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
        return is_sequence and all(any(_matches(item, each) for each in kind) for item in value)
    if kind in (int, float):
        number = Integral if kind is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind)


def _message(name: str, value: Any, *kinds: Any) -> str:
    named = [kind for kind in kinds if kind is not NoneType]
    known = [str(each) for kind in named if isinstance(kind, _OneOf) for each in kind]
    if known:
        known += [_name(kind) for kind in named if not isinstance(kind, _OneOf)]
        listed = " or ".join(filter(None, (", ".join(known[:-1]), known[-1])))
        return f"{name}: got {one_line(repr(value), 60)}, expected {listed}"
    sequence = next((kind for kind in named if isinstance(kind, _SequenceOf)), None)
    if sequence is not None:
        items = " or ".join(_name(kind) for kind in sequence)
        wrong = None
        if isinstance(value, Sequence) and not isinstance(value, str):
            wrong = next(
                (item for item in value if not any(_matches(item, kind) for kind in sequence)), None
            )
        got = f"a sequence with {_kind(wrong)}" if wrong is not None else _kind(value)
        return f"{name}: got {got}, expected a sequence of {items}, such as a list"
    expected = " or ".join(dict.fromkeys(_name(kind) for kind in named))
    if isinstance(value, type) and value in named:
        return (
            f"{name}: got the class {value.__name__}, expected an instance; write "
            f"{value.__name__}(...)"
        )
    remedies = [_REMEDIES.get((kind.__name__, type(value).__name__)) for kind in named]
    remedy = next((hint for hint in remedies if hint), None) or _GENERAL.get(
        named[0].__name__ if named else ""
    )
    return f"{name}: got {_kind(value)}, expected {expected or 'None'}" + (
        f"; {remedy}" if remedy else ""
    )


def _name(kind: Any) -> str:
    name = "a sequence" if isinstance(kind, _SequenceOf) else str(kind.__name__)
    return _NAMES.get(name, name)


def _kind(value: Any) -> str:
    return (
        f"the class {value.__name__}"
        if isinstance(value, type)
        else f"an object of type {type(value).__name__}"
    )
