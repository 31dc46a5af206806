"""Several target columns are read from tables, files and arrays, with units of their own."""

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import Dataset, Preprocessing, load_dataset, load_points
from bnn_symm.errors import ConfigError, InvalidData

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(size=30),
        "a": 100 + 10 * RANDOM.normal(size=30),
        "b": RANDOM.normal(size=30),
    }
)


@pytest.mark.parametrize("way", ["csv", "comma", "npz", "columns of npz", "frame", "arrays"])
def test_every_way_to_read_them(way, tmp_path) -> None:
    keys = {"target": ["a", "b"], "dtype": torch.float64}
    names, path = ("a", "b"), tmp_path / "table.csv"
    if way in ("csv", "comma"):
        FRAME.to_csv(path, index=False, **({"sep": ";", "decimal": ","} if way == "comma" else {}))
    elif way == "npz":
        path, names = tmp_path / "table.npz", ("y0", "y1")
        np.savez(path, x=FRAME[["size"]], y=FRAME[["a", "b"]])
        keys.pop("target")
    elif way == "columns of npz":
        path = tmp_path / "table.npz"
        np.savez(path, x=FRAME[["size"]], a=FRAME["a"], b=FRAME["b"])
    if way == "frame":
        data = Dataset.from_frame(FRAME, ["a", "b"], dtype=torch.float64)
    elif way == "arrays":
        data = Dataset.from_arrays(FRAME["size"], FRAME[["a", "b"]].to_numpy(), **keys)
    else:
        data = load_dataset(path, **keys)
        preprocessing = Preprocessing.from_dict(data.preprocessing.to_dict())
        points = load_points(path, preprocessing, dtype=torch.float64)
        own = [column.scale for column in data.scaling.y_columns]
        np.testing.assert_allclose(
            points.y[:, 0] * own[0], FRAME["a"] - data.scaling.columns[0].y_mean
        )
    assert (data.task, data.num_outputs) == ("regression", 2)
    assert tuple(column.name for column in data.scaling.y_columns) == names
    assert torch.allclose(data.train.y.mean(0), torch.zeros(2).double(), atol=1e-12)
    assert data.scaling.columns[0].y_mean == pytest.approx(100, abs=10)
    column = data.column(1)
    assert torch.equal(column.train.y, data.train.y[:, 1])
    assert column.preprocessing.target == names[1]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"target": ["a", "a"]}, ConfigError, "distinct columns"),
        ({"target": []}, ConfigError, "distinct columns"),
        ({"target": ["a", "c"]}, InvalidData, "no column 'c'"),
        ({"target": ["a", "b"], "task": "count"}, ConfigError, "one run for each column"),
        ({"target": ["a", "b"], "levels": [1, 2]}, ConfigError, "the task is classification"),
        ({"target": ["a", "b"], "drop": "b"}, ConfigError, "leaves out the target 'b'"),
        ({"target": ["a", "b"], "weight": "b"}, ConfigError, "data.weight and data.target"),
        ({"target": ["a", "b"], "types": {"b": "number"}}, ConfigError, "declares the target"),
    ],
)
def test_wrong_settings_are_errors(keys, error, message) -> None:
    with pytest.raises(error, match=message):
        Dataset.from_frame(FRAME, **keys)


def test_wrong_values_are_errors() -> None:
    for value, message in (
        (np.nan, "target 'b': missing value in row 3"),
        ("x", "target 'b', row 3.* fit classes in one run for each column"),
    ):
        frame = FRAME.astype(object)
        frame.loc[2, "b"] = value
        with pytest.raises(InvalidData, match=message):
            Dataset.from_frame(frame, ["a", "b"])
    with pytest.raises(InvalidData, match="target 'b' has the single value 1"):
        Dataset.from_frame(FRAME.assign(b=1.0), ["a", "b"])
    with pytest.raises(ConfigError, match="target names 3 columns"):
        Dataset.from_arrays(FRAME["size"], FRAME[["a", "b"]].to_numpy(), target=["a", "b", "c"])


def test_a_list_of_one_target_is_that_target() -> None:
    one, other = Dataset.from_frame(FRAME, ["b"]), Dataset.from_frame(FRAME, "b", drop="a")
    assert one.train.y.shape == other.train.y.shape
