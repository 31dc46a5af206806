"""The notation of numbers and the format of dates of a whole column, or an error if it has two."""

import re
from collections.abc import Sequence

from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.notation import are_numbers
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation, notations
from bnn_symm.data.preprocessing.column_types.text_columns import looks_like_dates
from bnn_symm.errors import InvalidData

# Numbers such as 1.250, and how many distinct ones of a column suggest thousands.
_GROUPED, _FEWEST_GROUPED = re.compile(r"-?[1-9]\d{0,2}(\.\d{3})+"), 3


def notation_of(what: str, texts: Sequence[str], config: DataConfig) -> NumberNotation | None:
    """Return the notation of a column of numbers, or None if it is plain or has other values.

    Args:
        what: description of the column for messages.
        texts: texts without surrounding spaces.
        config: the declared decimal mark.

    Raises:
        InvalidData: if the texts are numbers in two notations with different meanings.
    """
    distinct = list(dict.fromkeys(texts))
    is_plain = are_numbers(distinct)
    if is_plain and config.decimal == "auto" and (grouped := _grouped(distinct)):
        raise InvalidData(
            f"{what}: {grouped[0]!r} in row {texts.index(grouped[0]) + 1}, among numbers without a "
            "point, may have a decimal point or a point between thousands; declare "
            "data.decimal=comma or data.decimal=point"
        )
    if not distinct or (is_plain and not (config.decimal == "comma" and "." in "".join(distinct))):
        return None
    found = notations(distinct, config.decimal)
    if len(found) > 1:
        settings = " or ".join(f"data.decimal={word}" for word in ("comma", "point"))
        raise InvalidData(
            f"{what}: {distinct[0]!r} in row {texts.index(distinct[0]) + 1} may have a decimal "
            f"comma or a comma between thousands; declare {settings}"
        )
    return found[0] if found else None


def _grouped(numbers: Sequence[str]) -> list[str]:
    """Return the numbers with a point if it may separate thousands in all of them, as in 1.250.

    Numbers with three decimals each are not beside numbers without a point.
    """
    pointed = [text for text in numbers if "." in text]
    is_mixed = _FEWEST_GROUPED <= len(pointed) < len(numbers)
    return pointed if is_mixed and all(map(_GROUPED.fullmatch, pointed)) else []


def date_format_of(
    what: str, texts: Sequence[str], name: str, *, is_declared: bool = False
) -> str | None:
    """Return the format of a column of dates, or None if it has other values.

    Args:
        what: description of the column for messages.
        texts: texts without surrounding spaces.
        name: name of the column.
        is_declared: whether they are known to be dates.

    Raises:
        InvalidData: if the texts are dates in two formats with different meanings.
    """
    distinct = list(dict.fromkeys(texts))
    are_dates = is_declared or looks_like_dates(distinct) or dates.are_months(distinct)
    if not distinct or not are_dates:
        return None
    found = dates.formats(distinct)
    if len(found) > 1:
        choices = " or ".join(found[:2])
        raise InvalidData(
            f"{what}: {distinct[0]!r} may be a date of the form {choices}; declare it with "
            f"data.types={{{name}: '{found[0]}'}}"
        )
    return found[0] if found else None
