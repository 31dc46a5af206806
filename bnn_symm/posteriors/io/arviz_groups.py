"""Build the container of the installed ArviZ, 0.x or 1.x, from plain arrays.

This module imports only NumPy and ArviZ, so that it runs where torch is not installed, such as
under a Python that only ArviZ 1.x supports.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Groups(NamedTuple):
    """Hold a posterior as labeled arrays, independent of any container.

    Attributes:
        groups: group -> variable -> array; (chain, draw, ...), without these two in
            `observed_data`.
        dims: variable -> names of its axes after chain and draw, the same in every group.
        coords: name of an axis -> labels along it.
    """

    groups: dict[str, dict[str, np.ndarray]]
    dims: dict[str, list[str]]
    coords: dict[str, np.ndarray]


def from_groups(
    groups: Mapping[str, Arrays],
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
) -> Any:
    """Return `arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x) with the given groups.

    Args:
        groups: group name -> variable name -> array; (chain, draw, ...), without these two in
            `observed_data`.
        dims: variable -> names of its axes after chain and draw; default ArviZ's own.
        coords: name of an axis -> labels along it.

    Returns:
        The container of the installed ArviZ version.
    """
    import arviz

    content: dict[str, Any] = {name: dict(variables) for name, variables in groups.items()}
    names = {name: list(axes) for name, axes in (dims or {}).items()}
    labels = {name: np.asarray(values) for name, values in (coords or {}).items()}
    with warnings.catch_warnings():
        # An ensemble is many chains of one draw each.
        warnings.filterwarnings("ignore", message="More chains .* than draws")
        if int(arviz.__version__.split(".")[0]) >= 1:
            return arviz.from_dict(content, dims=names, coords=labels)
        return arviz.from_dict(**content, dims=names, coords=labels)
