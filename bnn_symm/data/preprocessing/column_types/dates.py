"""Dates and times as numeric features: a trend, and the positions in the year, week and day.

A column has one format, which is inferred from all of its values or declared, and stored with the
run. `03.04.2024` and `13.04.2024` are days first, but a column whose days are all below 13 may have
months first, and is an error that asks for the format.
"""

import itertools
import math
import re
from calendar import isleap
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

ISO = "iso"
_DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y"),
    *("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y"),
)
_MONTH, _MONTH_TEXT = "%Y-%m", re.compile(r"((?:19|20)\d{2})-(0[1-9]|1[0-2])")
_TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p")
_FORMATS = (
    *_DAYS,
    _MONTH,
    *(f"{day} {time}" for day, time in itertools.product(_DAYS, _TIMES)),
    *_TIMES,
)
EPOCH = datetime(2000, 1, 1)
_DAYS_PER_YEAR = 365.2425


def formats(texts: Sequence[str]) -> list[str]:
    """Return the formats in which all texts are dates or times, with different meanings.

    Args:
        texts: distinct texts without surrounding spaces.

    Returns:
        `iso` for ISO 8601, or formats of `strptime`; several if the texts are ambiguous.
    """
    candidates = [ISO, *_FORMATS]
    for text in texts:
        candidates = [each for each in candidates if parse(text, each) is not None]
        if not candidates:
            return []
    if len(candidates) == 1:
        return candidates
    # Formats of one meaning, such as short and long names of months that are May, are one.
    meanings = {tuple(parse(text, each) for text in texts): each for each in reversed(candidates)}
    return list(reversed(meanings.values()))


def are_months(texts: Sequence[str]) -> bool:
    """Return whether all texts are months such as 2024-01, and not all seasons such as 2009-10.

    Args:
        texts: distinct texts without surrounding spaces.
    """
    found = [_MONTH_TEXT.fullmatch(text) for text in texts]
    pairs = [(int(own[1]), int(own[2])) for own in found if own]
    is_season = all((year + 1) % 100 == month for year, month in pairs)
    return len(pairs) == len(texts) and not is_season


def exception_of(texts: Sequence[str]) -> str | None:
    """Return the first text that has not the format of nearly all others; None without one.

    Args:
        texts: distinct texts without surrounding spaces.
    """
    for form in (ISO, *_FORMATS):
        others = [text for text in texts if parse(text, form) is None]
        if 0 < len(others) < 0.2 * len(texts):
            return others[0]
    return None


def parse(text: str, form: str) -> datetime | None:
    """Return the time that a text describes, in UTC if it has an offset; None for other texts.

    Args:
        text: text without surrounding spaces.
        form: `iso`, or a format of `strptime`.
    """
    try:
        if form == ISO:
            if len(text) < 8 or not ("-" in text[4:8] and text[:4].isdigit()):
                return None  # 20240131 is a number
            moment = datetime.fromisoformat(text)
        else:
            moment = datetime.strptime(text, form)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def has_day(form: str) -> bool:
    """Return whether a format has a date, and not only a time of the day.

    Args:
        form: `iso`, or a format of `strptime`.
    """
    return form == ISO or any(part in form for part in ("%Y", "%y", "%d", "%j", "%x", "%c"))


def feature_names(name: str, *, day: bool, time: bool) -> tuple[str, ...]:
    """Return the names of the features of a column.

    Args:
        name: name of the column.
        day: whether it has dates.
        time: whether it has times of the day.
    """
    cycles = [cycle for cycle, has in (("year", day), ("week", day), ("day", time)) if has]
    waves = (f"{name} ({cycle} {wave})" for cycle in cycles for wave in ("sine", "cosine"))
    return (*((name,) if day else ()), *waves)


def features(moments: Sequence[datetime | None], *, day: bool, time: bool) -> np.ndarray:
    """Return the features (point, feature) of times; NaN for None.

    The trend is in years since 2000; the others are sine and cosine of the position in the year,
    the week and the day.

    Args:
        moments: times without an offset.
        day: whether they have dates.
        time: whether they have times of the day.
    """
    rows = np.full((len(moments), len(feature_names("", day=day, time=time))), math.nan)
    for row, moment in enumerate(moments):
        if moment is None:
            continue
        days = (moment - EPOCH).total_seconds() / 86_400
        start = datetime(moment.year, 1, 1)
        in_year = (moment - start) / timedelta(days=366 if isleap(moment.year) else 365)
        # 2000-01-01 was a Saturday; a week begins on Monday.
        phases = [(in_year, day), ((days + 5) / 7, day), (days % 1, time)]
        waves = (
            wave(2 * math.pi * phase)
            for phase, has in phases
            if has
            for wave in (math.sin, math.cos)
        )
        rows[row] = [*([days / _DAYS_PER_YEAR] if day else []), *waves]
    return rows


def moments_of(series: "pandas.Series", form: str) -> list[datetime | None]:
    """Return the times of a column of texts or of timestamps; None where it is not of the format.

    Args:
        series: column.
        form: `iso`, or a format of `strptime`.
    """
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        if series.dt.tz is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return [None if pd.isna(stamp) else stamp.to_pydatetime() for stamp in series]
    return [_moment(value, form) for value in series.tolist()]


def _moment(value: object, form: str) -> datetime | None:
    text = value.strip() if isinstance(value, str) else str(value)
    found = parse(text, form)
    if found is None and not isinstance(value, str):
        return parse(text, ISO)
    return found
