"""Infer the type of a target."""

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from bnn_symm.data.config import DataConfig
from bnn_symm.data.preprocessing.column_types.formats import notation_of
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.column_types.objects import (
    check_codes,
    form_of_objects,
    refuse_types,
)
from bnn_symm.data.preprocessing.column_types.text_columns import infer_text_column, typed_values
from bnn_symm.data.preprocessing.column_values import (
    all_integers,
    check_missing,
    column_values,
    numbers,
)
from bnn_symm.data.preprocessing.columns import plain_texts
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.errors import InvalidData

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class InferredTarget:
    """A target with its inferred type.

    Args:
        values: int64, float64, bool or objects.
        notation: how its numbers are written; None for the plain notation.
        notes: sentences about what was decided.
    """

    values: np.ndarray
    notation: NumberNotation | None = None
    notes: tuple[str, ...] = ()


def infer_target(
    series: "pandas.Series", config: DataConfig | None = None, *, is_text: bool
) -> InferredTarget:
    """Infer the type of a target, and return its values in that type.

    Args:
        series: column without missing values.
        config: of a table, with the declared decimal mark; None for an array, whose numbers have
            the plain notation.
        is_text: whether it comes from a text file.

    Raises:
        InvalidData: if values are missing, dates, ambiguous numbers, or of other types.
    """
    what = f"target {quoted(str(series.name))}"
    check_missing(series, what=what)
    if is_text:
        found = _of_notation(series, what, config)
        if found is not None:
            return found
        texts = series.tolist()
        decision = infer_text_column(what, texts, is_target=True)
        return InferredTarget(values=typed_values(decision.kind, texts), notes=decision.notes)
    refuse_types(series, what)
    if form_of_objects(series) is not None:
        raise InvalidData(
            f"{what} contains dates or times, which are no targets; choose another target, or "
            "convert it to numbers"
        )
    values = column_values(series)
    if any(isinstance(value, Decimal) for value in values.tolist()):
        values = numbers(values, what)
    if values.dtype.kind in "biuf" or all_integers(values):
        return InferredTarget(values=values)
    if not all(isinstance(value, str) for value in values.tolist()):
        return InferredTarget(values=values)  # the categories of a categorical type
    found = _of_notation(series, what, config)
    if found is not None:
        return found
    decision = infer_text_column(what, values.tolist(), is_target=True)
    if decision.kind == "number":
        check_codes(what, values.tolist())
    stripped = np.array([value.strip() for value in values.tolist()], dtype=object)
    return InferredTarget(values=stripped, notes=decision.notes)


def _of_notation(
    series: "pandas.Series", what: str, config: DataConfig | None
) -> InferredTarget | None:
    """Return a target of texts that are numbers in another than the plain notation."""
    if config is None:
        return None
    texts = [text.strip() for text in series.tolist()]
    notation = notation_of(what, texts, config)
    if notation is None:
        return None
    plain = plain_texts(series, notation, what).tolist()
    note = f"{what}: numbers with {notation.describe()} ({texts[0]!r} in row 1)"
    return InferredTarget(values=typed_values("number", plain), notation=notation, notes=(note,))
