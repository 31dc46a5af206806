"""Numbers with decimal commas, separated thousands, a currency, a percent sign or a unit.

A column has one notation, which is inferred from all of its values or declared, and stored with the
run. A notation is inferred only where the values have one meaning: `1,5` and `1.234,5` have decimal
commas, `1,234,567` and `1,234.5` have separated thousands, but a column of `1,234` and `12,345`
alone may be either, and is an error that asks for `data.decimal`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnn_symm.data.preprocessing.column_types.notation import (
    CURRENCY,
    NUMBER,
    ascii_lookalike,
    form_of,
    is_ordinal,
)

Decimal = Literal["auto", "point", "comma"]

_MARKS = {"point": ".", "comma": ","}
_CORE = r"[+-]?(?:\d[\d.,' _]*|[.,]\d+)(?:[eE][+-]?\d+)?"
_AFFIX = rf"{CURRENCY}|[%\u2030\u00b0]|[^\W\d_][^\d,;.+-]{{0,11}}[23]?"
_WRITTEN = re.compile(
    rf"(?P<sign>[+-]?) ?(?:(?P<before>{CURRENCY}) ?)?(?P<core>{_CORE})(?: ?(?P<after>{_AFFIX}))?"
)
# Multiples such as 5k would need another value, not another notation.
_MULTIPLES = frozenset(["k", "K", "m", "M", "b", "B", "bn", "mn", "mio", "mrd", "x", "X"])


@dataclass(frozen=True, kw_only=True)
class NumberNotation:
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal mark, `.` or `,`.
        thousands: the mark between thousands, or empty.
        affix: the currency, sign or unit that each number has, or empty; it does not change the
            value (12 % is 12).

    Example:
        >>> notation = NumberNotation(decimal=",", thousands=".", affix="\u20ac")
        >>> notation.plain("1.234,50 \u20ac"), notation.plain("12 kg")
        ('1234.50', None)
    """

    decimal: str = "."
    thousands: str = ""
    affix: str = ""

    def plain(self, text: str) -> str | None:
        """Return a number in the plain notation, or None for a text that is not of this notation.

        Args:
            text: text without surrounding spaces.
        """
        written = _split(text)
        if written is None or written[1] != self.affix:
            return None
        core = written[0]
        if self.thousands:
            groups = rf"[+-]?\d{{1,3}}(?:{re.escape(self.thousands)}\d{{3}})+(?!\d)"
            grouped = re.match(groups, core)
            if grouped:
                core = core.replace(self.thousands, "", grouped[0].count(self.thousands))
        plain = core.replace(self.decimal, ".", 1) if self.decimal == "." or "." not in core else ""
        return plain if form_of(plain or "-") == NUMBER else None

    def describe(self) -> str:
        """Return the notation in words, for notes and tables."""
        parts = []
        if self.decimal == ",":
            parts.append("decimal commas")
        if self.thousands:
            mark = {",": "commas", ".": "points", " ": "spaces"}.get(
                self.thousands, f"{self.thousands!r}"
            )
            parts.append(f"{mark} between thousands")
        if self.affix:
            parts.append(f"{self.affix!r}, which is left out")
        return " and ".join(parts) or "digits or signs outside ASCII"

    def to_dict(self) -> dict[str, str]:
        """Return the notation as JSON types."""
        return {"decimal": self.decimal, "thousands": self.thousands, "affix": self.affix}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "NumberNotation":
        """Return the notation from the result of `to_dict`."""
        return cls(**content)


def notations(texts: Sequence[str], decimal: Decimal = "auto") -> list[NumberNotation]:
    """Return the notations in which all texts are numbers with different meanings.

    There is at most one for each decimal mark. If there are two, the texts are ambiguous.

    Args:
        texts: distinct texts without surrounding spaces, not all of them plain numbers.
        decimal: the declared decimal mark; `auto` tries both.
    """
    written = [_split(text) for text in texts]
    affixes = {None if each is None else each[1] for each in written}
    if len(affixes) != 1 or None in affixes:
        return []
    (affix,) = affixes
    cores = [each[0] for each in written if each is not None]
    marks = [mark for name, mark in _MARKS.items() if decimal in ("auto", name)]
    found: dict[tuple[str | None, ...], NumberNotation] = {}  # by meaning
    for mark in marks:
        others = {c for core in cores for c in re.sub(r"[eE][+-]?\d+$", "", core) if c in ".,' _"}
        others -= {mark}
        if len(others) > 1:
            continue
        notation = NumberNotation(decimal=mark, thousands="".join(others), affix=affix or "")
        meaning = tuple(map(notation.plain, texts))
        if None not in meaning:
            found.setdefault(meaning, notation)
    if affix and not is_unit(affix) and not any(map(_are_measurements, found)):
        return []
    return list(found.values())


def is_unit(affix: str) -> bool:
    """Return whether an affix is a currency or a sign, which is no part of a word."""
    return re.fullmatch(rf"{CURRENCY}|[%\u2030\u00b0]", affix) is not None


def _are_measurements(numbers: Sequence[str | None]) -> bool:
    """Return whether numbers with a unit are measurements, and not words such as 2wd and 4wd."""
    return len(set(numbers)) > 2 or any(number is not None and "." in number for number in numbers)


def _split(text: str) -> tuple[str, str] | None:
    """Return the number of a text, with its sign, and the affix; None for other texts."""
    match = _WRITTEN.fullmatch(ascii_lookalike(text)) if len(text) <= 60 else None
    if match is None or (match["before"] and match["after"]):
        return None
    affix = (match["before"] or match["after"] or "").strip()
    if affix in _MULTIPLES or is_ordinal(affix):
        return None
    core = match["core"].strip()
    if match["sign"] and core[0] in "+-":
        return None
    return match["sign"] + core, affix
