"""What a loader returns: the data as they were read, before any split or scaling."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Union

import numpy as np

from bnn_symm.data.preprocessing.columns import Column
from bnn_symm.data.preprocessing.labels import Label

if TYPE_CHECKING:
    import pandas

Task = Literal["classification", "regression", "count"]


@dataclass(frozen=True, kw_only=True, eq=False)
class RawData:
    """Inputs and target as read.

    Args:
        x: a table, or an array (point, feature) or (point, channel, height, width).
        y: (point,); labels in the user's own words, or numbers.
        target: the name of what is predicted.
        source: where the data come from.
        licence: of the data.
        task: of sets for which it is known; a file's is inferred.
        class_labels: the labels in the set's own order; sorted where it has none.
        feature_names: of an array's features, flat.
        train: row indices of the set's own training part, if it has one.
        test: row indices of the set's own test part, if it has one.
        columns: what the columns of a table hold, where its reader has decided it; else it is
            inferred.
        notes: sentences about what a person may not expect of how the data were read.
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
    columns: tuple[Column, ...] | None = None
    notes: Sequence[str] = ()

    def sha256(self) -> str:
        """SHA-256 of the decoded values, features then target: the same whatever container they
        came in.
        """
        digest = hashlib.sha256()
        if isinstance(self.x, np.ndarray):
            _update(digest, self.x)
        else:
            for name in self.x.columns:
                _update(digest, self.x[name].to_numpy())
        _update(digest, self.y)
        return digest.hexdigest()


def _update(digest: "hashlib._Hash", values: np.ndarray) -> None:
    if values.dtype.kind in "buif":
        little_endian = values.dtype.newbyteorder("<")
        digest.update(np.ascontiguousarray(values, dtype=little_endian).data)
    else:
        digest.update("\x1f".join(map(str, values.tolist())).encode())


def pixel_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the features of images (channel, height, width): pixel_r_c, or pixel_k_r_c for
    channel k.
    """
    if shape[0] == 1:
        return tuple(
            f"pixel_{row}_{column}" for row in range(shape[1]) for column in range(shape[2])
        )
    return tuple(f"pixel_{'_'.join(map(str, index))}" for index in np.ndindex(*shape))


def default_feature_names(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names for the flat features of an array that comes without: x0, x1, ..., or those of
    pixels.
    """
    return (
        pixel_names(shape) if len(shape) == 3 else tuple(f"x{index}" for index in range(shape[0]))
    )
