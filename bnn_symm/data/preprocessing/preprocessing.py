"""From raw inputs to the tensors of a network and back; saved with a run and used for new data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.data.preprocessing.column_values import (
    check_missing,
    is_missing,
    numbers,
    table_column,
)
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import Label, label_array, label_indices
from bnn_symm.data.preprocessing.notation import is_exact
from bnn_symm.data.preprocessing.quoting import quoted, short_list
from bnn_symm.data.preprocessing.scaling import Scaling
from bnn_symm.data.raw import Task
from bnn_symm.errors import ConfigError, InvalidData, nearest, one_line

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocessing:
    """Everything needed to turn raw data into a `Split` and back.

    Args:
        task: what the target is.
        kind: whether the raw inputs were a table with named columns or an array.
        columns: the raw columns of a table; empty for an array.
        target: the name of the target.
        class_labels: the labels in the user's own words, in the order of the class indices.
        input_shape: the shape of one encoded point.
        feature_names: of the encoded features, flat.
        scaling: fitted on the training part.
    """

    task: Task
    kind: Literal["table", "array"]
    columns: tuple[Column, ...]
    target: str
    class_labels: tuple[Label, ...]
    input_shape: tuple[int, ...]
    feature_names: tuple[str, ...]
    scaling: Scaling

    def encode(
        self, raw_x: Union["pandas.DataFrame", np.ndarray], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "point *feature"]:
        """Raw inputs as standardized features.

        A table's columns are matched by name: their order does not matter and further columns are
        ignored.

        Raises:
            InvalidData: for missing columns, a wrong shape, NaN or infinity, or an unseen category.
        """
        return self.scaling.standardize(self.features(raw_x), dtype)

    def features(self, raw_x: Union["pandas.DataFrame", np.ndarray]) -> np.ndarray:
        """Raw inputs as finite numbers (point, *feature), not yet standardized; raises as `encode`
        does.
        """
        if not hasattr(raw_x, "columns") and not isinstance(raw_x, np.ndarray):
            raise ConfigError(
                f"got {type(raw_x).__name__}, expected raw inputs as a pandas DataFrame or a numpy "
                "array; convert them, for example by numpy.asarray(...)"
            )
        if len(raw_x) == 0:
            raise InvalidData("got no rows, wanted at least one; check the file")
        if isinstance(raw_x, np.ndarray):
            return self._from_array(raw_x)
        if self.kind == "table":
            found = _find_columns(raw_x, [column.name for column in self.columns])
            return np.concatenate(
                [column.encode(found[column.name]) for column in self.columns], axis=1
            )
        found = _find_columns(raw_x, self.feature_names)
        encoded = []
        for name in self.feature_names:
            check_missing(found[name], name)
            encoded.append(numbers(found[name], f"column {quoted(name)}"))
        return np.stack(encoded, axis=1).reshape(-1, *self.input_shape)

    def encode_target(
        self, raw_y: Any, dtype: torch.dtype = torch.float32
    ) -> Shaped[Tensor, "point"]:
        """A raw target as class indices (int64), standardized numbers (regression) or counts.

        Raises:
            InvalidData: for a missing value, an unknown class, a value that is not a number, or not
                a count.
        """
        values = np.asarray(raw_y)
        if self.task == "classification":
            return torch.from_numpy(self._class_indices(values))
        result = numbers(values, f"target {quoted(self.target)}", booleans=True)
        if self.task == "count":
            wrong = (result < 0) | (result != np.floor(result))
            if wrong.any():
                row = int(np.argmax(wrong))
                raise InvalidData(
                    f"target {quoted(self.target)}, row {row + 1}: got {result[row]:g}, wanted "
                    "counts 0, 1, 2, ...; correct it or use --set data.task=regression"
                )
        if self.task == "regression":
            result = (result - self.scaling.y_mean) / self.scaling.y_scale
        encoded = torch.from_numpy(result).to(dtype)
        if not torch.isfinite(encoded).all():
            row = int(torch.isfinite(encoded).logical_not().nonzero()[0])
            raise InvalidData(
                f"target {quoted(self.target)}, row {row + 1}: {result[row]:g} is too large for "
                f"{dtype}; rescale the target or use --set dtype=float64"
            )
        return encoded

    def decode_labels(self, indices: Any) -> np.ndarray:
        """Class indices as the labels that the data had."""
        if isinstance(indices, Tensor):
            indices = indices.cpu().numpy()
        return label_array(self.class_labels)[np.asarray(indices)]

    def to_dict(self) -> dict[str, Any]:
        """The preprocessing as JSON types."""
        return {
            "task": self.task,
            "kind": self.kind,
            "columns": [column.to_dict() for column in self.columns],
            "target": self.target,
            "class_labels": list(self.class_labels),
            "input_shape": list(self.input_shape),
            "feature_names": list(self.feature_names),
            "scaling": self.scaling.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`."""
        return cls(
            task=content["task"],
            kind=content["kind"],
            columns=tuple(Column.from_dict(column) for column in content["columns"]),
            target=content["target"],
            class_labels=tuple(content["class_labels"]),
            input_shape=tuple(content["input_shape"]),
            feature_names=tuple(content["feature_names"]),
            scaling=Scaling.from_dict(content["scaling"]),
        )

    def _class_indices(self, values: np.ndarray) -> np.ndarray:
        missing = is_missing(values)
        if missing.any():
            raise InvalidData(
                f"target {quoted(self.target)}: empty or NaN in row {int(np.argmax(missing)) + 1} "
                f"({int(missing.sum())} such values in all), wanted a label in every row; fill "
                "them in or drop the rows"
            )
        indices = label_indices(values, self.class_labels)
        unknown = indices < 0
        if unknown.any():
            labels = list(dict.fromkeys(quoted(value) for value in values[unknown]))
            raise InvalidData(
                f"target {quoted(self.target)} has classes that the preprocessing does not know: "
                f"{short_list(labels, 4, 60)} (first in row {int(np.argmax(unknown)) + 1}); known: "
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
                    f"got an array of shape {x.shape}, wanted a table with the columns {names}"
                )
            return np.concatenate(
                [column.encode(_series(x[:, i])) for i, column in enumerate(self.columns)], axis=1
            )
        shape = self.input_shape
        flat = x.ndim == 2 and x.shape[1] == int(np.prod(shape))
        no_channel = len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]
        if not (x.shape[1:] == shape or flat or no_channel or (x.ndim == 1 and shape == (1,))):
            wanted = ", ".join(["point", *map(str, shape)])
            raise InvalidData(f"got an array of shape {x.shape}, wanted ({wanted}); reshape x")
        x = x.reshape(-1, *shape)
        if x.dtype.kind not in "buif":
            raise InvalidData(
                f"got an array of type {x.dtype}, wanted numbers; convert x to float32"
            )
        if x.dtype.kind == "f":
            wrong = ~np.isfinite(x).reshape(len(x), -1)
            if wrong.any():
                row, feature = np.argwhere(wrong)[0]
                raise InvalidData(
                    f"feature {quoted(self.feature_names[feature])}, row {row + 1}: got "
                    f"{x.reshape(len(x), -1)[row, feature]} ({int(wrong.sum())} such values in "
                    "all), wanted finite numbers; correct them or drop the rows"
                )
        elif x.dtype.itemsize == 8:
            _check_exact(x.reshape(len(x), -1), self.feature_names)
        return x


def _check_exact(x: np.ndarray, feature_names: Sequence[str]) -> None:
    """Refuse 64-bit integers with more digits than float64 holds."""
    for row, feature in np.argwhere((x > 2**53) | (x < -(2**53))):
        if not is_exact(int(x[row, feature])):
            raise InvalidData(
                f"feature {quoted(feature_names[feature])}, row {row + 1}: the integer "
                f"{x[row, feature]} has more digits than float64 holds; drop it, or use fewer "
                "digits"
            )


def _find_columns(frame: "pandas.DataFrame", wanted: Sequence[str]) -> "dict[str, pandas.Series]":
    """The columns of a table by name; spaces around a name do not count."""
    known = {str(name).strip(): name for name in frame.columns}
    known |= {str(name): name for name in frame.columns}
    found = {name: known.get(name, known.get(name.strip())) for name in wanted}
    missing = [name for name, column in found.items() if column is None]
    if missing:
        hint = nearest(missing[0], [one_line(name, 30) for name in known][:20])
        raise InvalidData(
            f"columns are missing: {short_list(missing, width=80)}; for {quoted(missing[0], 30)}, "
            f"{one_line(hint, 120)}"
        )
    return {
        name: table_column(frame, column) for name, column in found.items() if column is not None
    }


def _series(values: np.ndarray) -> "pandas.Series":
    import pandas as pd

    return pd.Series(values)
