"""Check the values of arrays: their shape, finite numbers, exact integers and tokens."""

from collections.abc import Sequence

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.preprocessing.column_types.notation import is_exact
from bnn_symm.data.preprocessing.quoting import quoted
from bnn_symm.errors import InvalidData
from bnn_symm.io.memory import points_at_once


def array_features(
    x: np.ndarray, shape: tuple[int, ...], feature_names: Sequence[str]
) -> np.ndarray:
    """Return an array of points as finite numbers (point, *shape).

    Args:
        x: (point, *shape), or flattened (point, feature); gray images may lack the channel.
        shape: shape of one point.
        feature_names: names of the features, flattened.

    Raises:
        InvalidData: if the shape is another, or values are no finite numbers.
    """
    flat = x.ndim == 2 and x.shape[1] == int(np.prod(shape))
    no_channel = len(shape) == 3 and shape[0] == 1 and x.shape[1:] == shape[1:]
    if not (x.shape[1:] == shape or flat or no_channel or (x.ndim == 1 and shape == (1,))):
        expected = ", ".join(["point", *map(str, shape)])
        raise InvalidData(f"got an array of shape {x.shape}, expected ({expected}); reshape x")
    x = x.reshape(-1, *shape)
    if x.dtype.kind not in "buif":
        raise InvalidData(f"got an array of type {x.dtype}, expected numbers; convert x to float32")
    if x.dtype.kind == "f":
        _check_finite(x.reshape(len(x), -1), feature_names)
    elif x.dtype.itemsize == 8:
        _check_exact(x.reshape(len(x), -1), feature_names)
    return x


def _check_finite(x: np.ndarray, feature_names: Sequence[str]) -> None:
    """Raise an error for NaN and infinite values; chunks limit the memory."""
    number, first = 0, None
    chunk = points_at_once(x.shape[1])
    for start in range(0, len(x), chunk):
        wrong = ~np.isfinite(x[start : start + chunk])
        if wrong.any():
            number += int(wrong.sum())
            first = first or (start + np.argwhere(wrong)[0][0], np.argwhere(wrong)[0][1])
    if first is not None:
        row, feature = first
        raise InvalidData(
            f"feature {quoted(feature_names[feature])}, row {row + 1}: got {x[row, feature]} "
            f"({number} such values in total), expected finite numbers; correct them or drop the "
            "rows"
        )


def check_integers(x: np.ndarray, kind: str) -> None:
    """Check that values are numbers of rows of an embedding, or of nodes of a graph.

    Args:
        x: (point, time), or (point, 1).
        kind: `tokens` or `nodes`.

    Raises:
        InvalidData: naming the first that is not.
    """
    wrong = (x < 0) | (x != np.floor(x))
    if wrong.any():
        row, time = np.argwhere(wrong)[0]
        if kind == "nodes":
            raise InvalidData(
                f"row {row + 1}: got the node {x[row, time]}, expected a number of a node: 0, 1, "
                "2, ..."
            )
        raise InvalidData(
            f"row {row + 1}, time {time + 1}: got {x[row, time]}, expected tokens 0, 1, 2, ...; "
            "give padding a number of its own, or use another "
            f"{advise_setting('data.layout=NAME')}"
        )


def _check_exact(x: np.ndarray, feature_names: Sequence[str]) -> None:
    """Raise an error for 64-bit integers that float64 does not represent exactly."""
    for row, feature in np.argwhere((x > 2**53) | (x < -(2**53))):
        if not is_exact(int(x[row, feature])):
            raise InvalidData(
                f"feature {quoted(feature_names[feature])}, row {row + 1}: the integer "
                f"{x[row, feature]} has more digits than float64 represents; drop the feature, or "
                "use fewer digits"
            )
