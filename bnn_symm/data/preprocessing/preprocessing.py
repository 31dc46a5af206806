"""Encoding of raw inputs and targets as tensors; stored with a run and applied to new data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, cast

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.advice import advise, advise_setting
from bnn_symm.data.disk import stored_tensor
from bnn_symm.data.preprocessing.array_values import array_features, check_integers
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.column_values import (
    check_missing,
    check_names,
    is_missing,
    numbers,
    table_column,
)
from bnn_symm.data.preprocessing.columns import Column, plain_texts
from bnn_symm.data.preprocessing.labels import Label, label_array, label_indices
from bnn_symm.data.preprocessing.point_columns import PointColumn, target_values
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import Task
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessing:
    """Encoding of raw data as the tensors of a `Split`, and back.

    Args:
        task: type of the target.
        kind: whether the raw inputs are a table with named columns, an array of numbers, or an
            array of tokens or of numbers of nodes, which are integers and not standardized.
        columns: columns of a table; empty for an array.
        target: name of the target; several names are joined by commas.
        class_labels: original labels in the order of the class indices.
        input_shape: shape of one encoded point.
        feature_names: names of the encoded features, flattened.
        scaling: standardization fitted to the training split.
        target_notation: how the numbers of the target are written as text, if not plainly.
        delimiter: the declared character between fields of text files; None if it is found.
        target_columns: the columns of several targets; empty for one.
        point_columns: columns that describe points and are no features, such as weights.
    """

    task: Task
    kind: Literal["table", "array", "tokens", "nodes"]
    columns: tuple[Column, ...]
    target: str
    class_labels: tuple[Label, ...]
    input_shape: tuple[int, ...]
    feature_names: tuple[str, ...]
    scaling: Scaling
    target_notation: NumberNotation | None = None
    delimiter: str | None = None
    target_columns: tuple[PointColumn, ...] = ()
    point_columns: tuple[PointColumn, ...] = ()

    def with_medians(
        self, features: np.ndarray, rows: np.ndarray
    ) -> "tuple[Preprocessing, np.ndarray]":
        """Return the preprocessing that replaces missing values, and the features with them.

        Args:
            features: (point, feature) of a table, from `features` before this call; NaN is missing.
            rows: the rows of the training split, whose medians are taken.
        """
        if not any(column.can_be_filled for column in self.columns):
            return self, features
        columns, filled, start = [], features.copy(), 0
        for column in self.columns:
            where = slice(start, start + len(column.feature_names))
            fitted = column.fitted(features[rows, where])
            part = filled[:, where]
            part[np.isnan(part).any(axis=1), : len(fitted.fill)] = fitted.fill
            columns.append(fitted)
            start = where.stop
        return replace(self, columns=tuple(columns)), filled

    @property
    def has_integers(self) -> bool:
        """Return whether the inputs are integers that a network looks up: tokens or nodes."""
        return self.kind in ("tokens", "nodes")

    def with_scaling(self, scaling: Scaling) -> "Preprocessing":
        """Return the preprocessing with a standardization, which leaves integers unchanged.

        Args:
            scaling: that of the training split.
        """
        if self.has_integers:
            scaling = replace(scaling, x_mean=self.scaling.x_mean, x_scale=self.scaling.x_scale)
        return replace(self, scaling=scaling)

    def standardize(
        self,
        features: np.ndarray,
        dtype: torch.dtype,
        rows: np.ndarray | None = None,
        path: Path | None = None,
    ) -> Shaped[Tensor, "point *feature"]:
        """Return features as the inputs of a network: standardized; tokens or nodes as int64.

        Args:
            features: (point, *feature), from `features`.
            dtype: floating-point type of numbers.
            rows: row indices; None for all.
            path: a file for the result, which is then a map of it; None for memory.

        Raises:
            ConfigError: if the file cannot be written.
            InvalidData: if a value is too large for `dtype`, or is no token.
        """
        rows = np.arange(len(features)) if rows is None else rows
        if self.has_integers:
            check_integers(features, self.kind)
            chunks = iter([torch.from_numpy(features[rows].astype(np.int64))])
        else:
            chunks = self.scaling.standardize(features, rows, dtype)
        shape = (len(rows), *features.shape[1:])
        if path is not None and len(rows):
            return stored_tensor(chunks, path, shape)
        result = torch.empty(shape, dtype=torch.int64 if self.has_integers else dtype)
        start = 0
        for chunk in chunks:
            result[start : start + len(chunk)] = chunk
            start += len(chunk)
        return result

    def encode(
        self, raw_x: Union["pandas.DataFrame", np.ndarray], dtype: torch.dtype = torch.float32
    ) -> Shaped[Tensor, "point *feature"]:
        """Return raw inputs as standardized features, or as tokens.

        Columns of a table are matched by name. Their order does not matter, and further columns are
        ignored.

        Args:
            raw_x: table, or array (point, *feature).
            dtype: floating-point type of the result.

        Raises:
            InvalidData: if columns are missing, the shape is wrong, or values are NaN, infinite or
                unseen categories.
        """
        return self.standardize(self.features(raw_x), dtype)

    def features(self, raw_x: Union["pandas.DataFrame", np.ndarray]) -> np.ndarray:
        """Return raw inputs as finite numbers (point, *feature) before standardization.

        Args:
            raw_x: table, or array (point, *feature).

        Raises:
            ConfigError: if the inputs are neither a table nor an array.
            InvalidData: as `encode` does.
        """
        if not isinstance(raw_x, np.ndarray) and hasattr(raw_x, "to_pandas"):
            raw_x = cast(Any, raw_x).to_pandas()  # a table of another library, such as polars
        if not hasattr(raw_x, "columns") and not isinstance(raw_x, np.ndarray):
            raise ConfigError(
                f"got {type(raw_x).__name__}, expected raw inputs as a pandas DataFrame or a numpy "
                "array; convert them, for example with numpy.asarray(...)"
            )
        if len(raw_x) == 0:
            raise InvalidData("got no rows, expected at least one; check the file")
        if isinstance(raw_x, np.ndarray):
            return self._from_array(raw_x)
        if self.kind == "table":
            columns = _find_columns(raw_x, [column.name for column in self.columns])
            return np.concatenate(
                [column.encode(columns[column.name]) for column in self.columns], axis=1
            )
        columns = _find_columns(raw_x, self.feature_names)
        encoded = []
        for name in self.feature_names:
            check_missing(columns[name], name)
            encoded.append(numbers(columns[name], f"column {quoted(name)}"))
        return np.stack(encoded, axis=1).reshape(-1, *self.input_shape)

    def encode_target(
        self, raw_y: Any, dtype: torch.dtype = torch.float32
    ) -> Shaped[Tensor, "point *column"]:
        """Return a raw target as class indices (int64), standardized numbers, times, or counts.

        Args:
            raw_y: labels or numbers (point,), or numbers (point, column) of several targets.
            dtype: floating-point type of numbers and counts.

        Raises:
            InvalidData: if a value is missing, an unknown class, not a number, or not a count.
        """
        values = np.asarray(raw_y)
        if self.target_columns:
            return self._encode_columns(values, dtype)
        if self.target_notation is not None:
            what = f"target {quoted(self.target)}"
            values = plain_texts(_series(values), self.target_notation, what).to_numpy()
        if self.task == "classification":
            return torch.from_numpy(self._class_indices(values))
        result = numbers(values, f"target {quoted(self.target)}", booleans=True)
        if self.task == "count":
            wrong = (result < 0) | (result != np.floor(result))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise InvalidData(
                    f"target {quoted(self.target)}, row {row + 1}: got {result[row]:g}, expected "
                    "counts 0, 1, 2, ...; correct it or use "
                    f"{advise_setting('data.task=regression')}"
                )
        if self.task == "survival" and (result <= 0).any():
            row = int(np.argmax(result <= 0))
            raise InvalidData(
                f"target {quoted(self.target)}, row {row + 1}: got {result[row]:g}, expected a "
                "positive time; correct it, drop the row, or replace a time of zero by half of the "
                "unit in which times are rounded"
            )
        if self.task in ("regression", "survival"):
            result = self.scaling.standardize_target(result)
        return self._finite(result, dtype)

    def encode_targets(
        self, raw_y: Any, points: Mapping[str, np.ndarray], dtype: torch.dtype = torch.float32
    ) -> Shaped[Tensor, "point *column"]:
        """Return a raw target as `encode_target` does, with its events or exposures.

        Args:
            raw_y: labels or numbers (point,), or numbers (point, column) of several targets.
            points: role of a column that describes points -> numbers (point,).
            dtype: floating-point type of numbers and counts.

        Returns:
            The target; of times and of counts with an exposure, (point, 2): the time and whether
            the event was seen, or the count and the scaled exposure. Times without a column of
            events are all seen.

        Raises:
            InvalidData: as `encode_target` does.
        """
        y = self.encode_target(raw_y, dtype)
        if self.task == "survival":
            second = points.get("event", np.ones(len(y)))
        elif self.exposure_column is not None:
            second = points["exposure"] / self.scaling.exposure_scale
        else:
            return y
        return torch.stack([y, torch.from_numpy(second).to(dtype)], dim=1)

    def _encode_columns(
        self, values: np.ndarray, dtype: torch.dtype
    ) -> Float[Tensor, "point column"]:
        """Return the standardized numbers of several targets."""
        raw = dict(zip([column.name for column in self.target_columns], values.T, strict=True))
        result = target_values(self.target_columns, raw)
        return self._finite(self.scaling.standardize_target(result), dtype)

    def _finite(self, result: np.ndarray, dtype: torch.dtype) -> Tensor:
        """Return numbers as a tensor, all of which are finite in its type."""
        encoded = torch.from_numpy(result).to(dtype)
        if not torch.isfinite(encoded).all():
            row = int(torch.isfinite(encoded).logical_not().nonzero()[0, 0])
            raise InvalidData(
                f"target {quoted(self.target)}, row {row + 1}: {result[row]} is too large for "
                f"{dtype}; rescale the target or use "
                f"{advise('--set dtype=float64', 'dtype=torch.float64')}"
            )
        return encoded

    @property
    def exposure_column(self) -> PointColumn | None:
        """Return the column of exposures, if counts have them."""
        return next((own for own in self.point_columns if own.role == "exposure"), None)

    def exposure_of(self, raw_x: Any) -> np.ndarray | None:
        """Return the exposures (point,) of raw inputs, in their own units.

        Args:
            raw_x: table, or array (point, *feature), which has none.

        Returns:
            The exposures; None if there is no such column.

        Raises:
            InvalidData: if one is missing or not positive.
        """
        column, columns = self.exposure_column, getattr(raw_x, "columns", ())
        if column is None or column.name not in columns:
            return None
        return column.values(np.asarray(raw_x[column.name]))

    def decode_labels(self, indices: Any) -> np.ndarray:
        """Return the original labels of class indices.

        Args:
            indices: class indices of any shape.
        """
        if isinstance(indices, Tensor):
            indices = indices.cpu().numpy()
        return label_array(self.class_labels)[np.asarray(indices)]

    def to_dict(self) -> dict[str, Any]:
        """Return the preprocessing as JSON types."""
        return {
            "task": self.task,
            "kind": self.kind,
            "columns": [column.to_dict() for column in self.columns],
            "target": self.target,
            "class_labels": list(self.class_labels),
            "input_shape": list(self.input_shape),
            "feature_names": list(self.feature_names),
            "scaling": self.scaling.to_dict(),
            **({"target_notation": self.target_notation.to_dict()} if self.target_notation else {}),
            **({"delimiter": self.delimiter} if self.delimiter else {}),
            **(
                {"target_columns": [column.to_dict() for column in self.target_columns]}
                if self.target_columns
                else {}
            ),
            **(
                {"point_columns": [column.to_dict() for column in self.point_columns]}
                if self.point_columns
                else {}
            ),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing from the result of `to_dict`."""
        notation = content.get("target_notation")
        return cls(
            task=content["task"],
            kind=content["kind"],
            columns=tuple(Column.from_dict(column) for column in content["columns"]),
            target=content["target"],
            class_labels=tuple(content["class_labels"]),
            input_shape=tuple(content["input_shape"]),
            feature_names=tuple(content["feature_names"]),
            scaling=Scaling.from_dict(content["scaling"]),
            target_notation=NumberNotation.from_dict(notation) if notation else None,
            delimiter=content.get("delimiter"),
            target_columns=tuple(map(PointColumn.from_dict, content.get("target_columns", ()))),
            point_columns=tuple(map(PointColumn.from_dict, content.get("point_columns", ()))),
        )

    def _class_indices(self, values: np.ndarray) -> np.ndarray:
        missing = is_missing(values)
        if missing.any():
            raise InvalidData(
                f"target {quoted(self.target)}: missing value in row {int(np.argmax(missing)) + 1} "
                f"({int(missing.sum())} missing in total); fill in the labels or drop the rows"
            )
        indices = label_indices(values, self.class_labels)
        unknown = indices < 0
        if unknown.any():
            labels = list(dict.fromkeys(quoted(value) for value in values[unknown]))
            raise InvalidData(
                f"target {quoted(self.target)} has unknown classes: {short_list(labels, 4, 60)} "
                f"(first in row {int(np.argmax(unknown)) + 1}); known: "
                f"{short_list(map(quoted, self.class_labels), 10, 60)}; use data with these "
                "classes"
            )
        return indices

    def _from_array(self, x: np.ndarray) -> np.ndarray:
        if self.kind == "table":
            if (
                x.ndim != 2
                or x.shape[1] != len(self.columns)
                or any(c.kind == "category" for c in self.columns)
            ):
                names = short_list(column.name for column in self.columns)
                raise InvalidData(
                    f"got an array of shape {x.shape}, expected a table with the columns {names}"
                )
            return np.concatenate(
                [column.encode(_series(x[:, i])) for i, column in enumerate(self.columns)], axis=1
            )
        return array_features(x, self.input_shape, self.feature_names)


def _find_columns(frame: "pandas.DataFrame", expected: Sequence[str]) -> "dict[str, pandas.Series]":
    """Return the columns of a table by name, ignoring spaces around names."""
    check_names(frame)
    known = {str(name).strip(): name for name in frame.columns}
    known |= {str(name): name for name in frame.columns}
    matches = {name: known.get(name, known.get(name.strip())) for name in expected}
    missing = [name for name, column in matches.items() if column is None]
    if missing:
        hint = nearest(missing[0], [one_line(name, 30) for name in known][:20])
        raise InvalidData(
            f"columns are missing: {short_list(missing, width=80)}; for {quoted(missing[0], 30)}, "
            f"{one_line(hint, 120)}"
        )
    return {
        name: table_column(frame, column) for name, column in matches.items() if column is not None
    }


def _series(values: np.ndarray) -> "pandas.Series":
    import pandas as pd

    return pd.Series(values)
