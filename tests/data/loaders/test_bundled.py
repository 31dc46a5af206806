import numpy as np
import pytest
import torch
from sklearn import datasets

from bnn_symm.data import (
    DataConfig,
    dataset_names,
    list_datasets,
    load_dataset,
    load_points,
    read_inputs,
)
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData


@pytest.mark.parametrize(
    ("name", "task", "shape", "outputs", "sizes"),
    [
        ("digits", "classification", (1, 8, 8), 10, (1294, 144, 359)),
        ("breast_cancer", "classification", (30,), 2, (409, 46, 114)),
        ("wine", "classification", (13,), 3, (128, 14, 36)),
        ("iris", "classification", (4,), 3, (108, 12, 30)),
        ("diabetes", "regression", (10,), 1, (319, 35, 88)),
        ("gap", "regression", (1,), 1, (90, 10, 200)),
    ],
)
def test_bundled_sets(name, task, shape, outputs, sizes):
    data = load_dataset(name)
    assert (data.name, data.task, data.input_shape, data.num_outputs) == (
        name,
        task,
        shape,
        outputs,
    )
    assert tuple(map(len, (data.train, data.validation, data.test))) == sizes
    assert data.train.x.dtype == torch.float32
    assert data.train.y.dtype == (torch.int64 if task == "classification" else torch.float32)
    assert len(data.feature_names) == np.prod(shape)
    assert abs(float(data.train.x.mean())) < 1e-5
    if task == "regression":
        assert abs(float(data.train.y.mean())) < 1e-5
        assert abs(float(data.train.y.std(correction=0)) - 1) < 1e-5


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits", test_fraction=0, validation_fraction=0, dtype=torch.float64)
    raw = data.train.x.numpy() * data.scaling.x_scale + data.scaling.x_mean
    wanted = datasets.load_digits()
    ours = sorted(
        zip(np.rint(raw).reshape(-1, 64).astype(int).tolist(), data.train.y.tolist(), strict=True)
    )
    assert ours == sorted(
        zip(wanted.data.astype(int).tolist(), wanted.target.tolist(), strict=True)
    )
    assert len(data.test) == len(data.validation) == 0


def test_labels_are_names():
    assert load_dataset("breast_cancer").class_labels == ("malignant", "benign")
    assert load_dataset("iris").class_labels == ("setosa", "versicolor", "virginica")
    assert load_dataset("digits").class_labels == tuple(range(10))


def test_the_gap_is_in_train_and_not_in_test():
    data = load_dataset("gap", dtype=torch.float64)
    train = data.train.x.numpy() * data.scaling.x_scale + data.scaling.x_mean
    test = data.test.x.numpy() * data.scaling.x_scale + data.scaling.x_mean
    assert np.abs(train).min() > 1
    assert (np.abs(test) < 0.9).sum() > 30
    assert (test.min().item(), test.max().item()) == pytest.approx((-4, 4))


def test_scaling_never_sees_the_test_part():
    data = load_dataset("diabetes", dtype=torch.float64)
    raw = datasets.load_diabetes(scaled=False)
    mean = data.scaling.x_mean
    assert not np.allclose(mean, raw.data.mean(0), rtol=1e-6)
    undone = data.train.x.numpy() * data.scaling.x_scale + mean
    np.testing.assert_allclose(undone.mean(0), mean)


def test_without_standardization_the_values_are_raw():
    data = load_dataset("diabetes", standardize=False, dtype=torch.float64)
    assert (data.scaling.y_mean, data.scaling.y_scale) == (0.0, 1.0)
    raw = datasets.load_diabetes(scaled=False)
    together = torch.cat([data.train.y, data.validation.y, data.test.y]).numpy()
    np.testing.assert_array_equal(np.sort(together), np.sort(raw.target))


def test_gap_feature_of_a_table():
    data = load_dataset("diabetes", gap_feature="bmi", standardize=False)
    column = data.feature_names.index("bmi")
    test, train = data.test.x[:, column], data.train.x[:, column]
    assert not ((train >= test.min()) & (train <= test.max())).any()
    assert train.min() < test.min() < test.max() < train.max()
    with pytest.raises(ConfigError, match="no feature 'bmj'; did you mean 'bmi'"):
        load_dataset("diabetes", gap_feature="bmj")
    with pytest.raises(ConfigError, match="is for regression"):
        load_dataset("iris", gap_feature="petal width (cm)")


def test_provenance():
    first, second = load_dataset("iris"), load_dataset("iris", split_seed=1)
    assert first.provenance.sha256 == second.provenance.sha256
    assert first.provenance.sha256 != load_dataset("wine").provenance.sha256
    assert second.provenance.to_dict()["split_seed"] == 1
    assert not torch.equal(first.train.y, second.train.y)
    assert torch.equal(first.train.x, load_dataset("iris").train.x)


def test_dataset_to():
    data = load_dataset("iris").to(dtype=torch.float64)
    assert data.test.x.dtype == torch.float64
    assert data.test.y.dtype == torch.int64


def test_names_and_list():
    assert dataset_names()[:2] == ("digits", "breast_cancer")
    infos = {info.name: info for info in list_datasets()}
    assert infos["digits"].available
    assert not infos["digits"].fetchable
    assert infos["cifar10"].fetchable
    assert all(info.description.endswith(".") for info in infos.values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: load_dataset("digitz"),
            DatasetNotFound,
            "got 'digitz'.* did you mean 'digits'",
        ),
        (
            lambda: load_dataset("iris", targett="x"),
            ConfigError,
            "key 'targett' .* did you mean 'target'",
        ),
        (
            lambda: load_dataset("iris", test_fraction=1.5),
            ConfigError,
            "data.test_fraction: got 1.5",
        ),
        (
            lambda: load_dataset("iris", target="petal"),
            ConfigError,
            "predicts 'species', got data.target='petal'",
        ),
        (
            lambda: load_dataset("digits", limit=9),
            InvalidData,
            r"class \d of .* no training point .*limit=9",
        ),
        (
            lambda: load_dataset("iris", task="regression"),
            InvalidData,
            "task regression, row 1: got 'setosa'",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_task_and_limit_by_key():
    data = load_dataset(DataConfig(name="digits", limit=200), task="regression")
    assert (data.task, data.num_outputs, len(data.train), len(data.validation)) == (
        "regression",
        1,
        180,
        20,
    )


def test_points_of_a_set_with_a_name():
    digits = load_dataset("digits")
    part = load_points("digits", digits.preprocessing)
    assert torch.equal(part.x, digits.test.x)
    assert torch.equal(part.y, digits.test.y)
    assert torch.equal(load_points("digits", digits.preprocessing, part="train").x, digits.train.x)
    assert torch.equal(read_inputs("digits", digits.preprocessing), digits.test.x)
    other = load_points(DataConfig(name="digits", split_seed=2), digits.preprocessing)
    assert not torch.equal(other.x, digits.test.x)


def test_points_with_other_columns():
    with pytest.raises(InvalidData, match="columns are missing: sepal length"):
        load_points("wine", load_dataset("iris").preprocessing)
