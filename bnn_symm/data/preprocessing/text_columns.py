"""What a column of texts holds: numbers, booleans or categories; decided once, from the data of a
fit.

The decision is stored with a run, and later files are parsed by it, value by value. A column that a
person would read otherwise than the program (numbers in another notation, placeholders among
numbers, dates) is refused, whatever the number of its distinct values.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bnn_symm.data.preprocessing.notation import (
    CODE,
    NOT_FINITE,
    NUMBER,
    PLACEHOLDER,
    WORD,
    form_of,
    is_exact,
    is_integer,
    parse_numbers,
    unit_of,
)
from bnn_symm.errors import InvalidData, one_line

Kind = Literal["number", "boolean", "category"]

# Above this many distinct texts a column is no longer read as a category without further questions.
_FEW_CATEGORIES = 20
_BOOLEANS = ("true", "false")
_DATE_TEXT = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}[-/]\d{1,2}[-/]\d{2}"
    r"|(0[1-9]|[12]\d|3[01])\.(0[1-9]|1[0-2])\.\d{2}"
    r"|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}|[A-Za-z]{3,9} \d{1,2},? \d{4}|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?"
    r")([ T].*)?"
)


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """The decision about a column of texts.

    Args:
        kind: what it holds.
        notes: sentences about what a person may not expect.
    """

    kind: Kind
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Distinct:
    """The distinct texts of a column, each with its number of rows and its first row (from 1)."""

    what: str
    counts: Counter[str]
    first_row: dict[str, int]
    forms: dict[str, str]

    def of(self, *forms: str) -> list[str]:
        return [text for text, form in self.forms.items() if form in forms]

    def rows(self, texts: Sequence[str]) -> int:
        return sum(self.counts[text] for text in texts)

    def where(self, text: str) -> str:
        return f"{self.what}, row {self.first_row[text]}"


def decide(what: str, texts: Sequence[str], *, is_target: bool = False) -> TextColumn:
    """Decide what a column of texts holds.

    Args:
        what: the column, as the first words of a message.
        texts: one a row, none of them empty; spaces around them are ignored.
        is_target: whether they are to be predicted, so that the number of classes is judged by
            others.

    Raises:
        InvalidData: naming the column, the first row and the notation, if a person would read it
            otherwise.
    """
    stripped = [text.strip() for text in texts]
    if np.isfinite(parse_numbers(stripped)).all():
        return TextColumn(kind="number")
    first_row: dict[str, int] = {}
    for row, text in enumerate(stripped, start=1):
        first_row.setdefault(text, row)
    counts = Counter(stripped)
    column = _Distinct(
        what=what,
        counts=counts,
        first_row=first_row,
        forms={text: form_of(text) for text in first_row},
    )
    if set(column.forms.values()) == {NUMBER}:
        if not is_target:
            _check_exact(column)
        return TextColumn(kind="number")
    words = {text.lower() for text in counts}
    if words <= set(_BOOLEANS):
        return TextColumn(kind="boolean")
    _refuse_dates(column)
    _refuse_notations(column)
    _refuse_mixture(column, words)
    _refuse_near_duplicates(column)
    if not is_target:
        _refuse_free_text(column)
    return TextColumn(
        kind="category", notes=(*_notes(column), *_space_notes(what, texts, stripped))
    )


def typed_values(kind: Kind, texts: Sequence[str]) -> np.ndarray:
    """Return texts that `decide` has judged as an array: int64, float64, bool, or objects (Python
    ints, texts).
    """
    stripped = [text.strip() for text in texts]
    if kind == "boolean":
        return np.array([text.lower() == "true" for text in stripped])
    if kind == "category":
        return np.array(stripped, dtype=object)
    if all(is_integer(text) for text in stripped):
        return integer_array([int(text) for text in stripped])
    return np.array(stripped, dtype=object).astype(np.float64)


def integer_array(values: Sequence[int]) -> np.ndarray:
    """Return Python integers as int64, or as objects where they do not fit, so that no digit is
    lost.
    """
    fits = all(-(2**63) <= value < 2**63 for value in values)
    return np.array(values, dtype=np.int64 if fits else object)


def _check_exact(column: _Distinct) -> None:
    long = [text for text in column.counts if is_integer(text) and not is_exact(int(text))]
    if long:
        raise InvalidData(
            f"{column.where(long[0])}: the integer {_short(long[0])} has more digits than float64 "
            "holds, so that other integers would become the same number; drop the column, or use "
            "fewer digits"
        )


def _refuse_dates(column: _Distinct) -> None:
    dates = [text for text in column.counts if _DATE_TEXT.fullmatch(text)]
    if dates and len(dates) > 0.8 * len(column.counts):
        raise InvalidData(
            f"{column.what} holds dates or times ({_short(dates[0])} in row "
            f"{column.first_row[dates[0]]}), which is no feature to learn from; drop it or turn it "
            "into numbers"
        )


def _refuse_notations(column: _Distinct) -> None:
    odd = [
        text
        for text, form in column.forms.items()
        if form not in (NUMBER, CODE, PLACEHOLDER, NOT_FINITE, WORD)
    ]
    units = _units(column)
    words = [text for text in column.of(WORD) if text not in units]
    wrong = [text for text in column.counts if text in set(odd) or text in units]
    if not wrong:
        return
    if words and column.rows(wrong) + column.rows(column.of(NUMBER)) <= column.rows(words):
        return  # words, some of which look like numbers
    text = wrong[0]
    how = f"the unit {units[text]!r}" if text in units else column.forms[text]
    raise InvalidData(
        f"{column.where(text)}: got {_short(text)}, a number with {how} ({column.rows(wrong)} such "
        "values in all), expected plain numbers such as 1234.5; rewrite the column, or spell out "
        "what are categories"
    )


def _units(column: _Distinct) -> dict[str, str]:
    """Return text -> unit, where the words of a column are measurements: decimals, or integers of
    at most two units.
    """
    found = {text: unit for text in column.of(WORD) if (unit := unit_of(text)) is not None}
    values = {value for value, _ in found.values()}
    num_units = len({unit for _, unit in found.values()})
    if not any(not value.is_integer() for value in values) and (len(values) <= 2 or num_units > 2):
        return {}
    others = [text for text in column.of(WORD) if text not in found]
    return (
        {text: unit for text, (_, unit) in found.items()}
        if column.rows(others) < column.rows(list(found))
        else {}
    )


def _refuse_mixture(column: _Distinct, words: set[str]) -> None:
    """Refuse what is not a number among numbers, unless they are codes: few whole numbers beside
    words.
    """
    numbers = column.of(NUMBER)
    if not numbers:
        return
    if words <= {*_BOOLEANS, "0", "1"}:
        text = next(text for text in column.counts if text.lower() in _BOOLEANS)
        raise InvalidData(
            f"{column.where(text)}: got {_short(text)} beside 0 and 1; write all as true and false"
        )
    others = [text for text in column.counts if text not in set(numbers)]
    if column.of(CODE):
        return
    only_gaps = not column.of(WORD)
    measured = len(column.counts) > _FEW_CATEGORIES or not all(is_integer(text) for text in numbers)
    if only_gaps or (measured and column.rows(others) < column.rows(numbers)):
        text = others[0]
        if not column.of(WORD, PLACEHOLDER):
            raise InvalidData(
                f"{column.where(text)}: got {text} ({column.rows(others)} such values in all), "
                "wanted a finite number; correct them or drop the rows"
            )
        raise InvalidData(
            f"{column.what} holds numbers, but row {column.first_row[text]} has {_short(text)} "
            f"({column.rows(others)} such values in all); correct them or drop the rows"
        )


def _refuse_near_duplicates(column: _Distinct) -> None:
    seen: dict[str, str] = {}
    for text in column.counts:
        other = seen.setdefault(_key(text), text)
        if other != text:
            raise InvalidData(
                f"{column.what} has {_short(other)} (row {column.first_row[other]}) and "
                f"{_short(text)} (row {column.first_row[text]}), which differ in case, spaces or "
                "form of characters alone; write one of them, or rename one if they are two"
            )


def _key(text: str) -> str:
    """Return what two spellings of one word have in common."""
    visible = "".join(
        c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf"
    )
    key = " ".join(visible.casefold().split())
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", key)  # 1.0 and 1


def _refuse_free_text(column: _Distinct) -> None:
    distinct, rows = len(column.counts), sum(column.counts.values())
    if rows > 1 and (distinct == rows or (distinct > _FEW_CATEGORIES and distinct > rows / 2)):
        codes = column.of(CODE)
        zeros = (
            f" and leading zeros ({_short(codes[0])} in row {column.first_row[codes[0]]})"
            if codes
            else ""
        )
        raise InvalidData(
            f"{column.what} is text with {distinct} distinct values in {rows} rows{zeros}, which "
            "is no feature to learn from; drop it from the file"
        )


def _notes(column: _Distinct) -> list[str]:
    notes = []
    if gaps := column.of(PLACEHOLDER):
        listed = ", ".join(f"{_short(text)} in {column.counts[text]} rows" for text in gaps[:3])
        notes.append(
            f"{column.what}: {listed}: read as a category of its own, not as a missing value"
        )
    numbers, words = column.of(NUMBER, NOT_FINITE), column.of(WORD)
    if (codes := column.of(CODE)) and column.of(NUMBER):
        notes.append(
            f"{column.what}: {_short(codes[0])} in row {column.first_row[codes[0]]} has leading "
            "zeros: all values are read as codes, not as numbers"
        )
    elif numbers and words and not codes:
        notes.append(
            f"{column.what} mixes numbers and words ({_short(words[0])} in row "
            f"{column.first_row[words[0]]}): read as {len(column.counts)} categories"
        )
    return notes


def _space_notes(what: str, texts: Sequence[str], stripped: Sequence[str]) -> list[str]:
    if len(set(texts)) == len(set(stripped)):
        return []
    row = next(
        row
        for row, (raw, text) in enumerate(zip(texts, stripped, strict=True), start=1)
        if raw != text
    )
    return [f"{what}: spaces around values are ignored ({texts[row - 1]!r} in row {row})"]


def _short(text: str) -> str:
    return repr(one_line(text, 40))
