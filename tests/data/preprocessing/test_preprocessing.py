import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_symm.data import Dataset, Preprocessing, Scaling, Split, load_dataset
from bnn_symm.data.preprocessing.labels import label_indices, sorted_labels
from bnn_symm.errors import InvalidData


def frame(rows=40):
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "age": random.normal(50, 9, rows),
            "smoker": random.integers(0, 2, rows).astype(bool),
            "town": random.choice(["Ulm", "Bonn", "Jena"], rows),
            "species": random.choice(["cat", "dog"], rows),
        }
    )


@pytest.fixture
def pets(tmp_path):
    path = tmp_path / "pets.csv"
    frame().to_csv(path, index=False)
    return load_dataset(path, target="species", dtype=torch.float64)


def through_json(preprocessing):
    return Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict())))


def test_schema_of_a_table(pets):
    assert pets.feature_names == ("age", "smoker", "town=Bonn", "town=Jena", "town=Ulm")
    assert pets.input_shape == (5,)
    assert pets.class_labels == ("cat", "dog")
    assert pets.num_outputs == 2


def test_scaling_is_fitted_on_the_training_part_only(pets):
    torch.testing.assert_close(
        pets.train.x.mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(
        pets.train.x.std(0, correction=0), torch.ones(5, dtype=torch.float64)
    )
    assert pets.test.x.mean(0).abs().max() > 1e-3


def test_round_trip_by_json_encodes_to_the_same_bits(pets):
    again = through_json(pets.preprocessing)
    assert again.to_dict() == pets.preprocessing.to_dict()
    assert torch.equal(again.encode(frame()), pets.preprocessing.encode(frame()))


def test_columns_are_matched_by_name(pets):
    table = frame()
    shuffled = table[["town", "species", "smoker", "age"]].assign(extra="ignored")
    assert torch.equal(pets.preprocessing.encode(shuffled), pets.preprocessing.encode(table))


def test_encoding_by_hand(pets):
    row = pd.DataFrame({"age": [60.0], "smoker": [True], "town": ["Ulm"]})
    raw = np.array([60.0, 1, 0, 0, 1])
    wanted = (raw - pets.scaling.x_mean) / pets.scaling.x_scale
    np.testing.assert_allclose(pets.preprocessing.encode(row, torch.float64)[0].numpy(), wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["age", "town"]), "columns are missing: age, town"),
        (
            lambda t: t.rename(columns={"age": "agee"}),
            "columns are missing: age; .*did you mean 'agee'",
        ),
        (
            lambda t: t.assign(town=["Ulm"] * 6 + ["Rome"] * 34),
            "'town', row 7: 'Rome' is not a category",
        ),
        (
            lambda t: t.assign(age=[1.0, np.nan, np.nan] + [2.0] * 37),
            "'age': missing value in row 2 \\(2 missing",
        ),
        (
            lambda t: t.assign(age=[1.0, 2.0, np.inf] + [2.0] * 37),
            "'age', row 3: got inf \\(1 such",
        ),
        (lambda t: t.assign(age=["1", "old"] + ["2"] * 38), "'age', row 2: got 'old'"),
        (
            lambda t: t.assign(smoker=[1, 0, 2] + [1] * 37),
            "'smoker', row 3: got 2, expected true or false",
        ),
        (lambda t: t.iloc[:0], "got no rows"),
    ],
)
def test_inputs_that_do_not_fit(pets, change, message):
    with pytest.raises(InvalidData, match=message) as caught:
        pets.preprocessing.encode(change(frame()))
    assert "\n" not in str(caught.value)


def test_array_for_a_table_of_numbers():
    iris = load_dataset("iris")
    raw = np.array([[5.1, 3.5, 1.4, 0.2]])
    table = pd.DataFrame(raw, columns=list(iris.feature_names))
    assert torch.equal(iris.preprocessing.encode(raw), iris.preprocessing.encode(table))
    with pytest.raises(
        InvalidData, match="shape \\(1, 3\\), expected a table with the columns sepal"
    ):
        iris.preprocessing.encode(raw[:, :3])


def test_array_for_a_table_with_categories_is_refused(pets):
    with pytest.raises(InvalidData, match="expected a table"):
        pets.preprocessing.encode(np.zeros((2, 3)))


def test_images_in_every_accepted_shape():
    digits = load_dataset("digits")
    raw = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8))
    wanted = digits.preprocessing.encode(raw)
    assert wanted.shape == (5, 1, 8, 8)
    table = pd.DataFrame(raw.reshape(5, 64), columns=list(digits.feature_names))[
        list(digits.feature_names)[::-1]
    ]
    for same in (raw[:, 0], raw.reshape(5, 64), raw.astype(np.uint8), table):
        assert torch.equal(digits.preprocessing.encode(same), wanted)
    for bad in (raw.reshape(5, 8, 8, 1), raw[0, 0, 0], raw[..., :7]):
        with pytest.raises(InvalidData, match="expected \\(point, 1, 8, 8\\)"):
            digits.preprocessing.encode(bad)
    with pytest.raises(InvalidData, match="columns are missing: pixel_7_7"):
        digits.preprocessing.encode(table.drop(columns="pixel_7_7"))
    broken = raw.astype(float)
    broken[3, 0, 2, 1] = np.nan
    with pytest.raises(InvalidData, match=r"'pixel_2_1', row 4: got nan"):
        digits.preprocessing.encode(broken)


def test_targets():
    iris, diabetes = load_dataset("iris").preprocessing, load_dataset("diabetes").preprocessing
    indices = iris.encode_target(np.array(["virginica", "setosa"]))
    assert indices.dtype == torch.int64
    assert indices.tolist() == [2, 0]
    assert iris.decode_labels(indices).tolist() == ["virginica", "setosa"]
    with pytest.raises(
        InvalidData, match="unknown classes: 'rose', 'tulip' \\(first in row 2\\); known: 'setosa'"
    ):
        iris.encode_target(np.array(["setosa", "rose", "tulip"]))
    y = diabetes.encode_target(np.array([100.0, 200.0]), torch.float64)
    np.testing.assert_allclose(
        y.numpy() * diabetes.scaling.y_scale + diabetes.scaling.y_mean, [100, 200]
    )
    with pytest.raises(InvalidData, match="row 2: got NaN"):
        diabetes.encode_target(np.array([1.0, np.nan]))
    counts = replace(diabetes, task="count")
    assert counts.encode_target(np.array([0, 7])).tolist() == [0.0, 7.0]
    for bad in (-1.0, 0.5):
        with pytest.raises(InvalidData, match=r"row 2: got .* expected counts"):
            counts.encode_target(np.array([1.0, bad]))


@pytest.mark.parametrize("labels", [(0, 1, 2), ("a", "b"), (False, True), (0.5, 1.0), (1, "x")])
def test_labels_keep_their_type_through_json(labels):
    base = load_dataset("iris").preprocessing
    again = through_json(replace(base, class_labels=labels))
    assert again.class_labels == labels
    assert [type(label) for label in again.class_labels] == [type(label) for label in labels]
    decoded = again.decode_labels(torch.arange(len(labels)))
    assert decoded.tolist() == list(labels)


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(max_size=5), st.integers(-99, 99)), min_size=1, max_size=20))
def test_every_label_is_found_again(values):
    values = list(
        {str(value): value for value in values}.values()
    )  # "1" and 1 are one label by design
    labels = sorted_labels(values)
    found = label_indices(np.array(values, dtype=object), labels)
    assert [labels[index] for index in found] == values


def test_integers_are_found_among_text_labels():
    assert label_indices(np.array([2, 1, 5]), ("1", "2", "3+")).tolist() == [1, 0, -1]


def standardized(scaling, x, dtype=torch.float64):
    return torch.cat(list(scaling.standardize(x, np.arange(len(x)), dtype)))


def test_constant_features_keep_scale_one():
    x = np.stack([np.full(50, 288.1), np.arange(50.0)], axis=1)
    scaling = Scaling.fit(x, np.arange(50))
    np.testing.assert_allclose(scaling.x_scale, [1.0, np.arange(50).std()])
    assert standardized(scaling, x)[:, 0].abs().max() < 1e-12


def test_images_have_a_mean_a_pixel_and_a_scale_a_channel():
    x = np.random.default_rng(0).integers(0, 256, (5000, 3, 2, 2)).astype(np.uint8)
    x[:, 1, 0, 0] = 7
    scaling = Scaling.fit(x, np.arange(4500))
    np.testing.assert_allclose(scaling.x_mean, x[:4500].mean(0))
    centered = x[:4500] - x[:4500].mean(0)
    np.testing.assert_allclose(
        scaling.x_scale, np.sqrt(np.square(centered).mean((0, 2, 3)))[:, None, None]
    )
    assert standardized(scaling, x)[:, 1, 0, 0].abs().max() < 1e-12


def test_values_too_large_for_the_floating_type():
    scaling = Scaling.identity((1,))
    with pytest.raises(InvalidData, match=r"row 2 .*too large for torch.float32"):
        standardized(scaling, np.array([[1.0], [1e300]]), torch.float32)
    assert standardized(scaling, np.array([[1e300]])).item() == 1e300


def test_part():
    part = Split(x=torch.arange(6.0).reshape(3, 2), y=torch.tensor([0, 1, 2]))
    assert len(part) == 3
    moved = part.to(dtype=torch.float64)
    assert (moved.x.dtype, moved.y.dtype) == (torch.float64, torch.int64)
    assert part.take([2, 0]).y.tolist() == [2, 0]
    assert part.take(np.array([True, False, True])).y.tolist() == [0, 2]
    assert part.take([]).x.shape == (0, 2)
    assert replace(part, y=torch.zeros(3)).to(dtype=torch.float64).y.dtype == torch.float64


def test_numbers_that_overflow_are_refused(tmp_path):
    table = pd.DataFrame(
        {
            "a": np.linspace(-1, 1, 30),
            "b": np.linspace(-1e300, 1e300, 30),
            "y": np.linspace(-1, 1, 30),
        }
    )
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InvalidData, match=r"row 28 has a feature too large for torch.float32"):
        load_dataset(tmp_path / "x.csv")
    table.drop(columns="b").assign(y=table["y"] * 1e60).to_csv(tmp_path / "y.csv", index=False)
    assert load_dataset(tmp_path / "y.csv").train.y.isfinite().all()
    with pytest.raises(InvalidData, match=r"'y', row 1: -1e\+60 is too large for torch.float32"):
        load_dataset(tmp_path / "y.csv", standardize=False)


def test_what_the_training_data_do_not_have_is_ignored_where_declared():
    table = frame().assign(
        weight=np.arange(40.0), sold=pd.date_range("2024-01-01", periods=40).astype(str)
    )
    table.loc[3, "weight"] = np.nan
    data = Dataset.from_frame(table, "species", unseen="ignore", standardize=False)
    encode = through_json(data.preprocessing).features
    names = list(data.feature_names)
    usual = encode(table)
    strict = Dataset.from_frame(table, "species", standardize=False).preprocessing
    np.testing.assert_array_equal(usual, strict.features(table))
    later = table.iloc[:2].astype({"age": object, "smoker": object})
    later[["age", "smoker", "town", "sold"]] = [[None, None, "Rome", None], [1.0, True, None, "NA"]]
    with pytest.raises(InvalidData, match=r"unseen='ignore'"):
        strict.features(later)
    with pytest.raises(InvalidData, match=r"'Rome' is not a category .* unseen='ignore'"):
        strict.features(table.iloc[:1].assign(town="Rome"))
    got = encode(later)
    towns = [i for i, name in enumerate(names) if name.startswith("town")]
    assert (got[:, towns] == 0).all()
    by_name = {column.name: column for column in data.preprocessing.columns}
    assert (got[0, names.index("age")], got[1, names.index("age")]) == (by_name["age"].fill[0], 1.0)
    assert got[0, names.index("smoker")] == by_name["smoker"].fill[0]
    dates = [i for i, name in enumerate(names) if name.startswith("sold")]
    np.testing.assert_allclose(got[:, dates], [by_name["sold"].fill] * 2)
    at = names.index("weight")
    assert (got[:, at : at + 2] == usual[:2, at : at + 2]).all()
