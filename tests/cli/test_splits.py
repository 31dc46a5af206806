"""Runs of every rule of splits are fitted, evaluated, resumed and predicted as others are."""

import json

import numpy as np
import pandas as pd
import pytest

from bnn_symm.runs import load_run

pytestmark = pytest.mark.thorough

TINY = ["data.name=t.csv", "data.target=y", "architecture.widths=[2]", "inference.name=map"]
TINY += ["inference.num_steps=2", "save.max_megabytes=1"]


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(60, 3)).round(4), columns=["a", "b", "y"])
    frame = frame.assign(who=np.arange(60) % 12, year=2000 + np.arange(60) // 3)
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.assign(y=frame["y"] + 1)[:9].to_csv(tmp_path / "test.csv", index=False)
    return frame


@pytest.mark.parametrize(
    ("keys", "rule", "num_test"),
    [
        (["data.group=who"], "by groups of 'who' (", 10),
        (["data.time=year", "data.drop=year"], "by time of 'year' (training 2000 to 2013", 12),
        (["data.fold=1", "data.num_folds=3"], "fold 1 of 3 (0 to 2), random", 20),
        (["data.test_file=test.csv"], "test: the rows of ", 9),
    ],
    ids=["group", "time", "fold", "test_file"],
)
def test_a_run_keeps_its_split(cli, table, tmp_path, keys, rule, num_test):
    status, out, err = cli("fit", "--dry-run", "--json", "--set", *TINY, *keys)
    assert status == 0, err
    estimate = json.loads(out)
    assert rule in estimate["split"]
    assert estimate["test"] == num_test
    assert estimate["split"] in cli("fit", "--dry-run", "--set", *TINY, *keys)[1]
    status, _, err = cli("fit", "--quiet", "--set", *TINY, *keys, "--out", "run")
    assert status == 0, err
    record = json.loads((tmp_path / "run/run.json").read_text())["dataset"]
    assert (record["split_rule"], record["test"]) == (estimate["split"], num_test)
    run = load_run("run")
    assert run.dataset().provenance.split_sha256 == record["split_sha256"]
    assert json.loads(cli("evaluate", "run", "--json")[1])["rmse"] == pytest.approx(
        run.metrics["test"]["rmse"]
    )
    assert cli("predict", "run", "t.csv", "-o", "predictions.csv")[0] == 0
    assert cli("report", "run")[0] == 0


def test_a_test_file_that_changed_since_the_fit(cli, refused, table, tmp_path):
    cli("fit", "--quiet", "--set", *TINY, "data.test_file=test.csv", "--out", "run")
    assert load_run("run").config.data.test_file == str(tmp_path / "test.csv")
    table[:9].to_csv(tmp_path / "test.csv", index=False)
    assert "test.csv changed since the fit" in refused("evaluate", "run")


def test_a_fold_for_all_is_for_studies(refused, table):
    line = refused("fit", "--set", *TINY, "data.fold=all")
    assert "data.fold: got 'all'" in line
    assert "study.vary={data.fold: all}" in line


def test_points_of_a_file_that_the_run_was_fitted_to(cli, table, tmp_path):
    cli("fit", "--quiet", "--set", *TINY, "--out", "run")
    status, out, err = cli("evaluate", "run", "--data", "t.csv", "--json")
    assert status == 0
    num_train = json.loads((tmp_path / "run/run.json").read_text())["dataset"]["train"]
    assert json.loads(out)["shared_with_training"] == num_train
    assert f"{num_train} of 60 points of t are training points" in err
    status, out, err = cli("evaluate", "run", "--data", "test.csv", "--json")
    assert (status, json.loads(out)["shared_with_training"]) == (0, 0)
    assert "are training points" not in err
    assert "shared_with_training" not in json.loads(cli("evaluate", "run", "--json")[1])
    table[:5].to_csv(tmp_path / "t.csv", index=False)  # no longer the data of the fit
    status, out, _ = cli("evaluate", "run", "--data", "test.csv", "--json")
    assert (status, json.loads(out)["shared_with_training"]) == (0, None)
