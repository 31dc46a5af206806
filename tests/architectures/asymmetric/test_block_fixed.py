import re

import numpy as np
import pytest

from bnn_symm.architectures.asymmetric.block_fixed import blocks_of
from bnn_symm.architectures.asymmetric.masks import Layer
from bnn_symm.errors import ConfigError
from bnn_symm.symmetry import Segment

UNITS = (Segment(group="a", size=4),)
INPUTS = (Segment(group=None, size=6),)


def test_every_entry_finds_the_one_of_its_block():
    flattened = (Segment(group="b", size=4, outer=2, inner=3), Segment(group="c", size=2))
    blocks = blocks_of(Layer("head", 4, 26), (UNITS, flattened), 2, 4)
    assert (blocks.shape, blocks.fixed, blocks.layer.rows, blocks.layer.row) == ((2, 13), 2, 2, 13)
    rows, columns = blocks.indices
    assert rows.tolist() == [0, 0, 1, 1]
    once = [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert columns.tolist() == [*once, *(6 + i for i in once), 12, 12]
    small = np.arange(26).reshape(2, 13)
    assert blocks.expand(small).shape == (4, 26)
    assert blocks.expand(small)[2, 3] == small[1, 0]


def test_inputs_and_outputs_stay_as_they_are():
    blocks = blocks_of(Layer("layers.0", 4, 6), (UNITS, INPUTS), 4, 3)
    assert (blocks.shape, blocks.fixed) == ((1, 6), 3)
    assert blocks.indices[1].tolist() == list(range(6))


@pytest.mark.parametrize(
    ("axes", "block", "fixed", "message"),
    [
        ((UNITS, INPUTS), 3, 3, "l: 4 units of a cannot be divided into blocks of 3"),
        ((INPUTS, UNITS), 2, 3, "l: 3 fixed entries per row cannot be divided into blocks of 2"),
        (
            (UNITS, UNITS + INPUTS),
            2,
            2,
            "l: its weight has units and inputs side by side in one axis",
        ),
        (
            (UNITS, (Segment(group="b", size=2, within=True),)),
            2,
            2,
            "l: its weight has grouped convolutions",
        ),
    ],
)
def test_axes_that_cannot_be_divided_are_rejected(axes, block, fixed, message):
    layer = Layer("l", *(sum(segment.length for segment in axis) for axis in axes))
    with pytest.raises(ConfigError, match=re.escape(message)):
        blocks_of(layer, axes, block, fixed)
