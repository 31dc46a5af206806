"""Columns that are no features: weights, events and exposures of points, and several targets.

Each has a role, which is the key of the configuration that names it (`data.weight`, `data.target`),
and is read as numbers in the notation of the training data; true and false of events are 1 and 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_types.formats import notation_of
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.column_values import check_missing, numbers
from bnn_symm.data.preprocessing.columns import plain_texts
from bnn_symm.data.preprocessing.labels import sorted_labels
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas

_EXPECTED = {
    "weight": "a number of observations, 0 or more",
    "event": "1 or true (the event was seen), or 0 or false (the time is censored)",
    "exposure": "a positive exposure",
}
"""Roles of one column each, and their values; targets may be any numbers."""


@dataclass(frozen=True, kw_only=True)
class PointColumn:
    """A column with one number for each point.

    Args:
        role: `weight`, `event`, `exposure`, or `target`.
        name: name of the column or array.
        notation: how its numbers are written; None for the plain notation.
    """

    role: str
    name: str
    notation: NumberNotation | None = None

    @property
    def what(self) -> str:
        """Return its description for messages."""
        return f"{self.role} {quoted(self.name)}"

    def values(self, raw: Any) -> np.ndarray:
        """Return the numbers of a raw column, in float64.

        Args:
            raw: series or array (point,).

        Raises:
            InvalidData: naming the first value that is missing, not a number, or not of this role.
        """
        import pandas as pd

        series = pd.Series(raw).reset_index(drop=True)
        check_missing(series, what=self.what)
        if self.role == "event":
            return self._events(series)
        values = numbers(plain_texts(series, self.notation, self.what), self.what)
        wrong = values <= 0 if self.role == "exposure" else values < 0
        if self.role in _EXPECTED and wrong.any():
            row = int(np.argmax(wrong))
            raise InvalidData(
                f"{self.what}, row {row + 1}: got {values[row]:g}, expected "
                f"{_EXPECTED[self.role]}; correct it or drop the row"
            )
        return values

    def _events(self, series: "pandas.Series") -> np.ndarray:
        """Return 1 for events, 0 for censored times."""
        try:
            values = numbers(series, self.what, booleans=True)
        except InvalidData:
            values = np.full(len(series), np.nan)
        wrong = (values != 0) & (values != 1)
        if wrong.any():
            listed = short_list(map(quoted, sorted_labels(series.tolist())), 4, 60)
            raise InvalidData(
                f"{self.what} has the values {listed}, expected {_EXPECTED['event']}; recode the "
                "column"
            )
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return the column as JSON types."""
        notation = {"notation": self.notation.to_dict()} if self.notation else {}
        return {"role": self.role, "name": self.name, **notation}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "PointColumn":
        """Return the column from the result of `to_dict`."""
        notation = content.get("notation")
        return cls(
            role=content["role"],
            name=content["name"],
            notation=NumberNotation.from_dict(notation) if notation else None,
        )


def point_column_names(config: DataConfig) -> dict[str, str]:
    """Return role -> name of the columns that a configuration names.

    Args:
        config: the configuration of the data.
    """
    return {role: name for role in _EXPECTED if (name := getattr(config, role)) is not None}


def infer_point_column(
    role: str, name: str, raw: Any, config: DataConfig, *, is_text: bool
) -> PointColumn:
    """Return a column with the notation of its numbers.

    Args:
        role: `weight`, `event`, `exposure`, or `target`.
        name: name of the column.
        raw: its values.
        config: the declared decimal mark.
        is_text: whether they are texts of a text file.

    Raises:
        InvalidData: if they are numbers in two notations with different meanings.
    """
    plain = PointColumn(role=role, name=name)
    if not is_text or role == "event":
        return plain
    check_missing(raw, what=plain.what)
    notation = notation_of(plain.what, [text.strip() for text in raw.tolist()], config)
    return PointColumn(role=role, name=name, notation=notation)


def point_values(
    columns: tuple[PointColumn, ...], raw: "Mapping[str, Any] | pandas.DataFrame"
) -> dict[str, np.ndarray]:
    """Return role -> numbers of the columns that are present.

    Args:
        columns: the columns.
        raw: columns or arrays by name.
    """
    return {
        column.role: column.values(raw[column.name]) for column in columns if column.name in raw
    }


def target_values(
    columns: tuple[PointColumn, ...], raw: "Mapping[str, Any] | pandas.DataFrame"
) -> np.ndarray:
    """Return the numbers (point, column) of several targets, all of which are present.

    Args:
        columns: the columns of the targets.
        raw: columns or arrays by name.
    """
    return np.stack([column.values(raw[column.name]) for column in columns], axis=1)


def split_columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return an array (point, column) as columns by name: y0, y1, ...; another one unchanged.

    Args:
        name: name of the array, such as y.
        values: the array.
    """
    if values.ndim != 2 or values.shape[1] < 2:
        return {name: values}
    return {f"{name}{number}": values[:, number] for number in range(values.shape[1])}
