import json

import numpy as np
import pandas
import pytest

from bnn_symm.runs import load_run

pytestmark = pytest.mark.thorough

NUMBERS = [
    "mean",
    "sd",
    "epistemic_sd",
    "aleatoric_sd",
    "quantile_0.05",
    "quantile_0.5",
    "quantile_0.95",
]
TINY = ["inference.num_steps=20", "inference.num_draws=10", "architecture.widths=[]"]


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(1)
    frame = pandas.DataFrame(
        {"a": rng.normal(3, 10, 50), "b": rng.normal(size=50), "color": ["red", "blue"] * 25}
    )
    frame["price"] = 1000 + 50 * frame["a"] + rng.normal(size=50)
    frame.to_csv(tmp_path / "data.csv", index=False)
    return frame


@pytest.fixture
def run(cli, data):
    assert (
        cli(
            "fit",
            "--set",
            "data.name=data.csv",
            "data.target=price",
            *TINY,
            "--out",
            "run",
            "--quiet",
        )[0]
        == 0
    )
    return load_run("run")


def test_numbers_in_units_of_the_target(cli, run, data, tmp_path):
    inputs = data[["color", "b", "a"]].iloc[::-1].assign(note="ignored")
    inputs.to_csv(tmp_path / "in.csv", index=False)
    status, out, err = cli("predict", "run", "in.csv", "-o", "out.csv")
    assert (status, out, err) == (0, "50 predictions: out.csv\n", "")
    result = pandas.read_csv(tmp_path / "out.csv")
    assert list(result.columns) == NUMBERS
    # By hand: draws of weights and noise, applied to the standardized inputs.
    standardized = run.preprocessing.encode(data.iloc[::-1])
    drawn = next(iter(run.posterior.iter_draws()))
    own = np.stack(
        [np.asarray(run.model.outputs(flat, standardized))[:, 0] for flat in drawn]
    ).astype(np.float64)
    scaling = run.preprocessing.scaling
    own = own * scaling.y_scale + scaling.y_mean
    noise = np.asarray(drawn[:, -1].double().exp()) * scaling.y_scale
    np.testing.assert_allclose(result["mean"], own.mean(0), rtol=1e-5)
    np.testing.assert_allclose(result["epistemic_sd"], own.std(0), rtol=1e-3)
    np.testing.assert_allclose(result["aleatoric_sd"], np.sqrt(np.mean(noise**2)), rtol=1e-4)
    np.testing.assert_allclose(
        result["sd"] ** 2, result["epistemic_sd"] ** 2 + result["aleatoric_sd"] ** 2, rtol=1e-5
    )
    assert (result["quantile_0.05"] < result["quantile_0.5"]).all()
    assert 900 < result["mean"].mean() < 1400


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_other_formats(cli, run, data, tmp_path, suffix):
    data.to_parquet(tmp_path / "in.parquet")
    cli("predict", "run", "data.csv", "-o", "out.csv")
    status, out, _ = cli(
        "predict", "run", "in.parquet", "-o", f"out.{suffix}", "--quantiles", "0.1", "--json"
    )
    assert status == 0
    assert json.loads(out) == {"run": "run", "output": f"out.{suffix}", "points": 50}
    want = pandas.read_csv(tmp_path / "out.csv")
    if suffix == "npz":
        with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
            got = {name: file[name] for name in file.files}
    else:
        got = dict(pandas.read_parquet(tmp_path / "out.parquet"))
    assert list(got) == [*NUMBERS[:4], "quantile_0.1"]
    np.testing.assert_allclose(got["mean"], want["mean"], rtol=1e-9)


@pytest.mark.parametrize(
    ("labels", "dtype"), [(["no", "yes"], object), ([3, 7], np.int64), ([True, False], bool)]
)
def test_labels_as_they_were_written(cli, data, tmp_path, labels, dtype):
    kind = np.array(labels, dtype=object)[(data["a"] > 3).astype(int)]
    data.drop(columns="price").assign(kind=pandas.Series(kind).astype(dtype)).to_csv(
        tmp_path / "c.csv", index=False
    )
    cli("fit", "--set", "data.name=c.csv", "data.target=kind", *TINY, "--out", "run", "--quiet")
    assert cli("predict", "run", "c.csv", "-o", "out.csv")[0] == 0
    result = pandas.read_csv(tmp_path / "out.csv")
    names = [f"probability_{label}" for label in sorted(labels)]
    assert list(result.columns) == [
        "prediction",
        *names,
        "entropy",
        "expected_entropy",
        "mutual_information",
    ]
    assert set(result["prediction"]) <= set(labels)
    np.testing.assert_allclose(result[names].sum(axis=1), 1.0, rtol=1e-12)
    best = np.array(sorted(labels), dtype=object)[result[names].to_numpy().argmax(1)]
    assert (result["prediction"].to_numpy(dtype=object) == best).all()
    assert cli("predict", "run", "c.csv", "-o", "out.npz")[0] == 0
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert sorted(file.files) == sorted(result.columns)
        assert len(file["prediction"]) == 50
    status, _, err = cli("predict", "run", "c.csv", "-o", "q.csv", "--quantiles", "0.1")
    assert (status, "--quantiles is for numbers" in err) == (2, True)


def test_wrong_input(refused, run, data, tmp_path):
    data.drop(columns="b").to_csv(tmp_path / "no_b.csv", index=False)
    data.assign(a=[np.nan if i == 6 else 1.0 for i in range(50)]).to_csv(
        tmp_path / "nan.csv", index=False
    )
    data.assign(color="green").to_csv(tmp_path / "green.csv", index=False)
    data.iloc[:0].to_csv(tmp_path / "empty.csv", index=False)
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "there.csv").write_text("x")
    for name, message in {
        "no_b.csv": "columns are missing: b",
        "nan.csv": "column 'a': missing value in row 7",
        "green.csv": "'green' is not a category",
        "empty.csv": "has columns but no rows",
        "nothing.csv": "is empty",
        "absent.csv": "does not exist; did you mean",
    }.items():
        assert message in refused("predict", "run", name, "-o", "out.csv"), name
    for output, message in {
        "there.csv": "there.csv exists and is never overwritten; choose another -o",
        "out.txt": "expected a name that ends in .csv, .parquet, .npz",
        "absent/out.csv": "absent is not a directory",
    }.items():
        assert message in refused("predict", "run", "data.csv", "-o", output), output
    for levels in ("0", "1.5", "a", "", "0.5,nan"):
        assert "expected numbers between 0 and 1" in refused(
            "predict", "run", "data.csv", "-o", "out.csv", "--quantiles", levels
        )
    assert "no run at absent" in refused("predict", "absent", "data.csv", "-o", "out.csv")
    assert not (tmp_path / "out.csv").exists()
    assert (tmp_path / "there.csv").read_text() == "x"


def test_predictions_are_printed(cli, refused, run, data, tmp_path):
    data.to_csv(tmp_path / "in.csv", index=False)
    assert cli("predict", "run", "in.csv", "-o", "out.csv")[0] == 0
    status, out, err = cli("predict", "run", "in.csv", "-o", "-", "--quiet")
    assert (status, err) == (0, "")
    assert out == (tmp_path / "out.csv").read_text()
    assert "leave out --json" in refused("predict", "run", "in.csv", "-o", "-", "--json")
