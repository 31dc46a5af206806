"""Types of columns of text files: numbers, booleans or categories.

Ambiguous columns are errors regardless of their number of distinct values: numbers in several
notations, placeholders among numbers, and dates of several formats.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.notation import (
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

# With more distinct texts than this, a column is checked further before it is read as a category.
_MAX_CATEGORIES = 20
_BOOLEANS = ("true", "false")
_DATE_TEXT = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}[-/]\d{1,2}[-/]\d{2}"
    r"|(0[1-9]|[12]\d|3[01])\.(0[1-9]|1[0-2])\.\d{2}"
    r"|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?"
    r")([ T].*)?"
)


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """Inferred type of a column of texts.

    Args:
        kind: inferred type.
        notes: sentences about unexpected properties of the column.
    """

    kind: Kind
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Distinct:
    """The distinct texts of a column, with their counts, first rows (from 1) and forms."""

    what: str
    counts: Counter[str]
    first_row: dict[str, int]
    forms: dict[str, str]

    def with_form(self, *forms: str) -> list[str]:
        return [text for text, form in self.forms.items() if form in forms]

    def rows(self, texts: Sequence[str]) -> int:
        return sum(self.counts[text] for text in texts)

    def where(self, text: str) -> str:
        return f"{self.what}, row {self.first_row[text]}"


def infer_text_column(what: str, texts: Sequence[str], *, is_target: bool = False) -> TextColumn:
    """Infer the type of a column of texts.

    Args:
        what: description of the column, with which messages begin.
        texts: one text per row, none of them empty; surrounding spaces are ignored.
        is_target: whether the column is the target, whose number of classes is checked elsewhere.

    Raises:
        InvalidData: naming the column, the first row and the notation, if the column is ambiguous.
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
    _refuse_dates(column, is_target)
    _refuse_notations(column)
    _refuse_mixture(column, words)
    _refuse_near_duplicates(column)
    if not is_target:
        _refuse_free_text(column)
    return TextColumn(
        kind="category", notes=(*_notes(column), *_space_notes(what, texts, stripped))
    )


def typed_values(kind: Kind, texts: Sequence[str]) -> np.ndarray:
    """Return the texts of a column as an array of its inferred type.

    The array is int64, float64, bool, or object (Python integers, texts).

    Args:
        kind: type from `infer_text_column`.
        texts: one text per row.
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
    """Return Python integers as int64, or as objects if they do not fit.

    Args:
        values: integers of any size.
    """
    fits = all(-(2**63) <= value < 2**63 for value in values)
    return np.array(values, dtype=np.int64 if fits else object)


def _check_exact(column: _Distinct) -> None:
    long = [text for text in column.counts if is_integer(text) and not is_exact(int(text))]
    if long:
        raise InvalidData(
            f"{column.where(long[0])}: the integer {_quote(long[0])} has more digits than float64 "
            "represents; drop the column, or use fewer digits"
        )


def looks_like_dates(texts: Sequence[str]) -> bool:
    """Return whether nearly all texts resemble dates or times.

    Args:
        texts: distinct texts without surrounding spaces.
    """
    return sum(_DATE_TEXT.fullmatch(text) is not None for text in texts) > 0.8 * len(texts)


def _refuse_dates(column: _Distinct, is_target: bool) -> None:
    texts = list(column.counts)
    if not looks_like_dates(texts):
        return
    text = next(text for text in texts if _DATE_TEXT.fullmatch(text))
    if is_target:
        raise InvalidData(
            f"{column.what} contains dates or times ({_quote(text)} in row "
            f"{column.first_row[text]}), which are no targets; choose another target, or convert "
            "it to numbers"
        )
    wrong = dates.exception_of(texts)
    if wrong is not None:
        raise InvalidData(
            f"{column.where(wrong)}: {_quote(wrong)} is no date of the form of the other values, "
            f"such as {_quote(texts[0] if texts[0] != wrong else texts[1])}; correct it or leave "
            "it empty"
        )
    raise InvalidData(
        f"{column.what} contains dates or times ({_quote(text)} in row "
        f"{column.first_row[text]}) of several formats; drop it or write all in one format"
    )


def _refuse_notations(column: _Distinct) -> None:
    unsupported = [
        text
        for text, form in column.forms.items()
        if form not in (NUMBER, CODE, PLACEHOLDER, NOT_FINITE, WORD)
    ]
    units = _units(column)
    words = [text for text in column.with_form(WORD) if text not in units]
    wrong = [text for text in column.counts if text in set(unsupported) or text in units]
    if not wrong:
        return
    if words and column.rows(wrong) + column.rows(column.with_form(NUMBER)) <= column.rows(words):
        return  # words, some of which resemble numbers
    notations = {
        text: f"the unit {units[text]!r}" if text in units else column.forms[text] for text in wrong
    }
    usual = Counter({each: 0 for each in notations.values()})
    for text, notation in notations.items():
        usual[notation] += column.counts[text]
    (notation, rows), *_ = usual.most_common()
    others = [text for text in column.counts if notations.get(text) != notation]
    others = [text for text in others if column.forms[text] != NUMBER] or others
    text = next(text for text in wrong if notations[text] == notation)
    if others and column.rows(others) < rows:
        other = others[0]
        raise InvalidData(
            f"{column.what} contains numbers with {notation} ({_quote(text)} in row "
            f"{column.first_row[text]}), but row {column.first_row[other]} has {_quote(other)} "
            f"({column.rows(others)} such values in total); correct them or drop the rows"
        )
    text = wrong[0]
    raise InvalidData(
        f"{column.where(text)}: got {_quote(text)}, a number with {notations[text]} "
        f"({column.rows(wrong)} such values in total), expected plain numbers such as 1234.5; "
        "rewrite the column, or use words for categories"
    )


def _units(column: _Distinct) -> dict[str, str]:
    """Return text -> unit, if the words of a column are measurements.

    They are if they have decimals, or are integers with at most two units.
    """
    measurements = {
        text: unit for text in column.with_form(WORD) if (unit := unit_of(text)) is not None
    }
    values = {value for value, _ in measurements.values()}
    num_units = len({unit for _, unit in measurements.values()})
    if not any(not value.is_integer() for value in values) and (len(values) <= 2 or num_units > 2):
        return {}
    others = [text for text in column.with_form(WORD) if text not in measurements]
    return (
        {text: unit for text, (_, unit) in measurements.items()}
        if column.rows(others) < column.rows(list(measurements))
        else {}
    )


def _refuse_mixture(column: _Distinct, words: set[str]) -> None:
    """Raise an error for other values among numbers, unless the column is categorical.

    Numbers of a categorical column are few integers, or codes with leading zeros, beside words.
    """
    numbers = column.with_form(NUMBER)
    if not numbers:
        return
    if words <= {*_BOOLEANS, "0", "1"}:
        text = next(text for text in column.counts if text.lower() in _BOOLEANS)
        raise InvalidData(
            f"{column.where(text)}: got {_quote(text)} beside 0 and 1, expected one notation; "
            "write all values as true and false"
        )
    others = [text for text in column.counts if text not in set(numbers)]
    if column.with_form(CODE):
        return
    only_placeholders = not column.with_form(WORD)
    measured = len(column.counts) > _MAX_CATEGORIES or not all(is_integer(text) for text in numbers)
    if only_placeholders or (measured and column.rows(others) < column.rows(numbers)):
        text = others[0]
        if not column.with_form(WORD, PLACEHOLDER):
            raise InvalidData(
                f"{column.where(text)}: got {text} ({column.rows(others)} such values in total), "
                "expected a finite number; correct them or drop the rows"
            )
        raise InvalidData(
            f"{column.what} contains numbers, but row {column.first_row[text]} has {_quote(text)} "
            f"({column.rows(others)} such values in total); correct them or drop the rows"
        )


def _refuse_near_duplicates(column: _Distinct) -> None:
    seen: dict[str, str] = {}
    for text in column.counts:
        other = seen.setdefault(_normalize(text), text)
        if other != text:
            raise InvalidData(
                f"{column.what} has {_quote(other)} (row {column.first_row[other]}) and "
                f"{_quote(text)} (row {column.first_row[text]}), which differ only in case, spaces "
                "or character variants; use one spelling, or rename one if they are distinct"
            )


def _normalize(text: str) -> str:
    """Return the part of a text that its spelling variants share."""
    visible = "".join(
        c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf"
    )
    key = " ".join(visible.casefold().split())
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", key)  # 1.0 and 1


def _refuse_free_text(column: _Distinct) -> None:
    distinct, rows = len(column.counts), sum(column.counts.values())
    if rows > 1 and (distinct == rows or (distinct > _MAX_CATEGORIES and distinct > rows / 2)):
        codes = column.with_form(CODE)
        zeros = (
            f" and leading zeros ({_quote(codes[0])} in row {column.first_row[codes[0]]})"
            if codes
            else ""
        )
        raise InvalidData(
            f"{column.what} is text with {distinct} distinct values in {rows} rows{zeros}, too "
            "many for categories; declare it as text with data.types, or drop it"
        )


def _notes(column: _Distinct) -> list[str]:
    notes = []
    if placeholders := column.with_form(PLACEHOLDER):
        listed = ", ".join(
            f"{_quote(text)} in {column.counts[text]} rows" for text in placeholders[:3]
        )
        notes.append(
            f"{column.what}: {listed}: read as a separate category, not as a missing value"
        )
    numbers, words = column.with_form(NUMBER, NOT_FINITE), column.with_form(WORD)
    if (codes := column.with_form(CODE)) and column.with_form(NUMBER):
        notes.append(
            f"{column.what}: {_quote(codes[0])} in row {column.first_row[codes[0]]} has leading "
            "zeros; all values are read as codes, not as numbers"
        )
    elif numbers and words and not codes:
        notes.append(
            f"{column.what} mixes numbers and words ({_quote(words[0])} in row "
            f"{column.first_row[words[0]]}); read as {len(column.counts)} categories"
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


def _quote(text: str) -> str:
    return repr(one_line(text, 40))
