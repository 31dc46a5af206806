"""Choose the fixed entries of a weight and their values, as functions of a seed and a layer's name.

Only NumPy is used, and only the raw stream of its Philox generator, whose bits are guaranteed not
to change. A mask must be the same in every process, on every platform and with every version, or
posteriors could not be compared.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Bool, Float

from bnn_symm.architectures.config import MaskKind
from bnn_symm.errors import ConfigError
from bnn_symm.randomness import numpy_generator

GRID = 2**16
"""Normal variates are rounded to multiples of 1 / GRID, far coarser than the last digits in which
libraries differ."""

FEW = 4
"""With fewer than this many possible rows per row, all of them are enumerated, since random rows
would collide too often."""


@dataclass(frozen=True)
class Layer:
    """The sizes and the name that a mask depends on.

    Attributes:
        name: Name in the network; the key of its random numbers.
        rows: Number of units, or of output channels.
        channels: Number of inputs of a row, or of input channels of a filter.
        area: Number of positions of the kernel; 1 for a linear layer.
        is_linear: Whether it is a linear layer; a 1x1 convolution is not.
    """

    name: str
    rows: int
    channels: int
    area: int = 1
    is_linear: bool = True

    @property
    def row(self) -> int:
        """Return the number of entries of a row."""
        return self.channels * self.area


def layer_mask(
    kind: MaskKind, layer: Layer, fixed_per_row: int, seed: int
) -> Bool[np.ndarray, "rows row"]:
    """Return a mask, True at free entries, whose rows all differ and each have a free entry.

    Args:
        kind: `random`, `densest` or `filters`.
        layer: Name and sizes.
        fixed_per_row: Fixed entries per row; for `filters`, fixed input channels per row. `densest`
            chooses the number itself.
        seed: Seed of the mask.

    Raises:
        ConfigError: If nothing would be free, or rows cannot all differ.
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
    """Return ``F = kappa z`` with z standard normal, in float32.

    z is drawn for the whole weight and depends only on the seed, the name and the shape, so another
    kappa or mask keeps it. Networks in float32 and float64 get the same values, since float32
    represents them.

    Args:
        seed: Seed of the values.
        name: The key: the name of the layer.
        shape: Shape of the weight.
        kappa: Standard deviation of F.
    """
    raw = numpy_generator(seed, "fixed values", name).bit_generator.random_raw(math.prod(shape))
    # Midpoints of 2^52 cells of (0, 1), which are exact in float64 and include neither 0 nor 1.
    uniform = ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    normal = np.round(scipy.special.ndtri(uniform) * GRID) / GRID
    # Adding 0 turns -0 into 0: one value, one fingerprint.
    return (kappa * normal + 0.0).astype(np.float32).reshape(shape)


def rows_can_differ(rows: int, entries: int, fixed: int) -> bool:
    """Return whether this many rows can have this many fixed entries each and all differ."""
    return math.comb(entries, fixed) >= rows


def _random(
    layer: Layer, entries: int, fixed: int, what: str, seed: int
) -> Bool[np.ndarray, "rows entries"]:
    """Return a random mask with `fixed` of `entries` fixed in every row, and no row twice."""
    rows = layer.rows
    if fixed >= entries:
        raise ConfigError(
            f"{layer.name}: fixed_per_row={fixed} leaves nothing trainable of {entries} {what} per "
            f"row; want at most {entries - 1}"
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
        # The first of equal rows is kept, later ones are drawn again.
        _, first = np.unique(mask, axis=0, return_index=True)
        missing = np.setdiff1d(np.arange(rows), first)
    return mask


def _densest(layer: Layer) -> Bool[np.ndarray, "rows row"]:
    """Return the mask with the fewest fixed entries.

    The first row is free; then come all rows with one fixed entry, with two, and so on.
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
            f"free entry, since there are {filled} such rows; want at least "
            f"{layer.rows.bit_length()} inputs, fewer units, or mask=random with fixed_per_row 0 "
            "for this layer, which leaves it unchanged"
        )
    return mask


def equal_rows_error(layer: Layer, entries: int, fixed: int, what: str) -> ConfigError:
    """Return the error that states how many inputs would be needed for all rows to differ.

    Args:
        layer: Name and sizes.
        entries: Number of entries per row.
        fixed: Number of fixed entries per row.
        what: Name of the entries in the message.
    """
    message = (
        f"{layer.name}: with {fixed} of {entries} {what} fixed only {math.comb(entries, fixed)} "
        f"rows can differ, but it has {layer.rows}"
    )
    if fixed > 0:
        needed = next(n for n in itertools.count(fixed) if math.comb(n, fixed) >= layer.rows)
        message += f", for which {needed} {what} would be needed"
    return ConfigError(f"{message}; fixed_per_row 0 for this layer leaves it unchanged")
