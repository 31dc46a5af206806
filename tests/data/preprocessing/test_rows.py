"""A row is encoded the same in every file, order and format, whatever the other rows are."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_symm.data import Preprocessing, load_dataset, load_points, read_inputs
from bnn_symm.data.preprocessing.labels import label_array, label_indices, sorted_labels
from bnn_symm.errors import InvalidData

ROWS = 24
CODES = ["01", "1", "A"]
TABLE = {
    "code": [CODES[row % 3] for row in range(ROWS)],
    "month": [f"{row % 4 + 9:02}" for row in range(ROWS)],
    "open": [("true", "False")[row % 2] for row in range(ROWS)],
    "size": [str(row % 5) for row in range(ROWS)],
    "length": [f"{row / 8 - 1:g}" for row in range(ROWS)],
    "state": [("None", "NA", "it's, so", 'a "b"')[row % 4] for row in range(ROWS)],
    "grade": [("1", "2", "3+")[row % 3] for row in range(ROWS)],
    "label": [("True", "x", "01")[row % 3] for row in range(ROWS)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def fitted(folder):
    pd.DataFrame(TABLE).to_csv(folder / "train.csv", index=False)
    dataset = load_dataset(folder / "train.csv", target="label", dtype=torch.float64)
    whole = load_points(folder / "train.csv", dataset.preprocessing, dtype=torch.float64)
    return dataset.preprocessing, whole


@pytest.mark.thorough
@given(
    rows=st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=8),
    suffix=st.sampled_from(["csv", "parquet"]),
)
@settings(deadline=None, max_examples=60)
def test_every_subset_and_order_of_rows(folder, fitted, rows, suffix):
    preprocessing, whole = fitted
    path = folder / f"part.{suffix}"
    part = pd.DataFrame(TABLE).iloc[rows]
    part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path)
    points = load_points(path, preprocessing, dtype=torch.float64)
    assert torch.equal(points.x, whole.x[rows])
    assert torch.equal(points.y, whole.y[rows])


def test_kinds_are_stored(fitted):
    preprocessing, _ = fitted
    kinds = {column.name: column.kind for column in preprocessing.columns}
    assert [name for name, kind in kinds.items() if kind == "number"] == ["size", "length"]
    assert kinds["open"] == "boolean"
    assert preprocessing.columns[0].categories == ("01", "1", "A")
    assert preprocessing.class_labels == ("01", "True", "x")
    assert Preprocessing.from_dict(preprocessing.to_dict()).to_dict() == preprocessing.to_dict()


@pytest.mark.parametrize(
    ("name", "values", "same"),
    [
        ("size", [1, 2, 3], ["1", "2", "3"]),
        ("size", [1.0, 2.0, 3.0], ["1", "2", "3"]),
        ("size", pd.array([1, 2, 3], dtype="Int64"), ["1", "2", "3"]),
        ("grade", [1, 2, 1], ["1", "2", "1"]),
        ("grade", [1.0, 2.0, 1.0], ["1", "2", "1"]),
        ("grade", pd.Categorical(["1", "3+", "2"]), ["1", "3+", "2"]),
        ("open", [True, False, True], ["true", "False", "true"]),
        ("open", [1, 0, 1], ["true", "False", "true"]),
        ("open", ["TRUE", "false", " true"], ["true", "False", "true"]),
        ("month", pd.Categorical(["09", "10", "12"]), ["09", "10", "12"]),
    ],
)
def test_other_types_of_the_same_values(fitted, name, values, same):
    preprocessing, _ = fitted
    frame = pd.DataFrame(TABLE).iloc[:3]
    one, other = frame.assign(**{name: values}), frame.assign(**{name: same})
    assert torch.equal(preprocessing.encode(one), preprocessing.encode(other))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("code", [1, 1, 1], "'code', row 1: 1 is not a category"),  # of "01" or of "1"
        ("code", ["001", "1", "A"], "'001' is not a category"),
        ("month", [9, 10, 11], "'month', row 1: 9 is not a category"),
        ("size", ["1", "02", "3"], "'02', which has leading zeros"),
        ("size", ["1", "2,5", "3"], "decimal comma"),
        ("size", ["1", "NA", "3"], "row 2: got 'NA'"),
        ("size", ["1", "", "3"], "missing value in row 2"),
        ("size", ["1", "9007199254740993", "3"], "more digits than float64"),
        ("size", [1, 2**53 + 1, 3], "9007199254740993"),
        ("state", ["None", " ", "NA"], "missing value in row 2"),
        ("state", ["None", "none", "NA"], "'none' is not a category"),
        ("open", ["true", "yes", "false"], "'yes'"),
    ],
)
def test_values_that_training_did_not_have(fitted, name, values, message):
    preprocessing, _ = fitted
    with pytest.raises(InvalidData, match=message):
        preprocessing.encode(pd.DataFrame(TABLE).iloc[:3].assign(**{name: values}))


LABELS = st.one_of(
    st.lists(st.integers(-(2**70), 2**70), min_size=2, max_size=6, unique=True),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6, unique=True),
    st.lists(
        st.sampled_from(["01", "1", "A", "1.0", "True", "NA", "2", "x "]),
        min_size=2,
        max_size=6,
        unique=True,
    ),
    st.just([False, True]),
)


@given(values=LABELS, data=st.data())
@settings(deadline=None)
def test_a_label_has_one_index_beside_any_others(values, data):
    labels = sorted_labels(values)
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=6))
    chosen = [values[row] for row in rows]
    together = label_indices(np.array([*chosen, None], dtype=object)[:-1], labels).tolist()
    alone = [
        label_indices(np.array([value, None], dtype=object)[:1], labels).item() for value in chosen
    ]
    assert together == alone
    assert [labels[index] for index in together] == chosen
    assert label_array(labels).tolist() == list(labels)
    if not isinstance(values[0], str):  # as text of a CSV
        texts = np.array(
            [str(value) if isinstance(value, bool | int) else repr(value) for value in chosen],
            dtype=object,
        )
        assert label_indices(texts, labels).tolist() == together


BIG = [2**64 - 1, 2**64 - 2]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_labels_above_64_bits_of_signed_integers(tmp_path, suffix):
    path, rows = tmp_path / f"x.{suffix}", np.arange(40)
    y = np.array(BIG, dtype=np.uint64)[rows % 2]
    if suffix == "npz":
        np.savez(path, x=rows / 7, y=y)
    elif suffix == "csv":
        pd.DataFrame({"a": rows / 7, "y": y}).to_csv(path, index=False)
    else:
        pd.DataFrame({"a": rows / 7, "y": y}).to_parquet(path)
    dataset = load_dataset(path)
    assert dataset.class_labels == (2**64 - 2, 2**64 - 1)
    assert load_points(path, dataset.preprocessing).y.tolist() == [1, 0] * 20
    assert dataset.preprocessing.decode_labels([1]).tolist() == [2**64 - 1]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        ([0.0, 1.0], (0.0, 1.0)),
        (["yes", "yes ", "no"], ("no", "yes")),
        (["None", "mild", "severe"], ("None", "mild", "severe")),
        (["01", "1", "A"], ("01", "1", "A")),
    ],
)
def test_labels(tmp_path, suffix, y, labels):
    path, rows = tmp_path / f"x.{suffix}", np.arange(60)
    y = [y[row % len(y)] for row in rows]
    if suffix == "npz":
        np.savez(path, x=rows / 7, y=np.array(y))
    elif suffix == "csv":
        pd.DataFrame({"a": rows / 7, "y": y}).to_csv(path, index=False)
    else:
        pd.DataFrame({"a": rows / 7, "y": y}).to_parquet(path)
    dataset = load_dataset(path)
    assert (dataset.task, dataset.class_labels) == ("classification", labels)
    assert sorted(set(load_points(path, dataset.preprocessing).y.tolist())) == list(
        range(len(labels))
    )


def test_old_preprocessing_reads_new_files(folder):
    """Earlier versions stored only the name, kind and categories of columns."""
    content = {
        "task": "classification",
        "kind": "table",
        "columns": [
            {"name": "a", "kind": "number", "categories": []},
            {"name": "g", "kind": "category", "categories": ["1", "2", "3+"]},
        ],
        "target": "y",
        "class_labels": [0, 1],
        "input_shape": [4],
        "feature_names": ["a", "g=1", "g=2", "g=3+"],
        "scaling": {"x_mean": [0.0] * 4, "x_scale": [1.0] * 4, "y_mean": 0.0, "y_scale": 1.0},
    }
    (folder / "old.csv").write_text("a,g,y\n1.5,2,1\n2,3+,0\n")
    preprocessing = Preprocessing.from_dict(content)
    points = load_points(folder / "old.csv", preprocessing)
    assert points.x.tolist() == [[1.5, 0, 1, 0], [2, 0, 0, 1]]
    assert points.y.tolist() == [1, 0]
    assert read_inputs(folder / "old.csv", preprocessing).shape == (2, 4)
