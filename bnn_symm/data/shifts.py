"""Shifts of the test inputs that need no further data: rotation, noise, blur and contrast."""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bnn_symm.data.dataset import Scaling, Split
from bnn_symm.errors import ConfigError, InvalidData, nearest
from bnn_symm.randomness import torch_generator

# Parameters for the severities 1..5. Standard deviation of the noise, in standardized units.
_NOISE = (0.25, 0.5, 0.75, 1.0, 1.5)
# Standard deviation of the blur, in pixels.
_BLUR = (0.4, 0.6, 0.8, 1.0, 1.5)
# Factors on the deviations from an image's mean, from Hendrycks and Dietterich (2019),
# arXiv:1903.12261.
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)

SHIFTS = ("rotation", "gaussian_noise", "gaussian_blur", "contrast")
Points = TypeVar("Points", Split, Tensor)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Name and severity of a shift of the inputs.

    Args:
        name: one of `SHIFTS`.
        severity: 0 to 180 degrees counterclockwise for `rotation`, otherwise 1 to 5.
    """

    name: str
    severity: float | int

    def __str__(self) -> str:
        return f"{self.name}:{self.severity:g}"


def parse_shift(text: str) -> Shift:
    """Return the shift written as `NAME:SEVERITY`.

    Args:
        text: for example `rotation:30` or `gaussian_noise:3`.

    Raises:
        ConfigError: if the name is unknown or the severity is out of range.
    """
    name, _, severity = text.partition(":")
    _check_name(name)
    try:
        value = float(severity)
    except ValueError as error:
        example = f"{name}:30" if name == "rotation" else f"{name}:3"
        raise ConfigError(
            f"got the shift {text!r}, expected NAME:SEVERITY such as {example}"
        ) from error
    _check_severity(name, value)
    return Shift(name=name, severity=value)


def shift(
    points: Points,
    name: str,
    severity: float | int,
    *,
    scaling: Scaling | None = None,
    seed: int = 0,
) -> Points:
    """Return standardized inputs after a shift; targets are unchanged.

    Rotation extends the border pixels outward, because no value of a standardized image is a
    neutral background.

    Args:
        points: `Split` or its x. Noise applies to images (point, channel, height, width) and
            tables, other shifts to images only.
        name: one of `SHIFTS`.
        severity: 0 to 180 degrees for `rotation`, otherwise 1, 2, 3, 4 or 5.
        scaling: standardization of the images. The mean of every pixel is added before the shift
            and subtracted after it. Without it, one mean for all pixels is assumed.
        seed: seed of the noise, which does not depend on the device or the floating-point type.

    Returns:
        Inputs of the same type and shape.

    Raises:
        ConfigError: if the name is unknown or the severity is out of range.
        InvalidData: if a shift of images is applied to other data.
    """
    _check_name(name)
    _check_severity(name, severity)
    if isinstance(points, Split):
        x = shift(points.x, name, severity, scaling=scaling, seed=seed)
        return replace(points, x=x)
    x: Tensor = points
    if not x.is_floating_point():
        raise InvalidData(f"shift {name!r} is for numbers, but the inputs are integers")
    if name == "gaussian_noise":
        generator = torch_generator(seed, "shift", name, int(severity))
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return x + _NOISE[int(severity) - 1] * noise.to(x)
    if x.ndim != 4:
        raise InvalidData(
            f"shift {name!r} is for images (point, channel, height, width), got x of shape "
            f"{tuple(x.shape)}; use gaussian_noise for tables"
        )
    offset = (
        torch.zeros(()) if scaling is None else torch.from_numpy(scaling.x_mean / scaling.x_scale)
    )
    offset = offset.to(x)
    return _move(x + offset, name, severity) - offset


def _move(x: Tensor, name: str, severity: float | int) -> Tensor:
    if name == "rotation":
        return _rotate(x, severity)
    if name == "gaussian_blur":
        return _blur(x, _BLUR[int(severity) - 1])
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + _CONTRAST[int(severity) - 1] * (x - mean)


def _rotate(x: Float[Tensor, "point channel height width"], degrees: float | int) -> Tensor:
    angle = math.radians(degrees)
    height, width = x.shape[-2:]
    # `affine_grid` uses coordinates in [-1, 1] along each side; the ratio preserves angles in
    # images that are not square.
    ratio = height / width
    matrix = torch.tensor(
        [
            [math.cos(angle), -math.sin(angle) * ratio, 0.0],
            [math.sin(angle) / ratio, math.cos(angle), 0.0],
        ]
    ).to(x)
    grid = functional.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def _blur(x: Float[Tensor, "point channel height width"], sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)  # beyond three standard deviations the weight is below 0.3 %
    distance = torch.arange(-radius, radius + 1).to(x)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    weights = weights / weights.sum()
    images = x.reshape(-1, 1, *x.shape[2:])
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = functional.conv2d(padded, weights.reshape(1, 1, 1, -1))
    return functional.conv2d(rows, weights.reshape(1, 1, -1, 1)).reshape(x.shape)


def _check_name(name: str) -> None:
    if name not in SHIFTS:
        raise ConfigError(f"unknown shift {name!r}; {nearest(name, SHIFTS)}")


def _check_severity(name: str, severity: float | int) -> None:
    if name == "rotation":
        if not 0 <= severity <= 180:
            raise ConfigError(
                f"got rotation:{severity:g}, expected 0 to 180 degrees, such as rotation:30"
            )
    elif severity not in (1, 2, 3, 4, 5):
        raise ConfigError(
            f"got {name}:{severity:g}, expected a severity of 1, 2, 3, 4 or 5, such as {name}:3"
        )
