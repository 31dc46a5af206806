"""Notations of numbers: the supported one, and names for all others.

A text is a number only if it is written in ASCII digits with a decimal point, as in Python and C.
Other notations (decimal commas, thousands separators, percent signs, units, ...) are converted for
whole columns of one notation (`number_notation`), never value by value. Each has a name here, so
that an error message can state it.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

NUMBER = "number"
CODE = "code"
PLACEHOLDER = "placeholder"
NOT_FINITE = "not finite"
WORD = "word"

# Float64 represents every integer up to this one exactly.
LARGEST_EXACT = 2**53

_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?(?:0|[1-9]\d*)", re.ASCII)
_CODE = re.compile(r"0\d+(?:\.\d+)*", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
_PLACEHOLDER_TEXTS = (
    "? - -- --- . .. ... * \\n # na n/a n.a. n.a #n/a #na <na> nan -nan nat null nil none missing "
    "unknown undefined n.d. empty tbd #div/0! #value! #ref! #name? #num! #null! -1.#ind 1.#qnan "
    "unavailable \u2013 \u2014"
)
_PLACEHOLDERS = frozenset(_PLACEHOLDER_TEXTS.split()) | {
    "not available",
    "not applicable",
    "no data",
}

# A number in any notation, as a component of the patterns below.
_N = r"[+-]?(?:\d{1,3}(?:[ '.,_]\d{3})+|\d+)?(?:[.,]\d+)?"
CURRENCY = (
    r"[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20bf\u00a2]"
    r"|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|Rs\.?|kr\.?"
)
_NOTATIONS = {
    "an underscore between digits": r"[+-]?\d+(?:_\d+)+(?:\.\d+)?",
    "a space between digits": r"[+-]?\d{1,3}(?: \d{3})+(?:[.,]\d*)?",
    "an apostrophe between digits": r"[+-]?\d{1,3}(?:['\u2019`\u00b4]\d{3})+(?:[.,]\d*)?",
    "points between thousands": r"[+-]?\d{1,3}(?:\.\d{3})+(?:\.\d{3}|,\d*)",
    "a decimal comma or a comma between thousands": r"[+-]?(?:\d*(?:,\d+)+|\d+,)"
    r"(?:\.\d*)?(?:[eE][+-]?\d+)?",
    "a percent sign": rf"{_N} ?[%\u2030]",
    "a currency": rf"[+-]? ?(?:{CURRENCY}) ?{_N} ?[kKmMbB]?|{_N} ?(?:{CURRENCY})",
    "feet and inches": r"\d+'(?: ?\d+(?:\.\d+)?(?:\"|''))?",
    "a fraction": r"[+-]?(?:\d+ ?)?\d+ ?[/\u2044] ?\d+",
    "another base than ten": r"[+-]?0(?:[xX][0-9a-fA-F]+|[bB][01]+|[oO][0-7]+)",
    "an exponent of another form": r"[+-]?[\d.,]+ ?(?:[dD][+-]?\d+|[eE] [+-]?\d+)"
    r"|[+-]?[\d.,]+ ?[*x\u00d7\u00b7] ?10(?:\^|\*\*|[eE])?[+-]?\d+|[+-]?10(?:\^|\*\*)[+-]?\d+",
    "a bound or an error": rf"(?:[<>~\u2264\u2265\u2248=]=?|\+/-|\u00b1) ?{_N}"
    rf"|{_N} ?(?:\u00b1|\+/-|\+-) ?{_N}",
    "parentheses or a sign after it": rf"\({_N}\)|{_N} ?[-]|{_N}\(\d+\)|[+-] +{_N}|[+-]{{2,}}{_N}",
    "quotation marks": rf"[='\"]+{_N}['\"]*|{_N}['\"]+",
    "a footnote mark": rf"{_N} ?[*\u2020\u2021\u00a7]+",
    "an imaginary part": rf"(?:{_N}(?=[+-]))?{_N}[ij]",
    "leading zeros and a sign": r"[+-]0\d+(?:\.\d*)?(?:[eE][+-]?\d+)?",
}
_PATTERNS = {name: re.compile(pattern, re.ASCII) for name, pattern in _NOTATIONS.items()}
_UNIT = re.compile(
    r"([+-]?(?:\d+(?:[.,]\d+)?|[.,]\d+)) ?([^\W\d_][^\d,;]{0,11}[23]?|[\u00b0\u2032\u2033][CFK]?)"
)
_ORDINALS = ("st", "nd", "rd", "th")
# Signs and separators that resemble those of ASCII.
_LOOKALIKES = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2013\u2014\u2012\u2010\u2011\ufe63\uff0d", "-"),
        **dict.fromkeys("\u066b\u2396", "."),
        **dict.fromkeys("\u066c", ","),
    }
)


def form_of(text: str) -> str:
    """Return the form of a text.

    It is `number`, `code`, `placeholder`, `not finite`, `word`, or the name of an unsupported
    notation.

    Args:
        text: not empty, without leading or trailing spaces.

    Example:
        >>> [form_of(text) for text in ("1e-3", "007", "0,5", "n/a", "red")]
        ['number', 'code', 'a decimal comma or a comma between thousands', 'placeholder', 'word']
    """
    if _NUMBER.fullmatch(text):
        return NUMBER if math.isfinite(float(text)) else NOT_FINITE
    if _CODE.fullmatch(text):
        return CODE
    if is_placeholder_text(text):
        return PLACEHOLDER
    if _NOT_FINITE.fullmatch(text):
        return NOT_FINITE
    if len(text) > 60 or not any(character.isnumeric() for character in text):
        return WORD
    plain = ascii_lookalike(text)
    for name, pattern in _PATTERNS.items():
        if pattern.fullmatch(plain) and any(character.isdigit() for character in plain):
            return name
    if plain != text and (_NUMBER.fullmatch(plain) or _CODE.fullmatch(plain)):
        return "digits or signs outside ASCII"
    return WORD


def is_placeholder_text(text: str) -> bool:
    """Return whether a text stands for a missing value, such as `NA`.

    Args:
        text: text without surrounding spaces.
    """
    return text.lower() in _PLACEHOLDERS


def are_numbers(texts: Iterable[str]) -> bool:
    """Return whether all texts have the notation of numbers, as `form_of` decides it.

    Args:
        texts: texts without surrounding spaces.
    """
    return all(map(_NUMBER.fullmatch, texts))


def is_integer(text: str) -> bool:
    """Return whether a text is an integer without a point, an exponent or leading zeros.

    Args:
        text: text without surrounding spaces.
    """
    return _INTEGER.fullmatch(text) is not None


def unit_of(text: str) -> tuple[float, str] | None:
    """Return the number and the unit of a text such as `5.2 kg`, or None for other texts.

    Ordinals (`1st`, `2nd`) are not measurements.

    Args:
        text: text without surrounding spaces.
    """
    match = _UNIT.fullmatch(ascii_lookalike(text)) if len(text) <= 30 else None
    if match is None or is_ordinal(match[2]):
        return None
    return float(match[1].replace(",", ".")), match[2].strip()


def is_ordinal(suffix: str) -> bool:
    """Return whether the letters after a number make it an ordinal, such as 1st.

    Args:
        suffix: the letters.
    """
    return suffix.lower() in _ORDINALS


def parse_number(text: str) -> float:
    """Return the number that a text represents in the supported notation, or NaN.

    Integers with more digits than float64 represents are NaN, because they would become another
    number.

    Args:
        text: text without surrounding spaces.
    """
    if not _NUMBER.fullmatch(text):
        return math.nan
    number = float(text)
    exact = not is_integer(text) or (math.isfinite(number) and is_exact(int(text)))
    return number if exact else math.nan


def parse_numbers(texts: Sequence[str]) -> np.ndarray:
    """Return `parse_number` of each text (point,), with a fast path if all are numbers.

    Args:
        texts: texts without surrounding spaces.
    """
    if not are_numbers(texts):
        return np.array([parse_number(text) for text in texts], dtype=np.float64)
    values = np.array(texts, dtype=object).astype(np.float64)
    for row in np.flatnonzero(np.abs(values) >= LARGEST_EXACT):
        values[row] = parse_number(texts[int(row)])
    return values


def is_exact(integer: int) -> bool:
    """Return whether float64 represents an integer exactly.

    Args:
        integer: integer of any length.
    """
    if abs(integer) <= LARGEST_EXACT:
        return True
    try:
        return int(float(integer)) == integer
    except OverflowError:
        return False


def describe_value(value: object) -> str:
    """Return a clause that explains why a value is not a number.

    The clause follows the quoted value in a message. It is empty for words and placeholders.

    Args:
        value: value of any type.
    """
    text = str(value).strip()
    form = form_of(text) if text else PLACEHOLDER
    if form == NUMBER:
        return ", which has more digits than float64 represents" if is_integer(text) else ""
    return {
        CODE: ", which has leading zeros",
        PLACEHOLDER: "",
        NOT_FINITE: "",
        WORD: "",
    }.get(form, f", a number with {form}")


def ascii_lookalike(text: str) -> str:
    """Return a text with digits, signs and spaces of other scripts replaced by ASCII.

    Args:
        text: any text.
    """
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFKC", text.translate(_LOOKALIKES)).translate(_LOOKALIKES)
    digits = (str(unicodedata.decimal(character, character)) for character in normal)
    return "".join(" " if character.isspace() else character for character in digits)
