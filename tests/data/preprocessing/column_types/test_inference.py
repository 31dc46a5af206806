"""Types of columns, missing values, rare categories, and declared types."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.data import Dataset, Preprocessing, load_dataset, read_inputs
from bnn_symm.errors import ConfigError, InvalidData

ROWS = 60
RANDOM = np.random.default_rng(0)


def frame(**columns):
    base = {"a": RANDOM.normal(size=ROWS), "y": RANDOM.normal(size=ROWS)}
    return pd.DataFrame({**columns, **base})


def gaps(values, every, gap=None):
    return [gap if row % every == 0 else value for row, value in enumerate(values)]


def from_csv(table, path, **keys):
    table.to_csv(path, index=False)
    return load_dataset(path, target="y", dtype=torch.float64, **keys)


@pytest.mark.parametrize("gap", ["", "NA", "?", "null"])
def test_missing_numbers_are_the_median_of_the_training_split(tmp_path, gap):
    values = RANDOM.normal(size=ROWS)
    table = frame(size=gaps([f"{value:.6f}" for value in values], 7, gap))
    data = from_csv(table, tmp_path / "x.csv")
    assert data.feature_names == ("size", "size (missing)", "a")
    column = data.preprocessing.columns[0]
    raw = data.preprocessing.features(table)
    missing = raw[:, 1] == 1
    assert missing.sum() == len(range(0, ROWS, 7))
    assert set(raw[missing, 0]) == set(column.fill)
    # The medians are those of the training split, which the scaling identifies.
    training = data.train.x[:, 0].numpy() * data.scaling.x_scale[0] + data.scaling.x_mean[0]
    is_missing = data.train.x[:, 1].numpy() > 0
    np.testing.assert_allclose(column.fill[0], np.median(training[~is_missing]))
    again = Preprocessing.from_dict(json.loads(json.dumps(data.preprocessing.to_dict())))
    assert torch.equal(again.encode(table), data.preprocessing.encode(table))


def test_every_kind_of_missing_value_beside_any_other_rows(tmp_path):
    table = frame(
        count=gaps(range(ROWS), 5),
        town=gaps(["Ulm", "Bonn", "Jena"] * 20, 7),
        seen=gaps([f"2024-01-{row % 28 + 1:02}" for row in range(ROWS)], 11),
        is_open=gaps([True, False] * 30, 13),
    )
    data = from_csv(table, tmp_path / "x.csv")
    assert [column.kind for column in data.preprocessing.columns] == [
        *("number", "category", "date", "boolean", "number")
    ]
    whole = read_inputs(tmp_path / "x.csv", data.preprocessing, torch.float64)
    assert whole.isfinite().all()
    typed = Dataset.from_frame(table, "y", dtype=torch.float64)
    assert typed.feature_names == data.feature_names
    torch.testing.assert_close(typed.preprocessing.encode(table, torch.float64), whole)
    for rows in ([0], [5, 7], [11, 0, 13, 1]):
        table.iloc[rows].to_csv(tmp_path / "part.csv", index=False)
        part = read_inputs(tmp_path / "part.csv", data.preprocessing, torch.float64)
        assert torch.equal(part, whole[rows])
        assert torch.equal(data.preprocessing.encode(table.iloc[rows], torch.float64), part)


def test_a_missing_value_that_training_did_not_have(tmp_path):
    data = from_csv(frame(), tmp_path / "x.csv")
    with pytest.raises(InvalidData, match="'a': missing value in row 2"):
        data.preprocessing.encode(pd.DataFrame({"a": [1.0, None]}))


def test_columns_of_no_use_are_left_out_with_a_note(tmp_path):
    codes = [f"P{row:03}" for row in range(ROWS)]
    table = frame(empty=[None] * ROWS, patient_id=codes, row_id=gaps(range(ROWS), 9))
    data = from_csv(table, tmp_path / "x.csv")
    assert data.feature_names == ("a",)
    assert [note.split("'")[1] for note in data.notes] == ["empty", "patient_id", "row_id"]
    declared = from_csv(table, tmp_path / "x.csv", types={"row_id": "number"})
    assert declared.feature_names == ("row_id", "row_id (missing)", "a")


def test_rare_categories_are_pooled_and_new_ones_are_with_them(tmp_path):
    table = pd.concat([frame(zip=[f"z{row % 6}" for row in range(ROWS)])] * 3, ignore_index=True)
    table.loc[:29, "zip"] = [f"rare {row}" for row in range(30)]
    data = from_csv(table, tmp_path / "x.csv")
    assert data.feature_names == (*(f"zip=z{each}" for each in range(6)), "zip (other)", "a")
    assert "30 of 36 categories" in data.notes[0]
    typed = Dataset.from_frame(table.assign(zip=table["zip"].astype("category")), "y")
    assert typed.notes[0] == data.notes[0]
    raw = data.preprocessing.features(pd.DataFrame({"zip": ["z1", "rare 3", "new"], "a": 0.0}))
    assert raw[:, 6].tolist() == [0, 1, 1]


def test_words_of_free_text_are_hashed_where_it_is_declared(tmp_path):
    table = frame(note=[f"blue sky number {row}" for row in range(ROWS)])
    with pytest.raises(
        InvalidData, match=r"60 distinct values.*declare it as text with data.types"
    ):
        from_csv(table, tmp_path / "x.csv")
    data = from_csv(table, tmp_path / "x.csv", types={"note": "text"})
    assert len(data.feature_names) == 33
    raw = data.preprocessing.features(
        pd.DataFrame({"note": ["sky Blue", "blue sky", ""], "a": 0.0})
    )
    assert (raw[0] == raw[1]).all()
    assert raw[0].sum() == pytest.approx(2 * np.log(2))
    assert raw[2].sum() == 0


def test_declared_types(tmp_path):
    table = frame(zip=[str(10_000 + row % 4) for row in range(ROWS)])
    assert from_csv(table, tmp_path / "x.csv").feature_names == ("zip", "a")
    data = from_csv(table, tmp_path / "x.csv", types={"zip": "category"})
    assert data.feature_names == (*(f"zip={10_000 + code}" for code in range(4)), "a")
    with pytest.raises(
        InvalidData, match=r"data\.types: .* has no column 'zap'; did you mean 'zip'"
    ):
        from_csv(table, tmp_path / "x.csv", types={"zap": "category"})
    with pytest.raises(ConfigError, match=r"declare it with data\.task instead"):
        from_csv(table, tmp_path / "x.csv", types={"y": "category"})
    table["zip"] = [*gaps(table["zip"].tolist(), 60)[:-1], "9007199254740993"]
    with pytest.raises(InvalidData, match=r"'zip', row 60: got '9007199254740993'.*\(1 such"):
        from_csv(table, tmp_path / "x.csv", types={"zip": "number"})
    table["zip"] = "12"
    with pytest.raises(InvalidData, match="expected true or false"):
        from_csv(table, tmp_path / "x.csv", types={"zip": "boolean"})
