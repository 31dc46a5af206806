"""Layouts of arrays: what the axes of one point are, where their number does not say it.

| `data.layout` | x | one point |
| --- | --- | --- |
| `features` | (point,) or (point, feature) | (feature,) |
| `image` | (point, height, width) or (point, channel, height, width) | (channel, height, width) |
| `sequence` | (point, time) or (point, time, feature) | (time, feature) |
| `tokens` | integers (point, time) | (time,), which a network embeds; never standardized |
| `graph` | (node, feature), in an NPZ file with edges | a node; see `loaders.graphs` |

`auto` reads one or two axes as features, and four as images. Three axes are gray images if height
and width are equal or the values are bytes, and sequences otherwise; a note says which.
"""

import numpy as np

from bnn_symm.advice import advise_setting
from bnn_symm.data.config import DataConfig, Layout
from bnn_symm.errors import ConfigError, InvalidData, one_line

_AXES = {
    "features": {1: "point", 2: "point, feature"},
    "image": {3: "point, height, width", 4: "point, channel, height, width"},
    "sequence": {2: "point, time", 3: "point, time, feature"},
    "tokens": {2: "point, time"},
}
_BY_AXES: dict[int, Layout] = {1: "features", 2: "features", 4: "image"}


def with_layout(x: np.ndarray, layout: Layout, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return inputs with the axes of a layout, and a note if the layout was a guess.

    Args:
        x: numbers.
        layout: the declared layout, or `auto`.
        what: description of the origin for messages.

    Returns:
        Inputs (point, feature), (point, channel, height, width), (point, time, feature), or tokens
        (point, time); and sentences.

    Raises:
        ConfigError: if the layout is that of a graph.
        InvalidData: if the axes do not fit the layout.

    Example:
        >>> with_layout(np.zeros((10, 24, 3)), "auto", "the data")[0].shape
        (10, 24, 3)
        >>> with_layout(np.zeros((10, 8, 8)), "sequence", "the data")[0].shape
        (10, 8, 8)
    """
    notes: tuple[str, ...] = ()
    if layout == "auto":
        layout = _guess(x)
        if x.ndim == 3:
            notes = (_guess_note(x, layout),)
    if layout == "graph":
        raise ConfigError(
            f"data.layout=graph is for NPZ files with an array edges, got {what}; save x, y and "
            "edges with numpy.savez"
        )
    axes = _AXES[layout]
    if x.ndim not in axes:
        expected = " or ".join(f"({names})" for names in axes.values())
        raise InvalidData(
            f"{what}: got x of shape {x.shape}, expected {expected}; reshape x, or set another "
            f"{advise_setting('data.layout=NAME')}"
        )
    if layout == "features":
        x = x.reshape(len(x), -1)
    elif layout == "image":
        x = x[:, None] if x.ndim == 3 else x
        _check_channels(x, what)
    elif layout == "sequence" and x.ndim == 2:
        x = x[:, :, None]
    return x, notes


def _guess(x: np.ndarray) -> Layout:
    """Return the layout that the axes and the type of the values suggest."""
    if x.ndim == 3:
        return "image" if x.shape[1] == x.shape[2] or x.dtype == np.uint8 else "sequence"
    return _BY_AXES.get(x.ndim, "image")


def _guess_note(x: np.ndarray, layout: Layout) -> str:
    height, width = x.shape[1:]
    if layout == "image":
        read, other = f"gray images of {height} x {width} pixels", "sequence"
    else:
        read, other = f"sequences of {height} times with {width} features each", "image"
    return (
        f"x of shape {x.shape} is read as {read}; if it is not, use "
        f"{advise_setting(f'data.layout={other}')}"
    )


def _check_channels(x: np.ndarray, what: str) -> None:
    if x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        raise InvalidData(
            f"{what}: got x of shape {x.shape}, which seems to be channels last; expected "
            "(point, channel, height, width); use x.transpose(0, 3, 1, 2)"
        )


def check_no_layout(config: DataConfig, what: str) -> None:
    """Check that no layout is declared for data that define their own.

    Args:
        config: the configuration of the data.
        what: the data in the message.

    Raises:
        ConfigError: if a layout is declared.
    """
    if config.layout != "auto":
        raise ConfigError(
            f"data.layout={config.layout} is for arrays, but {one_line(what, 60)} has a layout of "
            "its own; remove it"
        )
