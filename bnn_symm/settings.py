"""How a group of settings is declared: a frozen, keyword-only dataclass whose values are checked when it is made.

Each section of a configuration file is one such class, kept in the layer that it configures.
"""

from typing import Annotated, Any, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]


_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def settings(cls: type[Any]) -> Any:
    """Class decorator: frozen, keyword-only, types and ranges checked, unknown keys refused."""
    return dataclass(cls, frozen=True, kw_only=True, config=_CONFIG)
