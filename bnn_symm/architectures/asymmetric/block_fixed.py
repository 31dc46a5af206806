"""Build the masks of the control `block_fixed`, which repeat in blocks of units.

Units of one block have the same fixed entries with the same values in their rows and in the columns
that read them. The permutations within a block therefore remain symmetries, while number and size
of the fixed entries are those of the weight-asymmetric network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from bnn_symm.architectures.asymmetric.masks import Layer
from bnn_symm.errors import ConfigError


@dataclass(frozen=True)
class Blocks:
    """The expansion of a small weight, with one unit per block, to the whole weight.

    Attributes:
        layer: Sizes of the small weight.
        shape: Shape of the small weight.
        fixed: Fixed entries per row of the small weight.
        indices: For each axis of the whole weight, (entry,), the corresponding entry of the small
            one.
    """

    layer: Layer
    shape: tuple[int, ...]
    fixed: int
    indices: tuple[Int[np.ndarray, "_"], ...]

    def expand(self, small: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Return the whole mask, or fixed values, from the small ones, in the weight's shape."""
        return small.reshape(self.shape)[np.ix_(*self.indices)]


def blocks_of(layer: Layer, axes: Sequence[Any], block: int, fixed: int) -> Blocks:
    """Divide the hidden axes of a weight into blocks.

    Args:
        layer: Sizes of the whole weight.
        axes: The segments of each axis, with `group` (None where nothing can be permuted), `size`,
            `outer`, `inner`, `within` and `length`; see `bnn_symm.symmetry`.
        block: Units per block.
        fixed: Fixed entries per row of the whole weight.

    Returns:
        The small weight and its expansion.

    Raises:
        ConfigError: If units or fixed entries cannot be divided into blocks.
    """
    indices, lengths = [], []
    for axis in axes:
        index, length = _index(layer, axis, block)
        indices.append(index)
        lengths.append(length)
    columns_hidden = any(segment.group is not None for segment in axes[1])
    if columns_hidden and fixed % block:
        raise ConfigError(
            f"{layer.name}: {fixed} fixed entries per row cannot be divided into blocks of "
            f"{block}; want a multiple of {block}: choose another block, or set fixed_per_row"
        )
    small = replace(layer, rows=lengths[0], channels=lengths[1])
    return Blocks(
        small, tuple(lengths), fixed // block if columns_hidden else fixed, tuple(indices)
    )


def _index(layer: Layer, axis: Sequence[Any], block: int) -> tuple[Int[np.ndarray, " entry"], int]:
    """Return the small entry of each entry of an axis, and the length of the small axis."""
    hidden = [segment.group is not None for segment in axis]
    if any(hidden) and (not all(hidden) or any(segment.within for segment in axis)):
        kind = "grouped convolutions" if all(hidden) else "units and inputs side by side"
        raise ConfigError(
            f"{layer.name}: its weight has {kind} in one axis, which block_fixed cannot divide "
            "into blocks; fixed_per_row 0 for this layer leaves it unchanged"
        )
    indices, start = [], 0
    for segment in axis:
        if segment.group is None:
            index = np.arange(segment.length)
        else:
            if segment.size % block:
                raise ConfigError(
                    f"{layer.name}: {segment.size} units of {segment.group} cannot be divided into "
                    f"blocks of {block}; want widths that are multiples of "
                    "architecture.symmetry.block"
                )
            shape = (segment.outer, segment.size // block, segment.inner)
            index = (
                np.arange(segment.length // block).reshape(shape).repeat(block, axis=1).flatten()
            )
        indices.append(start + index)
        start += int(index[-1]) + 1
    return np.concatenate(indices), start
