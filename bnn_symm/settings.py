"""Declaration of settings: frozen, keyword-only dataclasses that validate their values.

Each section of a configuration file is one such class, defined in the layer that it configures.
"""

import dataclasses
import functools
import inspect
import re
from abc import ABCMeta
from typing import Annotated, Any, dataclass_transform, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from bnn_symm.errors import ConfigError, nearest, one_line


def _no_boolean(value: Any) -> Any:
    """Return a value unless it is a boolean, which Python treats as an integer."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number")
    return value


_NUMBER = BeforeValidator(_no_boolean)
Positive = Annotated[float, _NUMBER, Field(gt=0)]
NonNegative = Annotated[float, _NUMBER, Field(ge=0)]
Fraction = Annotated[float, _NUMBER, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, _NUMBER, Field(ge=1)]
NonNegativeInt = Annotated[int, _NUMBER, Field(ge=0)]
NumThreads = Annotated[int, _NUMBER, Field(ge=1, le=1024)]
# The upper bound of threads: a process that asks the system for too many ends without a message.

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def settings(cls: type[Any]) -> Any:
    """Make a class a frozen, keyword-only dataclass with validated types and ranges.

    Unknown keys are errors. An invalid value raises a `ConfigError` of one line, which names the
    nearest setting or the allowed values.

    Args:
        cls: class with annotated fields.

    Returns:
        The dataclass.
    """
    validated: Any = dataclass(cls, frozen=True, kw_only=True, config=_CONFIG)
    checked_init = validated.__init__

    @functools.wraps(checked_init)
    def __init__(self: Any, *args: Any, **keywords: Any) -> None:  # noqa: N807
        known = [field.name for field in dataclasses.fields(self) if field.init]
        name = type(self).__name__
        if args:
            example = next((key for key in known if key != "name"), "name")
            raise ConfigError(
                f"{name}: got {one_line(repr(args[0]), 60)} without a name, expected keyword "
                f"arguments; write {name}({example}=...)"
            )
        try:
            checked_init(self, **keywords)
        except ValidationError as error:
            raise ConfigError(f"{name}: {describe_errors(error, known)}") from None

    validated.__init__ = __init__
    _describe(validated)
    return validated


class SettingsType(ABCMeta):
    """Leave the internals of pydantic out of `dir` and `help` of settings classes."""

    def __dir__(cls) -> list[str]:
        hidden = ("__pydantic", "__dataclass", "__is_pydantic", "__match_args", "__abstract")
        return [name for name in super().__dir__() if not name.startswith(hidden)]


def _describe(cls: Any) -> None:
    """Give a settings class its signature with plain types, and the descriptions it inherits."""
    hints = get_type_hints(cls)  # without bounds, which make signatures unreadable
    fields = [field for field in dataclasses.fields(cls) if field.init]
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in fields
    ]
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    cls.__signature__ = inspect.Signature(parameters)
    for init in (cls.__init__, inspect.unwrap(cls.__init__)):
        init.__signature__ = inspect.Signature([own, *parameters])
    inherited: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        inherited |= attribute_descriptions(base.__dict__.get("__doc__") or "")
    names = [field.name for field in fields if field.name in inherited]
    if names:
        head, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n\nAttributes:\n")
        tail = rest.partition("\n\n")[2]
        entries = "\n".join(f"    {name}: {inherited[name]}" for name in names)
        parts = [head, f"Attributes:\n{entries}", *([tail] if tail else [])]
        cls.__doc__ = "\n\n".join(parts)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if isinstance(field.default, FieldInfo):  # of a field with a factory, as pydantic writes it
        return field.default.get_default(call_default_factory=True)
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def attribute_descriptions(docstring: str) -> dict[str, str]:
    """Return the description of each setting, from the section `Attributes:` of a docstring.

    Args:
        docstring: of a settings class.
    """
    section = inspect.cleandoc(docstring).partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return dict(entries)


def describe_errors(error: ValidationError, known: list[str]) -> str:
    """Return one line that describes the invalid arguments of a settings class.

    Args:
        error: validation error of pydantic, which reports each alternative of a union separately.
        known: names of the settings of the class.
    """
    expected: dict[str, list[str]] = {}
    got: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else "value"
        if problem["type"] == "unexpected_keyword_argument":
            return f"unknown setting {one_line(name, 60)}; {nearest(name, known)}"
        if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
            return f"{name} is missing; write {name}=VALUE"
        message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "")
        expected.setdefault(name, []).append(message.split(", unable to")[0].strip())
        got.setdefault(name, one_line(repr(problem["input"]), 60))
    parts = [
        f"{name}: got {got[name]}, expected {one_line(', or '.join(dict.fromkeys(messages)), 150)}"
        for name, messages in expected.items()
    ]
    return one_line("; ".join(parts), 280)
