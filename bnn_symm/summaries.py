"""Representations of results: one informative line, a small table in notebooks, and JSON types."""

import html
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np

from bnn_symm.formatting import number


class Summarized:
    """Represent an object by the few facts that identify it, not by its arrays.

    A dataclass that derives from this one is declared with `repr=False`.

    Example:
        >>> class Point(Summarized):
        ...     def _facts(self):
        ...         return {"x": 1 / 3, "label": "a"}
        >>> Point()
        Point(x=0.3333, label='a')
    """

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Return name -> value of the facts that are shown."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={_text(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(_text(value))}</td></tr>"
            for name, value in self._facts().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


class Result:
    """Base of the frozen dataclasses whose attributes are the keys of a JSON object.

    The keys are all fields, or the fields and properties that `_keys` names.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Share(Result):
        ...     values: tuple[float, ...]
        >>> Share(values=(0.25, 0.75)).to_dict()
        {'values': [0.25, 0.75]}
    """

    _keys: ClassVar[tuple[str, ...]] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        names = self._keys or [own.name for own in fields(self)]  # pyright: ignore[reportArgumentType]
        return {name: plain(getattr(self, name)) for name in names}


def plain(value: Any) -> Any:
    """Return a value as JSON types; NaN and infinite numbers stay.

    Args:
        value: a result or another dataclass, an array, a container of these, or a JSON type.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return {own.name: plain(getattr(value, own.name)) for own in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _text(value: object) -> str:
    return number(value, 4) if isinstance(value, float) else repr(value)
