"""Columns of a table: their types and their encoding as numbers."""

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.preprocessing.column_types import dates
from bnn_symm.data.preprocessing.column_types.notation import describe_value, is_placeholder_text
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.column_values import (
    check_missing,
    column_values,
    is_missing,
    numbers,
)
from bnn_symm.data.preprocessing.labels import Label, label_indices
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

ColumnKind = Literal["number", "boolean", "category", "date", "text"]
# Features of a column of free text: counts of its words by hash.
_WORD_FEATURES = 32


@dataclass(frozen=True, kw_only=True)
class Column:
    """Type and encoding of one raw column of a table.

    A missing value of a number, boolean or date is replaced by the medians of the training split,
    and has a further feature that is 1; a missing category is a category of its own.

    Args:
        name: name in the table.
        kind: `number` is unchanged, `boolean` becomes 0 or 1, `category` becomes one 0/1 feature
            per category, `date` becomes a trend and positions in the year, week and day, and `text`
            becomes counts of words by hash.
        categories: sorted categories, for `category` only.
        notation: how numbers are written; None for the plain notation.
        date_format: `iso` or a format of `strptime`, for `date` only.
        has_time: whether dates have times of the day.
        has_missing: whether values may be missing.
        fill: the features of a missing number, boolean or date; empty if not fitted yet.
        pools: whether all other categories are one more category.
        accepts_unseen: whether an unknown category is none of the known ones (all features 0), and
            a missing value is the median even if the training data had none.
    """

    name: str
    kind: ColumnKind
    categories: tuple[Label, ...] = ()
    notation: NumberNotation | None = None
    date_format: str = ""
    has_time: bool = False
    has_missing: bool = False
    fill: tuple[float, ...] = ()
    pools: bool = False
    accepts_unseen: bool = False

    @property
    def value_names(self) -> tuple[str, ...]:
        """Return the names of the features of a value that is not missing."""
        if self.kind == "category":
            others = (f"{self.name} (other)",) if self.pools else ()
            return (*(f"{self.name}={category}" for category in self.categories), *others)
        if self.kind == "date":
            day = dates.has_day(self.date_format)
            return dates.feature_names(self.name, day=day, time=self.has_time)
        if self.kind == "text":
            return tuple(f"{self.name} (words {number})" for number in range(_WORD_FEATURES))
        return (self.name,)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of the features that encode this column."""
        return (*self.value_names, *((f"{self.name} (missing)",) if self.has_missing else ()))

    @property
    def can_be_filled(self) -> bool:
        """Return whether missing values are replaced by fitted features."""
        return (self.has_missing or self.accepts_unseen) and self.kind not in ("category", "text")

    def encode(self, series: "pandas.Series") -> np.ndarray:
        """Return the column as float64 numbers (point, feature).

        Each value is parsed by the stored type alone, independently of the other rows. The features
        of missing values are NaN if `fill` is not fitted yet.

        Args:
            series: column of a table.

        Raises:
            InvalidData: if a value is missing where the training data had none, infinite, not of
                the type, or an unseen category.
        """
        if self.kind == "text":
            return _word_counts(series)
        if not (self.has_missing or self.accepts_unseen):
            advice = advise_setting("data.unseen=ignore")
            remedy = f"fill in the values, drop the rows, or fit with {advice}"
            check_missing(series, self.name, remedy=remedy)
            return self._encode_present(series)
        missing = self.missing(series)
        if not (missing.any() or self.has_missing):
            return self._encode_present(series)
        present = series.astype(object).where(~missing, self._stand_in())
        features = self._encode_present(present)
        features[missing] = self.fill or (0.0 if self.kind == "category" else np.nan)
        if not self.has_missing:
            return features
        return np.concatenate([features, missing[:, None].astype(np.float64)], axis=1)

    def fitted(self, features: np.ndarray) -> "Column":
        """Return the column with the medians of its features as replacement of missing values.

        Args:
            features: (point, feature) of the training split, from `encode` before fitting.
        """
        if not self.can_be_filled:
            return self
        present = features[features[:, -1] == 0] if self.has_missing else features
        present = present[:, : len(self.value_names)]
        fill = np.median(present, axis=0) if len(present) else np.zeros(len(self.value_names))
        return replace(self, fill=tuple(fill.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON types; settings that do not apply are left out."""
        content: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "categories": list(self.categories),
        }
        if self.notation is not None:
            content["notation"] = self.notation.to_dict()
        if self.kind == "date":
            content |= {"date_format": self.date_format, "has_time": self.has_time}
        if self.has_missing:
            content["has_missing"] = True
        if self.can_be_filled or self.has_missing:
            content["fill"] = list(self.fill)
        if self.pools:
            content["pools"] = True
        if self.accepts_unseen:
            content["accepts_unseen"] = True
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Column":
        """Return the column from the result of `to_dict`, or of earlier versions."""
        notation = content.get("notation")
        return cls(
            name=content["name"],
            kind=content["kind"],
            categories=tuple(content["categories"]),
            notation=None if notation is None else NumberNotation.from_dict(notation),
            date_format=content.get("date_format", ""),
            has_time=content.get("has_time", False),
            has_missing=content.get("has_missing", False),
            fill=tuple(content.get("fill", ())),
            pools=content.get("pools", False),
            accepts_unseen=content.get("accepts_unseen", False),
        )

    def missing(self, series: "pandas.Series") -> np.ndarray:
        """Return where values (point,) are missing; placeholders are, unless it has words.

        Args:
            series: column of a table.
        """
        missing = is_missing(series)
        if self.kind == "category" or series.dtype.kind in "buif":
            return missing
        values = series.tolist()
        texts = {value for value in values if isinstance(value, str)}
        placeholders = {text for text in texts if is_placeholder(text)}
        return missing | np.array([value in placeholders for value in values], dtype=bool)

    def _stand_in(self) -> Any:
        """Return a value of the type, which takes the place of missing ones while encoding."""
        if self.kind == "category":
            return self.categories[0] if self.categories else ""
        if self.kind == "date":
            is_iso = self.date_format == dates.ISO
            return dates.EPOCH.isoformat() if is_iso else dates.EPOCH.strftime(self.date_format)
        return 0

    def _encode_present(self, series: "pandas.Series") -> np.ndarray:
        what = f"column {quoted(self.name)}"
        if self.kind == "category":
            return self._one_hot(series)
        if self.kind == "date":
            return self._date_features(series)
        series = plain_texts(series, self.notation, what)
        values = numbers(series, what, booleans=self.kind == "boolean")
        if self.kind == "boolean" and (wrong := ~np.isin(values, (0.0, 1.0))).any():
            row = int(np.argmax(wrong))
            raise InvalidData(
                f"{what}, row {row + 1}: got {quoted(series.iloc[row])}, "
                "expected true or false; correct it"
            )
        return values[:, None]

    def _one_hot(self, series: "pandas.Series") -> np.ndarray:
        indices = label_indices(column_values(series), self.categories)
        unknown = indices < 0
        if self.pools:
            indices[unknown] = len(self.categories)
        elif unknown.any() and not self.accepts_unseen:
            row = int(np.argmax(unknown))
            raise InvalidData(
                f"column {quoted(self.name)}, row {row + 1}: {quoted(series.iloc[row])} is not "
                f"a category of the training data ({short_list(self.categories, width=60)}); "
                f"correct it, drop the row, or fit with {advise_setting('data.unseen=ignore')}"
            )
        size = len(self.value_names)
        return np.eye(size + 1, size)[indices]  # the last row, of index -1, is all zeros

    def _date_features(self, series: "pandas.Series") -> np.ndarray:
        moments = dates.moments_of(series, self.date_format)
        if None in moments:
            row = moments.index(None)
            expected = "an ISO date" if self.date_format == dates.ISO else self.date_format
            raise InvalidData(
                f"column {quoted(self.name)}, row {row + 1}: got {quoted(series.iloc[row])}, "
                f"expected a date or time as in the training data ({expected}); correct it"
            )
        day = dates.has_day(self.date_format)
        return dates.features(moments, day=day, time=self.has_time)


def plain_texts(
    series: "pandas.Series", notation: NumberNotation | None, what: str
) -> "pandas.Series":
    """Return a column whose texts of a notation are in the plain one; other values are unchanged.

    Args:
        series: column.
        notation: the notation; None for the plain one.
        what: description of the column for the message.

    Raises:
        InvalidData: naming the first text of another notation.
    """
    if notation is None or series.dtype.kind in "buif":
        return series
    known: dict[str, str] = {}
    for row, value in enumerate(series.tolist(), start=1):
        if not isinstance(value, str) or value in known:
            continue
        plain = notation.plain(value.strip())
        if plain is None:
            raise InvalidData(
                f"{what}, row {row}: got {quoted(value)}{describe_value(value)}, expected a number "
                f"with {notation.describe()} as in the training data; correct it"
            )
        known[value] = plain
    return series.map(lambda value: known.get(value, value) if isinstance(value, str) else value)


def is_placeholder(value: Any) -> bool:
    """Return whether a value is a text that stands for a missing one, such as `NA`.

    Args:
        value: value of any type.
    """
    return isinstance(value, str) and is_placeholder_text(value.strip())


def _word_counts(series: "pandas.Series") -> np.ndarray:
    """Return log(1 + count) of the words of each text, by hash; a missing text has no words."""
    counts = np.zeros((len(series), _WORD_FEATURES))
    places: dict[str, int] = {}
    blank = is_missing(series)
    for row, value in enumerate(series.tolist()):
        for word in () if blank[row] else str(value).casefold().split():
            if word not in places:
                digest = hashlib.sha256(word.encode()).digest()
                places[word] = int.from_bytes(digest[:8], "little") % _WORD_FEATURES
            counts[row, places[word]] += 1
    return np.log1p(counts)
