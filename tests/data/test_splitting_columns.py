"""Splits by columns of a table, by arrays, and by files of their own, from `load_dataset` on."""

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import DataConfig, Dataset, load_dataset
from bnn_symm.errors import ConfigError, InvalidData

ROWS = 120


@pytest.fixture(scope="module")
def table():
    random = np.random.default_rng(0)
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(ROWS) // 2, unit="D")
    return pd.DataFrame(
        {
            "date": days.strftime("%d.%m.%Y"),
            "patient": [f"p{number}" for number in random.integers(15, size=ROWS)],
            "size": random.normal(size=ROWS).round(3),
            "town": random.choice(["Ulm", "Bonn"], ROWS),
            "price": random.normal(size=ROWS).round(3),
        }
    )


@pytest.fixture(autouse=True)
def _files(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table.to_csv("t.csv", index=False)


def load(**keys):
    return load_dataset("t.csv", target="price", standardize=False, dtype=torch.float64, **keys)


def columns_of(data, part, table, name):
    """Return the values of a column in a part, whose rows are found by their target."""
    rows = table.set_index("price").loc[getattr(data, part).y.numpy()]
    return rows[name].tolist()


def test_groups_of_a_column(table):
    data = load(group="patient")
    sets = [set(columns_of(data, part, table, "patient")) for part in ("train", "test")]
    assert not sets[0] & sets[1]
    assert not any("patient" in name for name in data.feature_names)
    assert len(data.train) + len(data.validation) + len(data.test) == ROWS
    assert data.provenance.split_sha256 != load().provenance.split_sha256
    listed = load(group="patient", features=["size", "patient"], drop=[])
    assert any(name.startswith("patient=") for name in listed.feature_names)
    assert listed.provenance.split_sha256 == data.provenance.split_sha256


def test_times_of_a_column(table):
    data = load(time="date")
    days = {
        part: pd.to_datetime(columns_of(data, part, table, "date"), format="%d.%m.%Y")
        for part in ("train", "validation", "test")
    }
    assert days["train"].max() < days["validation"].min()
    assert days["validation"].max() < days["test"].min()
    assert (len(data.test), len(data.validation)) == (24, 10)
    # It remains a feature with a note, unless it is left out.
    assert "date" in data.feature_names
    assert any("date" in note and "later" in note for note in data.notes)
    without = load(time="date", drop="date")
    assert not any("date" in name for name in without.feature_names)
    assert without.provenance.split_sha256 == data.provenance.split_sha256
    assert not any("later" in note for note in without.notes)


@pytest.mark.parametrize("values", ["numbers", "timestamps", "iso"])
def test_times_of_every_type_give_one_split(table, values):
    moments = pd.to_datetime(table["date"], format="%d.%m.%Y")
    other = {
        "numbers": np.arange(ROWS) // 2,
        "timestamps": moments,
        "iso": moments.dt.strftime("%Y-%m-%d"),
    }[values]
    frame = table.assign(date=other).sample(frac=1, random_state=1)
    expected = load(time="date", fold=2, validation_fraction=0)
    got = Dataset.from_frame(frame, "price", time="date", fold=2, validation_fraction=0)
    assert len(got.test) == len(expected.test) == 20
    target = expected.test.y.numpy()
    restored = got.test.y * got.scaling.y_scale + got.scaling.y_mean
    np.testing.assert_allclose(np.sort(restored), np.sort(target), atol=1e-5)


def test_arrays(table):
    x, y = table[["size"]].to_numpy(), table["price"].to_numpy()
    _, codes = np.unique(table["patient"], return_inverse=True)
    options = {"standardize": False, "dtype": torch.float64}
    grouped = Dataset.from_arrays(x, y, group=torch.from_numpy(codes), **options)
    assert torch.equal(grouped.test.y, load(group="patient").test.y)
    timed = Dataset.from_arrays(x, y, time=np.arange(ROWS) // 2, **options)
    assert torch.equal(timed.test.y, load(time="date").test.y)
    np.savez("t.npz", x=x, y=y, patient=codes, date=np.arange(ROWS) // 2)
    for key, wanted in (("group", grouped), ("time", timed)):
        name = {"group": "patient", "time": "date"}[key]
        assert torch.equal(load_dataset("t.npz", **{key: name}, **options).test.y, wanted.test.y)
    with pytest.raises(InvalidData, match=r"got shape \(3,\), expected \(120,\)"):
        Dataset.from_arrays(x, y, group=[1, 2, 3])
    with pytest.raises(InvalidData, match="no array 'g'"):
        load_dataset("t.npz", group="g")


def test_files_of_their_own(table):
    table[:90].to_csv("t.csv", index=False)
    table[90:].to_csv("test.csv", index=False, sep=";", columns=reversed(table.columns))
    table[60:70].to_parquet("validation.parquet")
    data = load(test_file="test.csv")
    np.testing.assert_array_equal(data.test.y, table["price"][90:])
    assert (len(data.train), len(data.validation)) == (81, 9)
    size = data.feature_names.index("size")
    np.testing.assert_array_equal(data.test.x[:, size], table["size"][90:])
    both = load(test_file="test.csv", validation_file="validation.parquet")
    np.testing.assert_array_equal(both.validation.y, table["price"][60:70])
    assert len(both.train) == 90
    only = load(validation_file="validation.parquet")
    assert (len(only.train), len(only.validation), len(only.test)) == (72, 10, 18)
    in_memory = Dataset.from_frame(table[:90], "price", test_file="test.csv", standardize=False)
    torch.testing.assert_close(in_memory.test.x.double(), data.test.x, rtol=1e-6, atol=1e-6)


def test_scaling_and_medians_are_those_of_the_training_points(table):
    with_gap = table[:90].assign(size=table["size"].where(table.index != 5)[:90])
    with_gap.to_csv("t.csv", index=False)
    table[90:].assign(size=None).to_csv("test.csv", index=False)
    data = load_dataset("t.csv", target="price", test_file="test.csv", validation_fraction=0)
    size = data.feature_names.index("size")
    assert data.train.x[:, size].mean().item() == pytest.approx(0, abs=1e-6)
    raw = data.test.x[:, size].double() * data.scaling.x_scale[size] + data.scaling.x_mean[size]
    np.testing.assert_allclose(raw, with_gap["size"].median(), atol=1e-6)


def test_the_content_of_the_files_is_in_the_provenance(table):
    table[:90].to_csv("t.csv", index=False)
    table[90:].to_csv("test.csv", index=False)
    first = load(test_file="test.csv").provenance
    table[90:].to_csv("copy.csv", index=False, sep=";")
    assert load(test_file="copy.csv").provenance.sha256 == first.sha256
    table[91:].to_csv("copy.csv", index=False)
    assert load(test_file="copy.csv").provenance.sha256 != first.sha256
    assert load().provenance.sha256 != first.sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"town": "Rom"}, "test_file: 'test.csv'.*column 'town', row 1: 'Rom'"),
        ({"price": "high"}, "test_file: 'test.csv'.*target 'price', row 1: got 'high'"),
        ({"size": None}, "test_file: 'test.csv'.*columns are missing: size"),
        ({"price": None}, "test_file: 'test.csv' has no target 'price'"),
    ],
)
def test_a_file_that_does_not_fit(table, change, message):
    [(name, value)] = change.items()
    other = table[90:].drop(columns=name) if value is None else table[90:].assign(**change)
    other.to_csv("test.csv", index=False)
    with pytest.raises(InvalidData, match=message.replace("'test.csv'", ".*test.csv.*")):
        load(test_file="test.csv")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gap_feature": "size", "fold": 0}, "gap_feature and data.fold both"),
        ({"gap_feature": "size", "group": "patient"}, "gap_feature and data.group both"),
        ({"group": "patient", "time": "date"}, "group and data.time both"),
        ({"fold": 0, "test_file": "u.csv"}, "test_file and data.fold both"),
        ({"group": "patient", "validation_file": "u.csv"}, "validation_file and data.group both"),
        ({"num_folds": 3}, "num_folds=3 has no effect without data.fold"),
        ({"fold": 0, "test_fraction": 0.3}, "test_fraction=0.3 has no effect with data.fold"),
        ({"time": "date", "split_seed": 1}, "split_seed=1 has no effect with data.time"),
        ({"test_file": "t.csv"}, "is the file for training too"),
        ({"group": "price"}, "group names the target"),
        ({"group": "patent"}, "no column 'patent'; did you mean 'patient'"),
        ({"time": "town"}, "time 'town' is read as category"),
        ({"time": "patient"}, "time 'patient' is read as category"),
    ],
)
def test_settings_that_do_not_fit_together(table, keys, message):
    table.to_csv("u.csv", index=False)
    with pytest.raises((ConfigError, InvalidData), match=message) as error:
        load(**keys)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 350


@pytest.mark.parametrize(("setting", "name"), [("group", "patient"), ("time", "date")])
def test_a_missing_value_is_an_error(table, setting, name):
    table.assign(**{name: table[name].where(table.index != 7)}).to_csv("t.csv", index=False)
    with pytest.raises(InvalidData, match=f"{setting} '{name}': missing value in row 8"):
        load(**{setting: name})


@pytest.mark.parametrize("key", ["group", "time", "test_file", "validation_file"])
def test_named_data_sets_have_no_such_columns_or_files(key):
    with pytest.raises(ConfigError, match=f"data.{key} is for tables in files"):
        load_dataset("iris", **{key: "x"})


def test_folds_of_named_data_sets():
    folds = [load_dataset("iris", fold=fold, num_folds=3, validation_fraction=0) for fold in (0, 1)]
    assert [len(data.test) for data in folds] == [50, 50]
    counts = np.bincount(folds[0].test.y)
    assert counts.max() - counts.min() <= 1
    with pytest.raises(ConfigError, match="'gap' has a test split of its own"):
        load_dataset("gap", fold=0)


def test_old_configurations_have_the_split_that_they_had():
    new = ("group", "time", "test_file", "validation_file", "fold", "num_folds")
    assert all(getattr(DataConfig(), key) is None for key in new)
    assert hash(DataConfig(group="g", fold=1)) != hash(DataConfig(group="g", fold=2))
    # Computed by the version before there were other rules.
    sha256 = load_dataset("iris").provenance.split_sha256
    assert sha256 == "891a270c780b1ae104c41fc1b85437e4e12cebd699f1a93276108fe2b7e9d588"


def test_weights_of_the_points_of_a_file(table):
    weighted = table.assign(w=np.arange(ROWS) % 3 + 1.0)
    weighted[:90].to_csv("t.csv", index=False)
    weighted[90:].to_csv("test.csv", index=False)
    data = load(test_file="test.csv", weight="w")
    assert data.test.weight is not None
    np.testing.assert_array_equal(data.test.weight, weighted["w"][90:])
    weighted[90:].assign(w=1).to_csv("copy.csv", index=False)
    other = load(test_file="copy.csv", weight="w")
    assert other.provenance.sha256 != data.provenance.sha256
    table[90:].to_csv("test.csv", index=False)
    with pytest.raises(InvalidData, match="has no weight 'w'"):
        load(test_file="test.csv", weight="w")
