"""The columns of a table: what each holds, and how it becomes numbers."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bnn_symm.data.labels import Label, label_indices, plain_label, sorted_labels
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

# Above this many distinct texts a column is no longer read as a category without further questions.
_FEW_CATEGORIES = 20
_ID_NAME = re.compile(r"^(id|index|uuid|guid|.*_id|.* id|unnamed: \d+)$", re.IGNORECASE)
_DATE_TEXT = re.compile(
    r"^\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}|\d{1,2}[-/]\d{1,2}[-/]\d{2}"
    r"|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}|[A-Za-z]{3,9} \d{1,2},? \d{4})([ T].*)?$"
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One raw column of a table.

    Args:
        name: as in the table.
        kind: `number` stays as it is, `boolean` becomes 0 or 1, `category` one 0/1 feature a category.
        categories: the sorted categories, for `category` only.
    """

    name: str
    kind: Literal["number", "boolean", "category"]
    categories: tuple[Label, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features that this column becomes."""
        if self.kind == "category":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)

    def encode(self, series: "pandas.Series") -> np.ndarray:
        """The column as float64 numbers (point, feature).

        Raises:
            InvalidData: for a missing or infinite value, one that is not a number, or an unseen category.
        """
        check_missing(series, self.name)
        if self.kind == "category":
            indices = label_indices(column_values(series), self.categories)
            if (indices < 0).any():
                row = int(np.argmax(indices < 0))
                raise InvalidData(
                    f"column {self.name!r}, row {row + 1}: {plain_label(series.iloc[row])!r} is not one "
                    "of the categories "
                    f"seen in training ({short_list(self.categories)}); correct it or drop the row"
                )
            return np.eye(len(self.categories))[indices]
        values = numbers(series, f"column {self.name!r}", booleans=self.kind == "boolean")
        if self.kind == "boolean" and (wrong := ~np.isin(values, (0.0, 1.0))).any():
            row = int(np.argmax(wrong))
            raise InvalidData(
                f"column {self.name!r}, row {row + 1}: got {plain_label(series.iloc[row])!r}, wanted true "
                "or false; correct it"
            )
        return values[:, None]

    def to_dict(self) -> dict[str, Any]:
        """The column as JSON types."""
        return {"name": self.name, "kind": self.kind, "categories": list(self.categories)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Column":
        """The inverse of `to_dict`."""
        return cls(name=content["name"], kind=content["kind"], categories=tuple(content["categories"]))


def infer_columns(frame: "pandas.DataFrame") -> tuple[Column, ...]:
    """What each feature column holds; columns that no model should learn from are refused by name.

    Raises:
        InvalidData: for a date, an identifier, free text, or values that are neither numbers nor text.
    """
    return tuple(_infer(table_column(frame, name)) for name in frame.columns)


def _infer(series: "pandas.Series") -> Column:
    from pandas.api import types

    name = str(series.name)
    check_missing(series, name)
    dtype = series.dtype
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        raise _refused(name, "holds dates or times", "or turn it into numbers")
    if types.is_bool_dtype(dtype) and str(dtype) != "category":
        return Column(name=name, kind="boolean")
    if types.is_complex_dtype(dtype):
        raise _refused(name, "holds complex numbers", "or turn it into real numbers")
    if types.is_numeric_dtype(dtype):
        if types.is_integer_dtype(dtype) and _ID_NAME.match(name):
            raise _refused(name, "holds integers and is named like an identifier", "or rename it if it is a feature")
        return Column(name=name, kind="number")
    values = column_values(series)
    kinds = {type(value).__name__ for value in values}
    if not kinds <= {"str", "int", "float", "bool"}:
        raise _refused(name, f"holds values of type {', '.join(sorted(kinds))}", "or turn it into numbers or text")
    _refuse_text_without_meaning(name, [str(value) for value in values])
    return Column(name=name, kind="category", categories=sorted_labels(values))


def _refuse_text_without_meaning(name: str, texts: list[str]) -> None:
    distinct = sorted(set(texts))
    if sum(bool(_DATE_TEXT.match(text)) for text in distinct) > 0.8 * len(distinct):
        raise _refused(name, f"holds dates ({texts[0]!r})", "or turn it into numbers")
    if len(distinct) > _FEW_CATEGORIES:
        wrong = [row for row, text in enumerate(texts) if not _is_number(text)]
        if 0 < len(wrong) < len(texts) / 2:
            raise InvalidData(
                f"column {name!r} holds numbers, but row {wrong[0] + 1} has {texts[wrong[0]]!r} "
                f"({len(wrong)} such values in all); correct them or drop the rows"
            )
    few = len(distinct) <= _FEW_CATEGORIES
    if len(texts) > 1 and (len(distinct) == len(texts) or (not few and len(distinct) > len(texts) / 2)):
        raise _refused(name, f"is text with {len(distinct)} distinct values in {len(texts)} rows", "from the file")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refused(name: str, why: str, otherwise: str) -> InvalidData:
    return InvalidData(f"column {name!r} {why}, which is no feature to learn from; drop it {otherwise}")


def table_column(frame: Any, name: str) -> "pandas.Series":
    """One column of a table whose column names are distinct."""
    return frame[name]


def check_missing(series: "pandas.Series", name: str) -> None:
    """Refuses a column with missing values; rows count from 1, the header not included.

    Raises:
        InvalidData: naming the column, the first such row and how many there are.
    """
    missing = series.isna().to_numpy()
    if missing.any():
        raise InvalidData(
            f"column {name!r}: empty or NaN in row {int(np.argmax(missing)) + 1} ({int(missing.sum())} "
            "such values in all), wanted a value in every row; fill them in or drop the rows"
        )


def numbers(values: Any, what: str, *, booleans: bool = False) -> np.ndarray:
    """A column as finite float64 numbers (point,).

    Args:
        values: a series or an array without missing values.
        what: the words for it in a message.
        booleans: read the words true and false as 1 and 0.

    Raises:
        InvalidData: naming the row of the first value that is not a finite number.
    """
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    if booleans and not pd.api.types.is_numeric_dtype(series.dtype):
        words = {"true": 1.0, "false": 0.0}
        series = series.map(lambda value: words.get(str(value).strip().lower(), value))
    try:
        coerced: Any = pd.to_numeric(series, errors="coerce")
        result = coerced.to_numpy(dtype=np.float64, na_value=np.nan)
    except TypeError as error:
        raise InvalidData(f"{what}: got values of type {series.dtype}, wanted numbers; convert the column") from error
    wrong = ~np.isfinite(result)
    if wrong.any():
        row = int(np.argmax(wrong))
        got = series.iloc[row]
        raise InvalidData(
            f"{what}, row {row + 1}: got {'NaN' if pd.isna(got) else repr(plain_label(got))} "
            f"({int(wrong.sum())} such values in all), wanted a finite number; correct them or drop the rows"
        )
    return result


def column_values(series: "pandas.Series") -> np.ndarray:
    """The values of a column: numbers and booleans as numpy has them, anything else as objects."""
    from pandas.api import types

    dtype = series.dtype
    plain = str(dtype) != "category" and (types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype))
    if plain and not series.isna().any():
        kind = bool if types.is_bool_dtype(dtype) else np.int64 if types.is_integer_dtype(dtype) else np.float64
        return series.to_numpy(dtype=kind)
    return series.astype(object).to_numpy()


def short_list(words: Any, most: int = 10) -> str:
    """At most `most` words in one line."""
    texts = [str(word) for word in words]
    return ", ".join(texts[:most]) + (f", ... ({len(texts)} in all)" if len(texts) > most else "")
