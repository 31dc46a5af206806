"""Properties of the rules of splits: by group, by time, and folds, over many sizes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, TimeSeriesSplit

from bnn_symm.data.config import DataConfig
from bnn_symm.data.splits import split_points
from bnn_symm.errors import ConfigError, InvalidData

SEEDS = st.integers(0, 1000)
FRACTIONS = st.sampled_from([(0.0, 0.1), (0.2, 0.1), (0.3, 0.0), (0.5, 0.3)])


def parts_of(split):
    return split.train, split.validation, split.test


def assert_partition(split, num_points):
    together = np.sort(np.concatenate(parts_of(split)))
    np.testing.assert_array_equal(together, np.arange(num_points))


def assert_no_group_in_two_parts(split, groups):
    sets = [set(groups[rows].tolist()) for rows in parts_of(split)]
    assert sum(map(len, sets)) == len(set.union(*sets))


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=4, max_size=60),
    fractions=FRACTIONS,
    num_classes=st.sampled_from([1, 2, 3]),
    seed=SEEDS,
)
def test_groups_stay_together_near_the_fractions(sizes, fractions, num_classes, seed):
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    classes = random.integers(num_classes, size=len(groups)) if num_classes > 1 else None
    test, validation = fractions
    config = DataConfig(
        test_fraction=test, validation_fraction=validation, split_seed=seed, group="patient"
    )
    try:
        split = split_points(len(groups), config, classes=classes, groups=groups)
    except InvalidData:
        if classes is None:
            raise
        reject()  # few groups of which each is the only one with a class
    assert_partition(split, len(groups))
    assert_no_group_in_two_parts(split, groups)
    if classes is not None:
        assert set(classes[split.train]) == set(classes)
    elif test:
        assert abs(len(split.test) - test * len(groups)) <= max(sizes)
    repeated = split_points(len(groups), config, classes=classes, groups=groups)
    assert repeated.sha256() == split.sha256()


def test_groups_of_equal_size_give_the_exact_fraction_and_depend_on_the_seed():
    groups = np.repeat(np.arange(50), 4)
    splits = [
        split_points(200, DataConfig(split_seed=seed, group="g"), groups=groups) for seed in (0, 1)
    ]
    assert [len(split.test) for split in splits] == [40, 40]
    assert [len(split.validation) for split in splits] == [16, 16]
    assert set(splits[0].test) != set(splits[1].test)


def test_groups_of_one_class_each_are_stratified():
    groups = np.repeat(np.arange(40), 5)
    classes = (groups % 4 == 0).astype(int)  # a quarter of the groups
    split = split_points(200, DataConfig(group="g"), classes=classes, groups=groups)
    assert (len(split.test), classes[split.test].sum()) == (40, 10)
    assert classes[split.train].mean() == pytest.approx(0.25, abs=0.05)


def test_the_only_group_of_a_class_stays_for_training():
    groups = np.repeat(np.arange(10), 6)
    classes = (groups == 3).astype(int)
    for seed in range(5):
        config = DataConfig(split_seed=seed, group="g")
        split = split_points(60, config, classes=classes, groups=groups)
        assert 3 in groups[split.train]


@pytest.mark.parametrize(("num_groups", "part"), [(1, "test"), (2, "validation")])
def test_too_few_groups(num_groups, part):
    groups = np.arange(40) % num_groups
    with pytest.raises(InvalidData, match=f"1 groups of 'g' are too few for a {part}"):
        split_points(40, DataConfig(group="g"), groups=groups)


@settings(max_examples=60, deadline=None)
@given(
    num_times=st.integers(12, 80),
    num_points=st.integers(20, 200),
    fractions=FRACTIONS,
    seed=SEEDS,
)
def test_times_are_ordered_and_ties_stay_together(num_times, num_points, fractions, seed):
    random = np.random.default_rng(seed)
    times = np.concatenate([np.arange(12), random.integers(num_times, size=num_points - 12)])
    times = random.permutation(times).astype(float)
    test, validation = fractions
    config = DataConfig(test_fraction=test, validation_fraction=validation, time="t")
    split = split_points(num_points, config, times=times)
    assert_partition(split, num_points)
    filled = [times[rows] for rows in parts_of(split) if len(rows)]
    assert all(first.max() < second.min() for first, second in itertools.pairwise(filled))
    largest = np.unique(times, return_counts=True)[1].max()
    if test:
        assert len(split.test) > 0
        assert abs(len(split.test) - test * num_points) <= largest


def test_a_limit_keeps_the_latest_training_points():
    times = np.random.default_rng(0).permutation(100).astype(float)
    split = split_points(100, DataConfig(time="t", limit=10), times=times)
    np.testing.assert_array_equal(np.sort(times[split.test]), np.arange(80, 100))
    np.testing.assert_array_equal(times[split.validation], [79])
    np.testing.assert_array_equal(times[split.train], np.arange(70, 79))


def test_one_time_cannot_be_split():
    with pytest.raises(InvalidData, match="1 distinct times of 't' are too few for a test"):
        split_points(30, DataConfig(time="t"), times=np.zeros(30))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=5),
    num_folds=st.integers(2, 8),
    seed=SEEDS,
)
def test_every_row_is_in_one_test_fold_and_classes_are_even(sizes, num_folds, seed):
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    splits = [
        split_points(
            len(classes),
            DataConfig(fold=fold, num_folds=num_folds, split_seed=seed, validation_fraction=0),
            classes=classes if len(sizes) > 1 else None,
        )
        for fold in range(num_folds)
    ]
    for split in splits:
        assert_partition(split, len(classes))
    tested = np.sort(np.concatenate([split.test for split in splits]))
    np.testing.assert_array_equal(tested, np.arange(len(classes)))
    counts = np.array([np.bincount(classes[s.test], minlength=len(sizes)) for s in splits])
    assert np.ptp(counts.sum(axis=1)) <= 1
    if len(sizes) > 1:
        assert np.ptp(counts, axis=0).max() <= 1


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=10, max_size=60),
    num_folds=st.integers(2, 10),
    seed=SEEDS,
)
def test_folds_of_groups(sizes, num_folds, seed):
    random = np.random.default_rng(seed)
    groups = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    config = DataConfig(num_folds=num_folds, fold=0, validation_fraction=0, split_seed=seed)
    splits = [
        split_points(len(groups), replace_fold(config, fold), groups=groups)
        for fold in range(num_folds)
    ]
    for split in splits:
        assert len(split.test)
        assert_partition(split, len(groups))
        assert_no_group_in_two_parts(split, groups)
    tested = np.sort(np.concatenate([split.test for split in splits]))
    np.testing.assert_array_equal(tested, np.arange(len(groups)))
    # Greedy from the largest: no fold exceeds the smallest one by more than a group.
    assert np.ptp([len(split.test) for split in splits]) <= max(sizes)


def replace_fold(config, fold):
    return DataConfig(
        fold=fold,
        num_folds=config.num_folds,
        validation_fraction=config.validation_fraction,
        split_seed=config.split_seed,
    )


def test_folds_of_groups_are_as_even_as_those_of_scikit_learn():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), random.integers(1, 30, 60))
    classes = (random.random(len(groups)) < 0.1 + 0.5 * (groups % 3 == 0)).astype(int)

    def spread(folds):
        counts = np.array([np.bincount(classes[rows], minlength=2) for rows in folds])
        return np.abs(counts / counts.sum(axis=0) - 1 / 5).max()

    ours = [
        split_points(len(groups), DataConfig(fold=fold), classes=classes, groups=groups).test
        for fold in range(5)
    ]
    reference = StratifiedGroupKFold(5).split(classes, classes, groups)
    assert spread(ours) <= spread([test for _, test in reference]) + 0.01


@settings(max_examples=40, deadline=None)
@given(num_points=st.integers(30, 200), num_times=st.integers(9, 90), num_folds=st.integers(2, 8))
def test_folds_of_time_are_blocks_after_their_training_points(num_points, num_times, num_folds):
    random = np.random.default_rng(num_points)
    times = np.concatenate([np.arange(9), random.integers(num_times, size=num_points - 9)])
    splits = [
        split_points(
            num_points,
            DataConfig(fold=fold, num_folds=num_folds, time="t", validation_fraction=0),
            times=times,
        )
        for fold in range(num_folds)
    ]
    for split, following in itertools.pairwise(splits):
        assert times[split.train].max() < times[split.test].min()
        assert set(following.train) == {*split.train, *split.test}
    never_tested = num_points - sum(len(split.test) for split in splits)
    assert never_tested == len(splits[0].train)
    assert len(splits[-1].train) + len(splits[-1].test) == num_points


def test_folds_of_distinct_times_are_those_of_scikit_learn():
    times = np.arange(60.0)
    for fold, (train, test) in enumerate(TimeSeriesSplit(5).split(times)):
        config = DataConfig(fold=fold, time="t", validation_fraction=0)
        split = split_points(60, config, times=times)
        np.testing.assert_array_equal(split.train, train)
        np.testing.assert_array_equal(split.test, test)


@pytest.mark.parametrize(
    ("keys", "inputs", "message"),
    [
        ({"fold": 5}, {}, "got 5, expected 0 to 4"),
        ({"fold": 0, "num_folds": 50}, {}, "40 rows are too few for 50 folds"),
        (
            {"fold": 0, "num_folds": 8, "group": "g"},
            {"groups": np.arange(40) % 7},
            "7 groups of 'g'",
        ),
        (
            {"fold": 0, "num_folds": 8, "time": "t"},
            {"times": np.arange(40) % 8},
            "8 distinct times .* at least 9",
        ),
    ],
)
def test_folds_that_do_not_exist(keys, inputs, message):
    with pytest.raises((ConfigError, InvalidData), match=message):
        split_points(40, DataConfig(**keys), **inputs)
