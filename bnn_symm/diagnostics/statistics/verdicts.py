"""Represent a verdict: its kind, the numbers that support it, and a template for its sentence."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from bnn_symm.formatting import listed, number, percent


class _Formatter(string.Formatter):
    """Format numbers by `number` and sequences by `listed`, unless the template has a format."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec.endswith("%"):
            return percent(value, int(format_spec[1:-1]))
        if format_spec or isinstance(value, str):
            return format(value, format_spec)
        if isinstance(value, list | tuple):
            return listed([self.format_field(item, "") for item in value])
        return number(value)


def fill(template: str, numbers: Mapping[str, Any]) -> str:
    """Return a template with its numbers, which have three digits unless it states a format.

    Args:
        template: Text with `{name}` in place of numbers, texts and sequences of them.
        numbers: Name -> value.

    Returns:
        The text.

    Example:
        >>> fill("{value} of {names}", {"value": 12345.6, "names": ["a", "b", "c"]})
        '12,346 of a, b and c'
    """
    return _Formatter().vformat(template, (), numbers)


@dataclass(frozen=True)
class Verdict:
    """A verdict and the numbers that support it.

    Attributes:
        kind: A member of an enum whose values are templates: of the sentence, or a tuple of the
            templates of the sentence and of advice.
        numbers: Name in the templates -> number, text, or sequence of them.
    """

    kind: Enum
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def text(self) -> str:
        """Return the sentence with its numbers."""
        return fill(self._templates[0], self.numbers)

    def __str__(self) -> str:
        return self.text

    @property
    def next(self) -> str | None:
        """Return what to do next, if anything."""
        return fill(self._templates[1], self.numbers) if self._templates[1:] else None

    @property
    def _templates(self) -> tuple[str, ...]:
        value = self.kind.value
        return value if isinstance(value, tuple) else (value,)
