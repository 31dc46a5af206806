"""Raw data as a loader returns them, before any split or scaling."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Union

import numpy as np

from bnn_symm.data.graph import RawGraph
from bnn_symm.data.preprocessing.column_types.number_notation import NumberNotation
from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import Label
from bnn_symm.data.preprocessing.point_columns import PointColumn

if TYPE_CHECKING:
    import pandas

Task = Literal["classification", "regression", "count", "survival"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitFile:
    """A file of which all rows are the test or the validation split.

    Args:
        part: name of the split.
        name: path of the file as given.
        x: table, or array (point, *feature), as read.
        y: (point,), as read.
        point_values: role of a column that describes points -> numbers (point,).
    """

    part: Literal["validation", "test"]
    name: str
    x: Union["pandas.DataFrame", np.ndarray]
    y: np.ndarray
    point_values: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class RawData:
    """Inputs and target as read.

    Args:
        x: table, or array (point, feature), (point, channel, height, width) or (point, time,
            feature), or integers (point, time) of tokens.
        y: (point,), labels or numbers; (point, column), numbers of several targets.
        target: name of the target; several names are joined by commas.
        source: origin of the data.
        licence: license of the data.
        task: task of a known data set; None if it is to be inferred.
        class_labels: labels in the data set's own order; None for sorted labels.
        feature_names: names of the features of an array, flattened.
        train: row indices of a fixed training split, if there is one.
        test: row indices of a fixed test split, if there is one.
        validation: row indices of a fixed validation split, if there is one.
        split_name: a phrase on the fixed split, if it is one of several.
        groups: group indices (point,), from 0 without gaps, for a split by group.
        times: numbers or `datetime64` (point,) for a split by time.
        files: further files of which each is the test or the validation split.
        columns: types of the columns of a table, if the reader has determined them; None if they
            are to be inferred.
        target_notation: how the numbers of the target are written in its file, if not plainly.
        target_columns: the columns of several targets; empty for one.
        point_columns: columns that describe points and are no features.
        point_values: role of such a column -> numbers (point,).
        graph: the graph whose nodes are the points; x has their numbers, (point, 1).
        notes: sentences about unexpected properties of the data.
    """

    x: Union["pandas.DataFrame", np.ndarray]
    y: np.ndarray
    target: str
    source: str
    licence: str
    task: Task | None = None
    class_labels: tuple[Label, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    train: np.ndarray | None = None
    test: np.ndarray | None = None
    validation: np.ndarray | None = None
    split_name: str = ""
    groups: np.ndarray | None = None
    times: np.ndarray | None = None
    files: Sequence["SplitFile"] = ()
    columns: tuple[Column, ...] | None = None
    target_notation: NumberNotation | None = None
    target_columns: tuple[PointColumn, ...] = ()
    point_columns: tuple[PointColumn, ...] = ()
    point_values: Mapping[str, np.ndarray] = field(default_factory=dict)
    graph: RawGraph | None = None
    notes: Sequence[str] = ()

    def sha256(self) -> str:
        """Return the SHA-256 of the decoded values: features, target, then weights and a graph.

        It does not depend on the file format.
        """
        digest = hashlib.sha256()
        if isinstance(self.x, np.ndarray):
            _update(digest, self.x)
        else:
            for name in self.x.columns:
                _update(digest, self.x[name].to_numpy())
        _update(digest, self.y)
        for role, values in self.point_values.items():
            digest.update(role.encode())
            _update(digest, values)
        if self.graph is not None:
            _update(digest, self.graph.features)
            _update(digest, self.graph.edges)
        return digest.hexdigest()


def _update(digest: "hashlib._Hash", values: np.ndarray) -> None:
    if values.dtype.kind in "buif":
        little_endian = values.dtype.newbyteorder("<")
        digest.update(np.ascontiguousarray(values, dtype=little_endian).data)
    else:
        digest.update("\x1f".join(map(str, values.tolist())).encode())


def pixel_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return the feature names of images (channel, height, width).

    Names are pixel_r_c for one channel, and pixel_k_r_c for channel k of several.

    Args:
        shape: shape of one image.
    """
    if shape[0] == 1:
        return tuple(
            f"pixel_{row}_{column}" for row in range(shape[1]) for column in range(shape[2])
        )
    return tuple(f"pixel_{'_'.join(map(str, index))}" for index in np.ndindex(*shape))


def default_feature_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Return names for the features of an array without names.

    Names are x0, x1, ..., those of pixels for images, or x_t_f at time t of a sequence.

    Args:
        shape: shape of one point.
    """
    if len(shape) == 3:
        return pixel_names(shape)
    if len(shape) == 2:
        return tuple(f"x_{time}_{feature}" for time, feature in np.ndindex(*shape))
    return tuple(f"x{index}" for index in range(shape[0]))
