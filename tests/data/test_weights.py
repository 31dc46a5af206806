"""Weights of points are read from a column, are no feature, and follow the points into splits."""

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import Dataset, Preprocessing, load_dataset, load_points, shift
from bnn_symm.errors import ConfigError, InvalidData

ROWS = 40
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(size=ROWS),
        "count": RANDOM.integers(0, 4, ROWS) + 0.5,
        "price": RANDOM.normal(size=ROWS),
    }
)
KEYS = {"target": "price", "weight": "count", "dtype": torch.float64}


@pytest.fixture(scope="module", params=["csv", "comma", "parquet", "npz", "frame", "arrays"])
def weighted(request, tmp_path_factory) -> Dataset:
    """Return one data set, read in every way."""
    path = tmp_path_factory.mktemp("data") / f"table.{request.param.replace('comma', 'csv')}"
    if request.param == "csv":
        FRAME.to_csv(path, index=False)
    elif request.param == "comma":
        FRAME.to_csv(path, index=False, sep=";", decimal=",")
    elif request.param == "parquet":
        FRAME.to_parquet(path)
    elif request.param == "npz":
        np.savez(path, x=FRAME[["size"]], price=FRAME["price"], count=FRAME["count"])
    elif request.param == "frame":
        keys = {key: value for key, value in KEYS.items() if key != "target"}
        return Dataset.from_frame(FRAME, "price", **keys)
    else:
        weight = torch.tensor(FRAME["count"].tolist())
        return Dataset.from_arrays(
            FRAME["size"].to_numpy(), FRAME["price"], weight=weight, dtype=torch.float64
        )
    return load_dataset(path, **KEYS)


def test_weights_follow_their_points_and_standardization_counts_observations(weighted) -> None:
    assert weighted.input_shape == (1,)
    rows = pd.Series(FRAME["count"].to_numpy(), index=FRAME["price"].round(6))
    scaling = weighted.scaling
    for part in (weighted.train, weighted.validation, weighted.test):
        prices = (scaling.y_mean + scaling.y_scale * part.y).numpy().round(6)
        assert part.weight.tolist() == rows[prices].tolist()
    train = weighted.train
    assert train.mean(train.y) == pytest.approx(0, abs=1e-12)
    assert train.mean(train.y.square()) == pytest.approx(1)
    assert train.mean(train.x[:, 0].square()) == pytest.approx(1)


def test_standardization_by_integer_weights_is_that_of_repeated_rows() -> None:
    counts = np.array([1, 2, 0, 3, 1, 1])
    x, y = RANDOM.normal(size=(6, 2)), RANDOM.normal(size=6)
    keys = {"test_fraction": 0, "validation_fraction": 0, "dtype": torch.float64}
    one = Dataset.from_arrays(x, y, weight=counts, **keys).scaling
    other = Dataset.from_arrays(np.repeat(x, counts, 0), np.repeat(y, counts), **keys).scaling
    np.testing.assert_allclose(one.x_mean, other.x_mean)
    np.testing.assert_allclose(one.x_scale, other.x_scale)
    np.testing.assert_allclose([one.y_mean, one.y_scale], [other.y_mean, other.y_scale])


def test_normalized_weights_have_mean_one_over_the_training_split() -> None:
    plain = Dataset.from_frame(FRAME, "price", weight="count")
    data = Dataset.from_frame(FRAME, "price", weight="count", normalize_weights=True)
    assert data.train.num_observations == pytest.approx(len(data.train))
    assert torch.allclose(data.test.weight * plain.train.weight.mean(), plain.test.weight)
    total = f"{plain.train.num_observations:g}"
    assert [total in note for note in plain.notes] == [True]


def test_balanced_classes_have_one_total_weight_in_the_training_split_only() -> None:
    x, y = RANDOM.normal(size=ROWS), np.array(["a"] * 30 + ["b"] * 10)
    weight = np.arange(1.0, ROWS + 1)
    for given in (None, weight):
        data = Dataset.from_arrays(x, y, weight=given, class_weights="balanced")
        totals = [float(data.train.weight[data.train.y == c].sum()) for c in (0, 1)]
        assert totals[0] == pytest.approx(totals[1], rel=1e-5)
        assert (data.test.weight is None) == (given is None)
    plain = Dataset.from_arrays(x, y, weight=weight)
    assert sum(totals) == pytest.approx(plain.train.num_observations, rel=1e-5)


def test_other_points_have_weights_if_their_file_has(tmp_path) -> None:
    data = Dataset.from_frame(FRAME, "price", weight="count")
    preprocessing = Preprocessing.from_dict(data.preprocessing.to_dict())
    FRAME.to_csv(tmp_path / "with.csv", index=False)
    FRAME.drop(columns="count").to_csv(tmp_path / "without.csv", index=False)
    got = load_points(tmp_path / "with.csv", preprocessing).weight
    assert torch.equal(got, torch.tensor(FRAME["count"].to_numpy(), dtype=torch.float32))
    assert load_points(tmp_path / "without.csv", preprocessing).weight is None


def test_a_shift_keeps_weights() -> None:
    data = Dataset.from_frame(FRAME, "price", weight="count")
    assert shift(data.test, "gaussian_noise", 1).weight is data.test.weight


def test_provenance_depends_on_weights() -> None:
    plain, weighted, other = (
        Dataset.from_arrays(FRAME["size"], FRAME["price"], weight=weight).provenance.sha256
        for weight in (None, FRAME["count"], FRAME["count"] + 1)
    )
    assert len({plain, weighted, other}) == 3


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"weight": "coun"}, InvalidData, "no column 'coun'.*'count'"),
        ({"weight": "price"}, ConfigError, "data.weight and data.target"),
        ({"weight": "count", "drop": "count"}, ConfigError, "no feature anyway"),
        ({"weight": "count", "types": {"count": "number"}}, ConfigError, "data.types"),
        ({"weight": "size"}, InvalidData, "weight 'size', row .* expected a number of"),
        ({"normalize_weights": True}, ConfigError, "data.weight, which is not set"),
        ({"class_weights": "balanced"}, ConfigError, "is for classification"),
    ],
)
def test_wrong_settings_are_errors(keys, error, message) -> None:
    with pytest.raises(error, match=message):
        Dataset.from_frame(FRAME, "price", **keys)


def test_wrong_weights_are_errors() -> None:
    x, y = np.zeros(ROWS), RANDOM.normal(size=ROWS)
    with pytest.raises(InvalidData, match=r"weight of shape \(3,\)"):
        Dataset.from_arrays(x, y, weight=np.ones(3))
    with pytest.raises(InvalidData, match="are zero"):
        Dataset.from_arrays(x, y, weight=np.zeros(ROWS))
    with pytest.raises(InvalidData, match="missing value in row 1"):
        Dataset.from_arrays(x, y, weight=np.full(ROWS, np.nan))
    with pytest.raises(ConfigError, match="is for tables"):
        load_dataset("diabetes", weight="age")


def test_features_may_leave_the_weights_out() -> None:
    data = Dataset.from_frame(
        FRAME.assign(z=1.0 * np.arange(ROWS)), "price", features="size", weight="count"
    )
    assert data.feature_names == ("size",)
