"""Test notes, stored values and outputs of commands on user tables."""

import json

import numpy as np
import pandas
import pytest

TINY = ["inference.name=map", "inference.num_steps=5", "architecture.widths=[]"]


def fit(cli, name, *keys):
    return cli(
        "fit",
        "--quiet",
        "--set",
        f"data.name={name}",
        "data.target=y",
        *TINY,
        *keys,
        "--out",
        "run",
    )


@pytest.fixture
def labels(tmp_path):
    """Write a table whose labels a spreadsheet would evaluate as formulas."""
    texts = ["=1+1", "+x", "-5 a", "@a", "plain"]
    frame = pandas.DataFrame({"a": np.arange(60) / 7, "y": [texts[row % 5] for row in range(60)]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    return sorted(texts)


def test_formulas_are_escaped_on_request(cli, refused, labels):
    assert fit(cli, "x.csv")[0] == 0
    assert cli("predict", "--quiet", "run", "x.csv", "-o", "raw.csv")[0] == 0
    assert cli("predict", "--quiet", "run", "x.csv", "-o", "safe.csv", "--excel-safe")[0] == 0
    raw, safe = pandas.read_csv("raw.csv"), pandas.read_csv("safe.csv")
    assert set(raw["prediction"]) <= set(labels)
    inert = [text if text == "plain" else f"'{text}" for text in raw["prediction"]]
    assert safe["prediction"].tolist() == inert
    assert raw.drop(columns="prediction").equals(safe.drop(columns="prediction"))
    assert "--excel-safe is for .csv" in refused(
        "predict", "run", "x.csv", "-o", "safe.parquet", "--excel-safe"
    )
    assert "apostrophe" in cli("predict", "--help")[1]


def test_read_values_are_kept_and_surprises_are_noted(cli, tmp_path):
    frame = pandas.DataFrame(
        {"a": np.arange(60) / 7, "town": ["Ulm", "NA"] * 30, "y": [0.0, 1.0] * 30}
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    status, out, err = fit(cli, "x.csv")
    assert (status, out) == (0, "")
    assert [line.partition(": ")[2][:6] for line in err.splitlines()] == ["note: ", "note: "]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record["data_notes"]) == 2
    assert all(note in err for note in record["data_notes"])
    assert "classification of 'y'" in record["data_summary"]
    assert "town (2: NA, Ulm)" in record["data_summary"]


def test_one_line_summarizes_the_data(cli, labels):
    keys = ["data.name=x.csv", "data.target=y", *TINY]
    out = cli("fit", "--set", *keys, "--out", "run")[1]
    (line,) = [line for line in out.splitlines() if line.startswith("data: ")]
    assert "5 distinct labels" in line


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_labels_of_64_bits_and_more_come_back_in_every_format(cli, tmp_path, suffix):
    frame = pandas.DataFrame(
        {"a": np.arange(60) / 7, "y": np.array([2**64 - 1, 5], dtype=np.uint64)[np.arange(60) % 2]}
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert fit(cli, "x.csv")[0] == 0
    assert cli("predict", "--quiet", "run", "x.csv", "-o", f"out.{suffix}")[0] == 0
    if suffix == "npz":
        with np.load("out.npz") as file:
            got = file["prediction"]
    elif suffix == "csv":
        got = pandas.read_csv("out.csv", dtype=str)["prediction"]
    else:
        got = pandas.read_parquet("out.parquet")["prediction"]
    assert set(map(str, got)) <= {str(2**64 - 1), "5"}
