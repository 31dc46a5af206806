import itertools
import math

import numpy as np
import pytest

from bnn_symm.architectures.asymmetric.masks import Layer, fixed_values, layer_mask
from bnn_symm.errors import ConfigError


@pytest.mark.parametrize(
    ("rows", "row", "fixed"),
    [
        (64, 64, 8),
        (32, 16, 6),
        (10, 64, 32),
        (6, 4, 2),
        (20, 6, 3),
        (5, 5, 1),
        (1, 3, 1),
        (56, 8, 3),
    ],
)
def test_random_rows_differ_and_have_exactly_so_many_fixed_entries(rows, row, fixed):
    for seed in range(5):
        mask = layer_mask("random", Layer("a", rows, row), fixed, seed)
        assert mask.shape == (rows, row)
        assert ((~mask).sum(1) == fixed).all()
        assert len({tuple(one) for one in mask}) == rows


def test_duplicates_are_drawn_again():
    # 16 inputs and 4 fixed are 1820 rows, more than 4 x 100: without a second look, 100 rows would
    # nearly always have two the same (birthday problem: probability 1 - exp(-100^2 / 3640) = 94 % a
    # seed).
    for seed in range(5):
        mask = layer_mask("random", Layer("a", 100, 16), 4, seed)
        assert len(np.unique(mask, axis=0)) == 100


def test_every_entry_is_fixed_equally_often():
    mask = layer_mask("random", Layer("a", 3000, 20), 5, 0)
    share = (~mask).mean(0)
    # Binomial with p = 1/4: five standard errors.
    assert np.abs(share - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 3000)


def test_masks_depend_on_seed_and_name_only():
    one = layer_mask("random", Layer("a", 30, 20), 5, 0)
    assert np.array_equal(one, layer_mask("random", Layer("a", 30, 20), 5, 0))
    assert not np.array_equal(one, layer_mask("random", Layer("a", 30, 20), 5, 1))
    assert not np.array_equal(one, layer_mask("random", Layer("b", 30, 20), 5, 0))


def test_densest_has_as_few_fixed_entries_as_possible():
    mask = layer_mask("densest", Layer("a", 7, 4), 0, 0)
    fixed = [tuple(np.flatnonzero(~row)) for row in mask]
    assert fixed == [(), (0,), (1,), (2,), (3,), (0, 1), (0, 2)]
    assert len(layer_mask("densest", Layer("a", 15, 4), 0, 0)) == 15  # all that have a free entry
    with pytest.raises(
        ConfigError,
        match=r"a: 16 rows of 4 inputs cannot all differ.*there are 15.*at least 5 inputs",
    ):
        layer_mask("densest", Layer("a", 16, 4), 0, 0)


def test_filters_fix_whole_input_channels():
    mask = layer_mask("filters", Layer("a", 10, 6, 9, is_linear=False), 2, 0).reshape(10, 6, 9)
    assert (mask.all(2) | ~mask.any(2)).all()
    assert ((~mask).all(2).sum(1) == 2).all()
    assert len(np.unique(mask.reshape(10, -1), axis=0)) == 10


@pytest.mark.parametrize(
    ("kind", "layer", "fixed", "message"),
    [
        (
            "random",
            Layer("layers.0", 3, 4),
            4,
            "layers.0: fixed_per_row=4 leaves nothing trainable of 4 inputs",
        ),
        ("random", Layer("layers.0", 3, 4), 9, "want at most 3"),
        ("filters", Layer("c", 3, 4, 9), 4, "nothing trainable of 4 input channels"),
        (
            "random",
            Layer("layers.0", 64, 4),
            2,
            "only 6 rows can differ, but it has 64, for which 12 inputs would be",
        ),
        (
            "filters",
            Layer("c", 16, 3, 9),
            1,
            "with 1 of 3 input channels fixed only 3 rows can differ",
        ),
        (
            "random",
            Layer("layers.0", 64, 4),
            2,
            "fixed_per_row 0 for this layer leaves it unchanged",
        ),
    ],
)
def test_refusals(kind, layer, fixed, message):
    with pytest.raises(ConfigError, match=message):
        layer_mask(kind, layer, fixed, 0)


def test_the_inputs_that_the_message_asks_for_are_enough_and_needed():
    assert math.comb(12, 2) >= 64 > math.comb(11, 2)
    assert layer_mask("random", Layer("a", 64, 12), 2, 0).shape == (64, 12)


def test_fixed_values_are_normal_and_scale_with_kappa():
    z = fixed_values(0, "a", (300, 400), 1.0)
    n = z.size
    # Standard errors of mean, variance and fourth moment of a normal: 1, sqrt 2 and sqrt 96 over
    # sqrt n; five of them.
    assert abs(z.mean(dtype=float)) < 5 / math.sqrt(n)
    assert abs(z.var(dtype=float) - 1) < 5 * math.sqrt(2 / n)
    assert abs((z.astype(float) ** 4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert z.dtype == np.float32
    assert np.array_equal(z * 2**16, np.round(z * 2**16))
    assert np.array_equal(fixed_values(0, "a", (300, 400), 0.25), z / 4)
    zero = fixed_values(0, "a", (300, 400), 0.0)
    assert not zero.any()
    assert not np.signbit(zero).any()


def test_fixed_values_are_pinned():
    """Other numbers would make saved posteriors of earlier versions unreadable: never change
    these."""
    assert fixed_values(0, "layers.0", (4,), 1.0).tolist() == [
        -0.7795867919921875,
        -0.00946044921875,
        -0.3078765869140625,
        0.9215087890625,
    ]
    mask = layer_mask("random", Layer("layers.0", 3, 6), 2, 0)
    assert [tuple(int(i) for i in np.flatnonzero(~row)) for row in mask] == [(1, 2), (0, 1), (2, 3)]


def test_values_of_layers_and_seeds_differ():
    keys = itertools.product((0, 1), ("a", "b"))
    values = [tuple(fixed_values(seed, name, (5,), 1.0)) for seed, name in keys]
    assert len(set(values)) == 4
