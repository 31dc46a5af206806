"""Turn the colors of a figure on a white ground into those of the same figure on a dark ground.

The lightness in OKLab is reversed and hue and chroma stay, so that what is distinguishable on white
stays distinguishable, also in grayscale.

References:
    Ottosson 2020, "A perceptual color space for image processing".
"""

import numpy as np

GROUND = "#16191d"
"""The dark ground of pages, which white becomes."""
# Lightness of the ground, and of what is black on white.
_DARKEST, _LIGHTEST = 0.21, 0.93
# Colors with the full chroma are at least this light: bright lines on white stay visible on dark.
_LEAST, _FULL = 0.46, 0.1
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Fractions of the chroma that are tried, until the color exists on a screen.
_CHROMA = np.linspace(1, 0, 41)


def dark_color(color: str) -> str:
    """Return the color that takes the place of another one on a dark ground.

    Args:
        color: as `#rrggbb`.

    Returns:
        The color as `#rrggbb`.

    Example:
        >>> dark_color("#ffffff"), dark_color("#000000"), dark_color("#2166ac")
        ('#16191d', '#e8e8e8', '#3579c0')
    """
    if color == "#ffffff":
        return GROUND
    lightness, *chroma = _lab(np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255)
    reversed_lightness = _LIGHTEST - (_LIGHTEST - _DARKEST) * lightness
    missing = max(0.0, _LEAST - reversed_lightness)
    reversed_lightness += missing * min(1.0, float(np.hypot(*chroma)) / _FULL)
    tried = (np.array([reversed_lightness, *(own * share for own in chroma)]) for share in _CHROMA)
    rgb = next(own for own in map(_rgb, tried) if own.min() >= -1e-4 and own.max() <= 1 + 1e-4)
    return "#" + "".join(f"{round(255 * min(max(own, 0), 1)):02x}" for own in rgb)


def _lab(rgb: np.ndarray) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return _TO_LAB @ np.cbrt(_TO_LMS @ linear)


def _rgb(lab: np.ndarray) -> np.ndarray:
    linear = np.linalg.solve(_TO_LMS, np.linalg.solve(_TO_LAB, lab) ** 3)
    curved = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curved)
