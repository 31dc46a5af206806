"""Data sets from tables and arrays in memory are those of files with the same values."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import TensorDataset

from bnn_symm.data import Dataset, load_dataset
from bnn_symm.errors import ConfigError, InvalidData

ROWS = 40


def frame():
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": random.normal(size=ROWS),
            "town": random.choice(["Ulm", "Bonn"], ROWS),
            "sold": pd.date_range("2024-01-01", periods=ROWS),
            "price": random.normal(size=ROWS),
        }
    )


def test_a_frame_is_the_file_of_the_same_values(tmp_path):
    frame().to_parquet(tmp_path / "x.parquet")
    wanted = load_dataset(tmp_path / "x.parquet", target="price", test_fraction=0.5)
    got = Dataset.from_frame(frame(), "price", test_fraction=0.5)
    assert got.feature_names == wanted.feature_names
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(got, part).x, getattr(wanted, part).x)
        assert torch.equal(getattr(got, part).y, getattr(wanted, part).y)
    assert got.provenance.sha256 == wanted.provenance.sha256


def test_a_table_of_polars():
    polars = pytest.importorskip("polars")
    table = polars.DataFrame({name: frame()[name].to_list() for name in ("size", "town", "price")})
    wanted = Dataset.from_frame(frame().drop(columns="sold"), "price")
    got = Dataset.from_frame(table, "price")
    assert torch.equal(got.train.x, wanted.train.x)
    assert torch.equal(got.preprocessing.encode(table), got.preprocessing.encode(frame()))


def test_arrays_and_data_sets_of_torch():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(ROWS, 3)), random.normal(size=ROWS)
    wanted = Dataset.from_arrays(x, y, dtype=torch.float64)
    assert (wanted.task, wanted.input_shape) == ("regression", (3,))
    points = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for got in (
        Dataset.from_arrays(torch.from_numpy(x), y[:, None], dtype=torch.float64),
        Dataset.from_torch(points, dtype=torch.float64),
    ):
        assert torch.equal(got.train.x, wanted.train.x)
        assert torch.equal(got.test.y, wanted.test.y)
    labels = Dataset.from_arrays(x, np.where(y > 0, "up", "down"))
    assert labels.class_labels == ("down", "up")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Dataset.from_frame(np.zeros((3, 2)), "y"), ConfigError, "use Dataset.from_arrays"),
        (lambda: Dataset.from_frame(frame(), "cost"), InvalidData, "no column 'cost'"),
        (lambda: Dataset.from_frame(frame().iloc[:0], "price"), InvalidData, "no rows"),
        (lambda: Dataset.from_frame(frame(), "price", dropp="x"), ConfigError, "mean 'drop'"),
        (
            lambda: Dataset.from_frame(frame().rename(columns={"size": "town"}), "price"),
            InvalidData,
            "duplicate columns: town",
        ),
        (lambda: Dataset.from_arrays(np.zeros((9, 2)), np.zeros(8)), InvalidData, "9 points"),
        (lambda: Dataset.from_arrays(np.zeros((9, 2)), [0] * 9, drop="a"), ConfigError, "tables"),
        (
            lambda: Dataset.from_arrays(np.array(["a"] * 9), np.zeros(9)),
            InvalidData,
            "expected num",
        ),
        (lambda: Dataset.from_torch([1, 2, 3]), ConfigError, "pairs of an input and a target"),
        (lambda: Dataset.from_torch(iter([])), ConfigError, "with a length"),
    ],
)
def test_what_cannot_be_used(build, error, message):
    with pytest.raises(error, match=message):
        build()


def table(**columns):
    return pd.DataFrame({"z": np.arange(60) % 7, "t": np.arange(60) % 11 / 4, **columns})


def test_numbers_that_are_stored_as_text_are_noted_or_refused():
    codes = Dataset.from_frame(table(a=["0", "1", "2"] * 20), target="t")
    assert "stored as text, read as 3 categories" in codes.notes[0]
    words = Dataset.from_frame(table(a=[1, "x", 3.5] * 20), target="t")
    assert "mixes texts with other values ('x' in row 2)" in words.notes[0]
    with pytest.raises(InvalidData, match=r"some of which are stored as text \('2' in row 2"):
        Dataset.from_frame(table(a=[1, "2", 3.5, None] * 15), target="t")


@pytest.mark.parametrize("form", ["${}.5", "{},5", "{}.5 %"])
def test_a_target_of_a_frame_has_the_notations_of_a_file(form):
    texts = [form.format(i % 11) for i in range(60)]
    data = Dataset.from_frame(table(t=texts), target="t")
    expected = np.arange(60) % 11 + 0.5
    part = data.train
    shown = data.scaling.y_mean + data.scaling.y_scale * part.y.numpy()
    assert np.isin(shown.round(4), expected).all()
    assert "target 't': numbers with" in data.notes[0]


def test_integers_that_are_read_as_classes_are_noted():
    counts = np.arange(60) % 5
    data = Dataset.from_frame(pd.DataFrame({"z": np.arange(60) % 7, "t": counts}), target="t")
    assert data.task == "classification"
    assert "target 't' has the integers 0, 1, 2, 3, 4: read as classes" in data.notes[0]
    declared = Dataset.from_frame(table(t=counts), target="t", task="count")
    assert not any("read as classes" in note for note in declared.notes)


def test_duplicate_columns_are_refused_where_tables_are_read():
    data = Dataset.from_frame(table(), target="t")
    twice = pd.concat([table(), table()], axis=1)
    with pytest.raises(InvalidData, match="duplicate columns: z, t"):
        data.preprocessing.encode(twice)
