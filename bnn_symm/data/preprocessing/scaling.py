"""Standardization, fitted to the training split in float64."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bnn_symm.advice import advise
from bnn_symm.errors import InvalidData
from bnn_symm.io.memory import points_at_once


@dataclass(frozen=True)
class ColumnScaling:
    """Mean and standard deviation of one of several target columns, in its own units.

    Args:
        name: name of the column.
        mean: its mean.
        scale: its standard deviation.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """Mean and scale of features and target: `standardized = (raw - mean) / scale`.

    Args:
        x_mean: mean of each feature in raw units; for images of each pixel, (channel, height,
            width), so that constant pixels (the border of digits) become 0 and their weights add no
            noise; for sequences over all times, (1, feature).
        x_scale: standard deviation of each feature; for images of each channel, (channel, 1, 1),
            which preserves contrasts between pixels; for sequences over all times, (1, feature). 1
            if a feature is constant over the training split.
        y_mean: mean of a regression target in its own units; 0 for other tasks, and for several
            columns.
        y_scale: standard deviation of a regression target in its own units; of times, the total
            time per event; 1 for other tasks, and for several columns.
        y_columns: mean and standard deviation of each of several target columns; empty for one.
        exposure_scale: the exposure per count of the training split, by which exposures are
            divided; 1 without them.
    """

    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: float = 0.0
    y_scale: float = 1.0
    y_columns: tuple[ColumnScaling, ...] = ()
    exposure_scale: float = 1.0

    @classmethod
    def identity(cls, input_shape: tuple[int, ...], y_names: Sequence[str] = ()) -> "Scaling":
        """Return the scaling that changes nothing.

        Args:
            input_shape: shape of one point.
            y_names: names of several target columns.
        """
        return cls(
            x_mean=np.zeros(mean_shape(input_shape)),
            x_scale=np.ones(scale_shape(input_shape)),
            y_columns=tuple(ColumnScaling(name=name) for name in y_names),
        )

    @property
    def columns(self) -> tuple["Scaling", ...]:
        """Return the scaling of each target column alone; this one if there is one target."""
        if not self.y_columns:
            return (self,)
        return tuple(
            replace(self, y_mean=column.mean, y_scale=column.scale, y_columns=())
            for column in self.y_columns
        )

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")  # `standardize` reports values that overflow
    def fit(
        cls,
        x: np.ndarray,
        train: np.ndarray,
        y: np.ndarray | None = None,
        weight: np.ndarray | None = None,
        y_names: Sequence[str] = (),
    ) -> "Scaling":
        """Return the mean and standard deviation over the rows `train`.

        Args:
            x: (point, *feature), of any numeric type.
            train: row indices of the training split.
            y: regression target (point,), several (point, column), or None for other tasks.
            y_names: names of several target columns.
            weight: (point,), numbers of observations for which the rows stand; None for one each.
        """
        if weight is not None:
            train = train[weight[train] > 0]
        size = len(train) if weight is None else weight[train].sum()
        total = np.zeros(x.shape[1:])
        low, high = np.full(x.shape[1:], np.inf), np.full(x.shape[1:], -np.inf)
        for chunk, own in _chunks(x, train, weight):
            total += (own * chunk).sum(axis=0)
            low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
        shape = x.shape[1:]
        mean = _pooled(total / size, mean_shape(shape), np.mean)
        squares = np.zeros(x.shape[1:])
        for chunk, own in _chunks(x, train, weight):
            squares += (own * np.square(chunk - mean)).sum(axis=0)
        variance = _pooled(squares / size, scale_shape(shape), np.mean)
        low, high = (
            _pooled(low, mean_shape(shape), np.min),
            _pooled(high, mean_shape(shape), np.max),
        )
        varies = _pooled(high > low, scale_shape(shape), np.any)
        x_scale = _positive_scale(np.sqrt(variance), varies)
        if y is None:
            return cls(x_mean=mean, x_scale=x_scale)
        own = None if weight is None else weight[train]
        if y_names:
            columns = tuple(
                ColumnScaling(name, *_target_moments(column, own))
                for name, column in zip(y_names, y[train].T, strict=True)
            )
            return cls(x_mean=mean, x_scale=x_scale, y_columns=columns)
        y_mean, y_scale = _target_moments(y[train], own)
        return cls(x_mean=mean, x_scale=x_scale, y_mean=y_mean, y_scale=y_scale)

    def log_jacobian(self, y: Shaped[Tensor, "point *column"]) -> Float[Tensor, " point"]:
        """Return the log of the derivative of targets in their own units, in float64.

        A log density of standardized targets less this is one in the targets' own units.

        A censored time has a probability, which does not depend on units.

        Args:
            y: targets as in a `Split`.
        """
        total = sum(math.log(own.y_scale) for own in self.columns)
        if y.dim() == 2 and not self.y_columns:  # the second column has events, or exposures
            return total * y[:, 1].double().cpu()
        return torch.full((len(y),), total, dtype=torch.float64)

    def standardize_target(self, y: np.ndarray) -> np.ndarray:
        """Return a regression target in its own units as a standardized one.

        Args:
            y: (point,), or (point, column) of several targets.
        """
        if not self.y_columns:
            return (y - self.y_mean) / self.y_scale
        moments = np.array([(column.mean, column.scale) for column in self.y_columns])
        return (y - moments[:, 0]) / moments[:, 1]

    def standardize(
        self, x: np.ndarray, rows: np.ndarray, dtype: torch.dtype
    ) -> Iterator[Float[Tensor, "point *feature"]]:
        """Yield raw features of some rows as standardized ones, in chunks.

        Args:
            x: (point, *feature), of any numeric type.
            rows: row indices.
            dtype: floating-point type of the result; computations are in float64.

        Raises:
            InvalidData: if a value is too large for `dtype`.
        """
        for where in _parts(x, rows):
            values = (x[where].astype(np.float64) - self.x_mean) / self.x_scale
            result = torch.from_numpy(values).to(dtype)
            finite = torch.isfinite(result).reshape(len(where), -1).all(1).numpy()
            if not finite.all():
                raise InvalidData(
                    f"row {where[np.argmin(finite)] + 1} has a feature too large for {dtype}; "
                    "rescale the column, or use "
                    f"{advise('--set dtype=float64', 'dtype=torch.float64')}"
                )
            yield result

    def to_dict(self) -> dict[str, Any]:
        """Return the scaling as JSON types; floats round-trip exactly."""
        return {
            "x_mean": self.x_mean.tolist(),
            "x_scale": self.x_scale.tolist(),
            "y_mean": self.y_mean,
            "y_scale": self.y_scale,
            **({"y_columns": [vars(own) for own in self.y_columns]} if self.y_columns else {}),
            **({"exposure_scale": self.exposure_scale} if self.exposure_scale != 1 else {}),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Scaling":
        """Return the scaling from the result of `to_dict`."""
        return cls(
            x_mean=np.array(content["x_mean"], dtype=np.float64),
            x_scale=np.array(content["x_scale"], dtype=np.float64),
            y_mean=float(content["y_mean"]),
            y_scale=float(content["y_scale"]),
            y_columns=tuple(ColumnScaling(**own) for own in content.get("y_columns", ())),
            exposure_scale=float(content.get("exposure_scale", 1.0)),
        )


def _target_moments(values: np.ndarray, weight: np.ndarray | None) -> tuple[float, float]:
    """Return the mean and the standard deviation of a target; 1 if it is constant."""
    values = values.astype(np.float64)
    mean, sd = values.mean(), values.std()
    if weight is not None:
        mean = np.average(values, weights=weight)
        sd = np.sqrt(np.average(np.square(values - mean), weights=weight))
    return float(mean), float(_positive_scale(sd, values.max() > values.min()))


def mean_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the means of features: one for each, over all times of sequences.

    Args:
        input_shape: shape of one point.
    """
    return (1, input_shape[1]) if len(input_shape) == 2 else tuple(input_shape)


def scale_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the standard deviations: those of images are of each channel.

    Args:
        input_shape: shape of one point.
    """
    return (input_shape[0], 1, 1) if len(input_shape) == 3 else mean_shape(input_shape)


def _pooled(
    values: np.ndarray, shape: tuple[int, ...], reduce: Callable[..., np.ndarray]
) -> np.ndarray:
    """Return values reduced over the axes that have length 1 in a shape."""
    axes = tuple(axis for axis, length in enumerate(shape) if length < values.shape[axis])
    return reduce(values, axis=axes, keepdims=True)


def _parts(x: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield consecutive row indices, few enough for a chunk."""
    number = points_at_once(math.prod(x.shape[1:]))
    for start in range(0, len(rows), number):
        yield rows[start : start + number]


def _chunks(
    x: np.ndarray, rows: np.ndarray, weight: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | float]]:
    """Yield chunks of rows and their weights, which multiply them."""
    for where in _parts(x, rows):
        own = 1.0 if weight is None else weight[where].reshape(-1, *[1] * (x.ndim - 1))
        yield x[where].astype(np.float64), own


def _positive_scale(scale: Any, varies: Any) -> np.ndarray:
    # Constant features are identified by their range, because rounding can make their standard
    # deviation tiny instead of 0.
    return np.where(varies & (scale > 0) & np.isfinite(scale), scale, 1.0)
