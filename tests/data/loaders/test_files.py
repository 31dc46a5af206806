import gzip
import shlex

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.advice import for_command_line
from bnn_symm.data import load_dataset, load_points, read_inputs, read_inputs_and_exposure
from bnn_symm.errors import ConfigError, DatasetNotFound, InvalidData
from bnn_symm.runs import load_config

RANDOM = np.random.default_rng(0)
ROWS = 40


def table(**columns):
    base = {
        "a": np.linspace(-3, 5, ROWS),
        "b": np.arange(ROWS) % 7,
        "target": ["no", "yes"] * (ROWS // 2),
    }
    return pd.DataFrame({**base, **columns})[
        [*(name for name in columns if name not in base), *base]
    ]


def write(frame, path):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.fixture(params=[".csv", ".parquet"])
def path(request, tmp_path):
    return tmp_path / f"data{request.param}"


def test_both_formats_give_the_same_data(tmp_path):
    frame = table(when_open=[True, False] * 20, town=["Ulm", "Jena", "Bonn", "Ulm"] * 10)
    first = load_dataset(write(frame, tmp_path / "one.csv"))
    second = load_dataset(str(write(frame, tmp_path / "two.parquet")))
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.test.y, second.test.y)
    assert first.provenance.sha256 == second.provenance.sha256
    assert first.feature_names == ("when_open", "town=Bonn", "town=Jena", "town=Ulm", "a", "b")
    assert first.preprocessing.target == "target"


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["x", "y"] * 20, "classification"),
        ([True, False] * 20, "classification"),
        ([0, 1, 2, 3] * 10, "classification"),
        ([1.0, 2.0] * 20, "regression"),
        (list(range(ROWS)), "regression"),
        ([number % 15 for number in range(ROWS)], "regression"),
    ],
)
def test_task_is_told_from_the_target(path, target, task):
    data = load_dataset(write(table(target=target), path))
    assert data.task == task
    assert data.num_outputs == (len(set(target)) if task == "classification" else 1)


def test_twenty_classes_need_many_rows(tmp_path):
    few = pd.DataFrame({"a": np.arange(390.0), "y": np.arange(390) % 13})
    many = pd.DataFrame({"a": np.arange(390.0), "y": np.arange(390) % 20})
    assert load_dataset(write(few, tmp_path / "few.csv")).task == "classification"
    assert load_dataset(write(many, tmp_path / "many.csv")).task == "regression"


def test_task_overrides(path):
    write(table(target=[0, 1, 2, 3] * 10), path)
    assert load_dataset(path, task="regression").num_outputs == 1
    counts = load_dataset(path, task="count")
    assert set(counts.train.y.tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert counts.train.y.dtype == torch.float32


def test_labels_keep_their_type(path):
    assert load_dataset(write(table(target=[3, 7] * 20), path)).class_labels == (3, 7)
    assert load_dataset(write(table(target=[True, False] * 20), path)).class_labels == (False, True)


def test_parquet_categories_and_nullable_types(tmp_path):
    frame = table(
        town=pd.Categorical(["Ulm", "Jena"] * 20), count=pd.array([1, 2] * 20, dtype="Int64")
    ).set_index("b")
    data = load_dataset(write(frame, tmp_path / "x.parquet"))
    assert data.feature_names == ("town=Jena", "town=Ulm", "count", "a")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    table().to_csv(tmp_path / "a.csv", index=False, sep=separator)
    table().to_csv(tmp_path / "b.csv", index=False)
    first, second = load_dataset(tmp_path / "a.csv"), load_dataset(tmp_path / "b.csv")
    assert torch.equal(first.train.x, second.train.x)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table(target=["yes"] * ROWS), "has the single value 'yes' in all 40 rows"),
        (table(target=[0.5] * ROWS), "has the single value .*0.5"),
        (table(a=[1.0] * 6 + [np.inf] + [1.0] * 33), "'a', row 7: got inf"),
        (
            table(target=["no", "yes", None, "no"] * 10),
            "'target': missing value in row 3 \\(10 missing",
        ),
        (table(target=[0.5, np.nan] * 20), "'target': missing value in row 2"),
        (
            table(name=[f"p{row}" for row in range(ROWS)]),
            "'name' is text with 40 distinct values.*drop it",
        ),
        (
            table(target=[f"p{row}" for row in range(ROWS)]),
            "40 distinct values in 40 rows.*too many for classes",
        ),
        (table()[["target"]], "only the target column"),
        (table().iloc[:0], "columns but no rows"),
        (table().iloc[:3].assign(target=[1.5, 2.5, 3.5]), "3 rows|rows are too few"),
    ],
)
def test_tables_that_cannot_be_used(path, frame, message):
    with pytest.raises(InvalidData, match=message) as caught:
        load_dataset(write(frame, path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [([-1, 2] * 20, "row 1: got -1, expected counts"), ([1.0, 2.5] * 20, "row 2: got 2.5")],
)
def test_counts_are_checked(path, target, message):
    with pytest.raises(InvalidData, match=message):
        load_dataset(write(table(target=target), path), task="count")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b,y\n", "columns but no rows"),
        ("a,a,y\n1,2,3\n", "duplicate columns: a;"),
        ("1,2,3\n4,5,6\n", "starts with numbers \\(1, 2, 3\\)"),
        ("a,y\n1,2\n1,2,3\n", "cannot be read"),
        ("a,y\n1,2,3\n1,2,3\n", "cannot be read"),
        ('a,y\n"1,2\n', "cannot be read"),
    ],
)
def test_damaged_csv(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InvalidData, match=message) as caught:
        load_dataset(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(gzip.compress(b"a,y\n1,2\n"))
    with pytest.raises(InvalidData, match="is not UTF-8 text"):
        load_dataset(tmp_path / "x.csv")


def test_damaged_parquet(tmp_path):
    path = write(table(), tmp_path / "x.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidData, match="cannot be read"):
        load_dataset(path)


def test_target(path):
    write(table().rename(columns={"target": "kind"}), path)
    with pytest.raises(ConfigError, match=r"use target=COLUMN with one of: a, b, kind"):
        load_dataset(path)
    with pytest.raises(InvalidData, match="no column 'kinf'; did you mean 'kind'"):
        load_dataset(path, target="kinf")
    assert load_dataset(path, target="kind").class_labels == ("no", "yes")
    assert load_dataset(path, target="a").task == "regression"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table(a=[1.0] * 4 + [np.nan] * 36), "'a': missing value in row 5 \\(36 missing"),
        (table(c=[str(row) for row in range(39)] + ["?"]), "'c' contains numbers, but row 40 has"),
    ],
)
def test_missing_values_may_be_errors(path, frame, message):
    with pytest.raises(InvalidData, match=message):
        load_dataset(write(frame, path), missing="error")


def test_columns_are_left_out(path):
    names = [f"p{row}" for row in range(ROWS)]
    write(table(patient=names, seen=names), path)
    with pytest.raises(InvalidData, match=r"; drop=\['patient'\] leaves the column out"):
        load_dataset(path)
    with pytest.raises(InvalidData, match=r"; drop=\['patient', 'seen'\] leaves the column"):
        load_dataset(path, drop="patient")
    assert load_dataset(path, features=["b", "a"]).feature_names == ("a", "b")
    data = load_dataset(path, drop=["seen", " patient"])
    assert data.feature_names == ("a", "b")
    assert torch.equal(read_inputs(path, data.preprocessing), data.preprocessing.encode(table()))
    for drop, message in (
        ("patients", "no column 'patients'; did you mean 'patient'"),
        ("b", r"drop=\['b', 'patient'\]"),
        (["patient", "seen", "a", "b"], "only the target column"),
    ):
        with pytest.raises(InvalidData, match=message):
            load_dataset(path, drop=drop)
    with pytest.raises(ConfigError, match="leaves out the target 'target'"):
        load_dataset(path, drop="target", target="target")
    with pytest.raises(ConfigError, match="'iris' is a named data set"):
        load_dataset("iris", drop="petal width (cm)")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("who", "--set data.drop=who leaves"),
        ("Visit of", "--set 'data.drop=Visit of' leaves"),
        ("a, b: c", "--set 'data.drop='\"'\"'a, b: c'\"'\"'' leaves"),
    ],
)
def test_the_command_line_names_the_setting_that_leaves_a_column_out(tmp_path, name, words):
    file = write(table(**{name: [f"p{row}" for row in range(ROWS)]}), tmp_path / "x.csv")
    with for_command_line(), pytest.raises(InvalidData) as caught:
        load_dataset(file)
    assert words in str(caught.value)
    [override] = shlex.split(str(caught.value).partition("--set ")[2].partition(" leaves")[0])
    config = load_config(None, [override, f"data.name={file}"])
    assert load_dataset(config.data).feature_names == ("a", "b")


def test_paths(tmp_path):
    write(table(), tmp_path / "train.csv")
    with pytest.raises(DatasetNotFound, match=r"does not exist; did you mean 'train.csv'"):
        load_dataset(tmp_path / "trian.csv")
    (tmp_path / "x.ods").touch()
    with pytest.raises(ConfigError, match=r"expected one that ends in .csv, .parquet, .npz"):
        load_dataset(tmp_path / "x.ods")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DatasetNotFound, match="is a folder"):
        load_dataset(tmp_path / "folder.csv")


def test_npz_of_images_and_of_features(tmp_path):
    labels = np.arange(50) % 2
    images = RANDOM.normal(size=(50, 6, 5))
    np.savez(tmp_path / "images.npz", x=images, y=labels)
    data = load_dataset(tmp_path / "images.npz", layout="image")
    assert (data.input_shape, data.task, data.class_labels) == ((1, 6, 5), "classification", (0, 1))
    assert data.feature_names[-1] == "pixel_5_4"
    np.savez(tmp_path / "flat.npz", x=images[:, 0], z=RANDOM.normal(size=(50, 1)))
    flat = load_dataset(tmp_path / "flat.npz", target="z")
    assert (flat.input_shape, flat.task, flat.feature_names) == (
        (5,),
        "regression",
        ("x0", "x1", "x2", "x3", "x4"),
    )
    assert load_points(tmp_path / "images.npz", data.preprocessing).y.tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(3)}, "has no array 'x', it has: y"),
        ({"x": np.zeros((3, 2))}, "has no array 'y', it has: x"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "y of shape \\(4,\\), expected \\(3,\\)"),
        ({"x": np.array([{}, []], dtype=object), "y": np.zeros(2)}, "Python objects"),
        ({"x": np.array(["a", "b"]), "y": np.zeros(2)}, "x of type <U1"),
        (
            {"x": np.zeros((3, 8, 8, 3)), "y": np.zeros(3)},
            "channels last.*transpose\\(0, 3, 1, 2\\)",
        ),
        ({"x": np.zeros((3, 1, 1, 1, 1)), "y": np.zeros(3)}, "reshape x"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "is empty"),
        ({"x": np.array([[1.0], [np.nan]]), "y": np.arange(2.0)}, "'x0', row 2: got nan"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InvalidData, match=message):
        load_dataset(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-30], lambda content: b"", lambda content: b"\x80\x04."]
)
def test_damaged_npz(tmp_path, damage):
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2)), y=np.zeros(3))
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(damage(content))
    with pytest.raises(InvalidData, match="cannot be read"):
        load_dataset(tmp_path / "x.npz")


def test_points_and_inputs_of_a_file(path):
    fitted = load_dataset(write(table(), path))
    other = path.with_name(f"other{path.suffix}")
    write(table().iloc[5:9], other)
    part = load_points(other, fitted.preprocessing)
    assert part.y.tolist() == [1, 0, 1, 0]
    assert torch.equal(part.x, fitted.preprocessing.encode(table().iloc[5:9]))
    write(table(note=["n"] * ROWS).iloc[5:9].drop(columns="target"), other)
    x, exposure = read_inputs_and_exposure(other, fitted.preprocessing)
    assert torch.equal(x, part.x)
    assert exposure is None
    assert torch.equal(read_inputs(other, fitted.preprocessing), x)
    with pytest.raises(InvalidData, match="has no target 'target'"):
        load_points(other, fitted.preprocessing)
    write(table(target=["no", "perhaps"] * 20), other)
    with pytest.raises(InvalidData, match="unknown classes: 'perhaps' \\(first in row 2\\)"):
        load_points(other, fitted.preprocessing)


def test_a_table_of_digits(tmp_path):
    digits = load_dataset("digits")
    raw = RANDOM.integers(0, 17, (4, 64))
    frame = pd.DataFrame(raw, columns=list(digits.feature_names)).assign(digit=[3, 1, 4, 1])
    part = load_points(write(frame, tmp_path / "mine.csv"), digits.preprocessing)
    assert part.x.shape == (4, 1, 8, 8)
    assert part.y.tolist() == [3, 1, 4, 1]
