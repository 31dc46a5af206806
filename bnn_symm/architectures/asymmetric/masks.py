"""Which entries of a weight are fixed, and at what values: functions of a seed and a layer's name.

Numpy only, and of numpy only the raw stream of the Philox generator, whose bits are promised to
    stay: a mask must be
the same in every process, on every platform and with every version, or posteriors could not be
compared.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from bnn_symm.architectures.config import MaskKind
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import numpy_generator

GRID = 2**16
"""Normal variates are rounded to multiples of 1 / GRID: far above where libraries differ in the
last digit."""

FEW = 4
"""Below so many possible rows for each one wanted, they are listed: random ones would collide too
often."""


@dataclass(frozen=True)
class Layer:
    """What a mask depends on.

    Attributes:
        name: In the network; the key of its random numbers.
        rows: Units, or output channels.
        channels: Inputs of a row, or input channels of a filter.
        area: Positions of the kernel; 1 for a linear layer.
        is_linear: Whether it is one; a 1x1 convolution is not.
    """

    name: str
    rows: int
    channels: int
    area: int = 1
    is_linear: bool = True

    @property
    def row(self) -> int:
        """Entries of a row."""
        return self.channels * self.area


def layer_mask(
    kind: MaskKind, layer: Layer, fixed_per_row: int, seed: int
) -> Bool[np.ndarray, "rows row"]:
    """True at free entries; all rows differ, and none is without a free entry.

    Args:
        kind: `random`, `densest` or `filters`.
        layer: Name and sizes.
        fixed_per_row: Fixed entries a row; of `filters`, fixed input channels a row. `densest`
            decides it itself.
        seed: Of the mask.

    Raises:
        ConfigError: If nothing would be free, or rows cannot differ.
    """
    if kind == "densest":
        mask = _densest(layer)
    elif kind == "filters":
        mask = np.repeat(
            _random(layer, layer.channels, fixed_per_row, "input channels", seed),
            layer.area,
            axis=1,
        )
    else:
        mask = _random(layer, layer.row, fixed_per_row, "inputs", seed)
    assert len(np.unique(mask, axis=0)) == len(mask), layer
    assert mask.any(axis=1).all(), layer
    return mask


def fixed_values(
    seed: int, name: str, shape: tuple[int, ...], kappa: float
) -> Float[np.ndarray, "..."]:
    """``F = kappa z`` with z standard normal, in float32.

    z is drawn on the whole grid and depends on the seed, the name and the shape only, so that
    another kappa or mask keeps it. Of numbers that float32 holds, networks in float32 and float64
    have the same.

    Args:
        seed: Of the values.
        name: The key: the name of the layer.
        shape: Of the weight.
        kappa: Standard deviation of F.
    """
    raw = numpy_generator(seed, "fixed values", name).bit_generator.random_raw(math.prod(shape))
    # The middles of 2^52 cells of (0, 1), which float64 holds exactly; neither 0 nor 1 is among
    # them.
    uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    normal = np.round(ndtri(uniform) * GRID) / GRID
    # Adding 0 turns -0 into 0: one value, one fingerprint.
    return (kappa * normal + 0.0).astype(np.float32).reshape(shape)


def rows_can_differ(rows: int, entries: int, fixed: int) -> bool:
    """Whether so many rows can have so many fixed entries each and all be different."""
    return math.comb(entries, fixed) >= rows


def _random(
    layer: Layer, entries: int, fixed: int, what: str, seed: int
) -> Bool[np.ndarray, "rows entries"]:
    """`fixed` of `entries` in every row, at random, no row twice."""
    rows = layer.rows
    if fixed >= entries:
        raise ConfigError(
            f"{layer.name}: fixed_per_row={fixed} leaves nothing trainable of {entries} {what} a "
            "row; want at most "
            f"{entries - 1}"
        )
    possible = math.comb(entries, fixed)
    if possible < rows:
        raise equal_rows_error(layer, entries, fixed, what)
    generator = numpy_generator(seed, "mask", layer.name).bit_generator
    mask = np.ones((rows, entries), dtype=bool)
    if possible < FEW * rows:
        subsets = list(itertools.combinations(range(entries), fixed))
        order = np.argsort(generator.random_raw(len(subsets)), kind="stable")
        for row, chosen in zip(mask, order, strict=False):
            row[list(subsets[chosen])] = False
        return mask
    missing = np.arange(rows)
    while len(missing):
        keys = generator.random_raw(len(missing) * entries).reshape(len(missing), entries)
        fresh = np.ones_like(keys, dtype=bool)
        np.put_along_axis(fresh, np.argsort(keys, axis=1, kind="stable")[:, :fixed], False, axis=1)
        mask[missing] = fresh
        # The first of equal rows stays, later ones are drawn again.
        _, first = np.unique(mask, axis=0, return_index=True)
        missing = np.setdiff1d(np.arange(rows), first)
    return mask


def _densest(layer: Layer) -> Bool[np.ndarray, "rows row"]:
    """The first row free, then all rows with one fixed entry, then all with two, ..., as far as
    rows are needed.
    """
    mask = np.ones((layer.rows, layer.row), dtype=bool)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(layer.row), fixed) for fixed in range(layer.row)
    )
    filled = 0
    for row, chosen in zip(mask, subsets, strict=False):
        row[list(chosen)] = False
        filled += 1
    if filled < layer.rows:
        raise ConfigError(
            f"{layer.name}: {layer.rows} rows of {layer.row} inputs cannot all differ and have a "
            "free entry, since "
            f"there are {filled} such rows; want at least {layer.rows.bit_length()} inputs, fewer "
            "units, or "
            f"mask=random with fixed_per_row 0 for this layer, which leaves it as it is"
        )
    return mask


def equal_rows_error(layer: Layer, entries: int, fixed: int, what: str) -> ConfigError:
    """The error that says how many inputs would be needed."""
    message = (
        f"{layer.name}: with {fixed} of {entries} {what} fixed only {math.comb(entries, fixed)} "
        "rows can differ, but "
        f"it has {layer.rows}"
    )
    if fixed > 0:
        needed = next(n for n in itertools.count(fixed) if math.comb(n, fixed) >= layer.rows)
        message += f", for which {needed} {what} would be needed"
    return ConfigError(f"{message}; fixed_per_row 0 for this layer leaves it as it is")
