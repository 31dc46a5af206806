"""Standardization: fitted on the training part in float64, applied everywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.errors import InvalidData

# Points in float64 at once: a large set of 8-bit images is never held whole in float64.
_CHUNK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """Mean and scale of features and target: `standardized = (raw - mean) / scale`.

    Args:
        x_mean: in raw units, one a feature; of images one a pixel, (channel, height, width), so
            that a pixel that is always the same (the border of a digit) becomes 0 and brings no
            noise through the weights behind it.
        x_scale: standard deviation about that mean, one a feature; of images one a channel,
            (channel, 1, 1), so that contrasts between neighboring pixels stay. 1 where a feature is
            constant over the training part.
        y_mean: of a regression target, in its own units; 0 for every other task.
        y_scale: of a regression target, in its own units; 1 for every other task.
    """

    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: float = 0.0
    y_scale: float = 1.0

    @classmethod
    def identity(cls, input_shape: tuple[int, ...]) -> "Scaling":
        """The scaling that changes nothing."""
        return cls(x_mean=np.zeros(input_shape), x_scale=np.ones(_scale_shape(input_shape)))

    @classmethod
    @np.errstate(
        over="ignore", invalid="ignore"
    )  # what overflows is refused when it is standardized
    def fit(cls, x: np.ndarray, train: np.ndarray, y: np.ndarray | None = None) -> "Scaling":
        """Mean and standard deviation over the rows `train` of `x`, and of `y` if it is given
        (regression).

        Args:
            x: (point, *feature), any numeric type.
            train: row indices.
            y: (point,).
        """
        total = np.zeros(x.shape[1:])
        low, high = np.full(x.shape[1:], np.inf), np.full(x.shape[1:], -np.inf)
        for chunk in _chunks(x, train):
            total += chunk.sum(axis=0)
            low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
        mean = total / len(train)
        squares = np.zeros(x.shape[1:])
        for chunk in _chunks(x, train):
            squares += np.square(chunk - mean).sum(axis=0)
        variance, varies = squares / len(train), high > low
        if _scale_shape(x.shape[1:]) != x.shape[1:]:
            variance, varies = (
                variance.mean((1, 2), keepdims=True),
                varies.any((1, 2), keepdims=True),
            )
        x_scale = _guarded(np.sqrt(variance), varies)
        if y is None:
            return cls(x_mean=mean, x_scale=x_scale)
        values = y[train].astype(np.float64)
        y_scale = float(_guarded(values.std(), values.max() > values.min()))
        return cls(x_mean=mean, x_scale=x_scale, y_mean=float(values.mean()), y_scale=y_scale)

    def standardize(self, x: np.ndarray, dtype: torch.dtype) -> Float[Tensor, "point *feature"]:
        """Raw features (point, *feature) as a standardized tensor; the arithmetic is in float64.

        Raises:
            InvalidData: if a value is too large for `dtype`.
        """
        result = torch.empty(x.shape, dtype=dtype)
        for start in range(0, len(x), _CHUNK):
            rows = slice(start, start + _CHUNK)
            values = (x[rows].astype(np.float64) - self.x_mean) / self.x_scale
            result[rows] = torch.from_numpy(values).to(dtype)
        if not torch.isfinite(result).all():
            row = (
                int(torch.isfinite(result).reshape(len(x), -1).all(1).logical_not().nonzero()[0])
                + 1
            )
            raise InvalidData(
                f"row {row} has a feature too large for {dtype}; wanted smaller numbers: rescale "
                "the column or use --set dtype=float64"
            )
        return result

    def to_dict(self) -> dict[str, Any]:
        """The scaling as JSON types; Python writes floats so that they are read back exactly."""
        return {
            "x_mean": self.x_mean.tolist(),
            "x_scale": self.x_scale.tolist(),
            "y_mean": self.y_mean,
            "y_scale": self.y_scale,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Scaling":
        """The inverse of `to_dict`."""
        return cls(
            x_mean=np.array(content["x_mean"], dtype=np.float64),
            x_scale=np.array(content["x_scale"], dtype=np.float64),
            y_mean=float(content["y_mean"]),
            y_scale=float(content["y_scale"]),
        )


def _scale_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    return (input_shape[0], 1, 1) if len(input_shape) == 3 else tuple(input_shape)


def _chunks(x: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _CHUNK):
        yield x[rows[start : start + _CHUNK]].astype(np.float64)


def _guarded(scale: Any, varies: Any) -> np.ndarray:
    # Rounding gives a constant feature a tiny standard deviation in place of 0, so it is told by
    # its range.
    return np.where(varies & (scale > 0) & np.isfinite(scale), scale, 1.0)
