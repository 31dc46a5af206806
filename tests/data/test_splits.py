import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_symm.data.config import DataConfig
from bnn_symm.data.splits import OwnSplit, gap_mask, split_points
from bnn_symm.errors import InvalidData


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(3, 60), min_size=2, max_size=6),
    test=st.sampled_from([0.0, 0.2, 0.5]),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    seed=st.integers(0, 1000),
)
def test_parts_are_disjoint_complete_and_stratified(sizes, test, validation, seed):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    config = DataConfig(test_fraction=test, validation_fraction=validation, split_seed=seed)
    if validation and round((len(classes) - round(len(classes) * test)) * validation) == 0:
        with pytest.raises(InvalidData, match="too few"):
            split_points(len(classes), config, classes=classes)
        return
    split = split_points(len(classes), config, classes=classes)
    together = np.concatenate([split.train, split.validation, split.test])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(classes)))
    assert set(classes[split.train]) == set(range(len(sizes)))
    counts = np.bincount(classes[split.test], minlength=len(sizes))
    assert np.all(np.abs(counts - test * np.array(sizes)) <= 1)
    assert len(split.test) == round(len(classes) * test)


def test_the_key_is_the_seed_alone():
    first = split_points(100, DataConfig(name="iris", split_seed=3))
    same = split_points(100, DataConfig(name="wine", split_seed=3))
    other = split_points(100, DataConfig(name="iris", split_seed=4))
    np.testing.assert_array_equal(first.train, same.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.thorough
def test_another_process_makes_the_same_split_and_imports_nothing_heavy():
    code = (
        "import sys; from bnn_symm.data import DataConfig; from bnn_symm.data.splits import "
        "split_points; print(split_points(40, DataConfig(split_seed=5)).test.tolist()); "
        "print([name for name in ('pandas', 'sklearn', 'pooch', 'PIL', 'pyarrow') if name in "
        "sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.splitlines() == [str(split_points(40, DataConfig(split_seed=5)).test.tolist()), "[]"]


def test_limit_keeps_a_prefix_and_leaves_the_test_part_alone():
    full = split_points(100, DataConfig(validation_fraction=0))
    limited = split_points(100, DataConfig(validation_fraction=0, limit=30))
    np.testing.assert_array_equal(limited.train, full.train[:30])
    np.testing.assert_array_equal(limited.test, full.test)
    part = split_points(100, DataConfig(validation_fraction=0.1, limit=30))
    assert (len(part.train), len(part.validation)) == (27, 3)


def test_a_fixed_test_part_is_used_in_its_own_order():
    fixed = (np.arange(10, 50), np.array([3, 1, 2]))
    split = split_points(60, DataConfig(), own=OwnSplit(train=fixed[0], test=fixed[1]))
    np.testing.assert_array_equal(split.test, [3, 1, 2])
    assert set(split.train) | set(split.validation) == set(range(10, 50))
    assert len(split.validation) == 4


def test_gap_split_trains_on_the_outer_thirds():
    values = np.random.default_rng(0).normal(size=90)
    split = split_points(90, DataConfig(validation_fraction=0), gap_values=values)
    inside = np.sort(values)[30:60]
    np.testing.assert_array_equal(np.sort(values[split.test]), inside)
    assert values[split.train].min() < inside[0]
    assert values[split.train].max() > inside[-1]
    assert not ((values[split.train] >= inside[0]) & (values[split.train] <= inside[-1])).any()


def test_gap_of_a_binary_feature_is_refused():
    with pytest.raises(InvalidData, match="too few distinct values \\(2\\)"):
        gap_mask(np.array([0.0, 1.0] * 10))


def test_a_class_with_one_point_stays_in_train():
    classes = np.array([0] * 20 + [1])
    for seed in range(10):
        split = split_points(21, DataConfig(split_seed=seed, test_fraction=0.5), classes=classes)
        assert 20 in split.train


@pytest.mark.parametrize(("rows", "message"), [(2, "test split"), (4, "validation split")])
def test_too_few_rows(rows, message):
    with pytest.raises(InvalidData, match=f"too few for a {message}.*_fraction=0"):
        split_points(rows, DataConfig())


def test_one_training_row_is_too_few():
    with pytest.raises(InvalidData, match="leave 1 for training"):
        split_points(2, DataConfig(test_fraction=0.5, validation_fraction=0))
