import json

import numpy as np
import pandas
import pytest
import torch

from bnn_symm.experiments import load_run

TINY = ["architecture.widths=[]", "inference.num_steps=5", "inference.num_draws=5"]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"size": rng.normal(size=60), "colour": rng.choice(["red", "green"], 60)})
    frame["kind"] = np.where(frame["size"] + (frame["colour"] == "red") > 0.5, "big", "small")
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return frame


@pytest.fixture
def mine(cli, table):
    assert cli("fit", "--set", "data.name=mine.csv", "data.target=kind", *TINY, "--out", "run", "--quiet")[0] == 0
    return load_run("run")


def test_own_test_part_is_that_of_the_metrics(cli, mine):
    status, out, err = cli("evaluate", "run", "--json")
    assert (status, err) == (0, "")
    content = json.loads(out)
    with open("run/evaluations/test.json") as file:
        assert json.load(file) == content
    assert {"run": "run", "data": None, "shift": None, "status": "complete", **mine.metrics["test"]} == content


def test_table(cli, mine):
    _, out, _ = cli("evaluate", "run")
    assert out.splitlines()[-1] == "written: run/evaluations/test.json"
    assert out.split()[:3] == ["part", "points", "nll"]


def test_files_with_the_name_of_another(cli, mine, table, tmp_path):
    (tmp_path / "sub").mkdir()
    cli("evaluate", "run")
    table.iloc[:20].to_csv(tmp_path / "test.csv", index=False)
    table.iloc[:30].to_csv(tmp_path / "sub" / "test.csv", index=False)
    for name in ("test.csv", "sub/test.csv", "test.csv"):
        assert cli("evaluate", "run", "--data", name)[0] == 0
    points = {path.name: json.loads(path.read_text())["points"] for path in (tmp_path / "run/evaluations").iterdir()}
    assert points == {"test.json": 12, "test-2.json": 20, "test-3.json": 30}


def test_wrong_data(cli, refused, mine, table, tmp_path):
    table.drop(columns="kind").to_csv(tmp_path / "no_target.csv", index=False)
    table.assign(kind="huge").to_csv(tmp_path / "unknown.csv", index=False)
    table.drop(columns="size").to_csv(tmp_path / "no_size.csv", index=False)
    table.assign(colour="blue").to_csv(tmp_path / "blue.csv", index=False)
    assert "has no target 'kind'" in refused("evaluate", "run", "--data", "no_target.csv")
    assert "'huge'" in refused("evaluate", "run", "--data", "unknown.csv")
    assert "columns are missing: size" in refused("evaluate", "run", "--data", "no_size.csv")
    assert "'blue' is not one of the categories" in refused("evaluate", "run", "--data", "blue.csv")
    assert "there is no data set 'irs'; did you mean 'iris'?" in refused("evaluate", "run", "--data", "irs")
    assert "does not exist" in refused("evaluate", "run", "--data", "absent.csv")
    assert "no run at absent" in refused("evaluate", "absent")
    assert "is for images" in refused("evaluate", "run", "--shift", "rotation:30")
    assert "there is no shift 'rotatin'" in refused("evaluate", "run", "--shift", "rotatin:30")
    assert "wanted NAME:SEVERITY" in refused("evaluate", "run", "--shift", "rotation")
    assert not (tmp_path / "run" / "evaluations").exists()


def test_data_that_changed_since_the_fit(refused, mine, table, tmp_path):
    table.assign(size=-table["size"]).to_csv(tmp_path / "mine.csv", index=False)
    assert "changed since the fit" in refused("evaluate", "run")
    (tmp_path / "mine.csv").unlink()
    assert "does not exist" in refused("evaluate", "run")


def test_no_test_part(cli, refused):
    cli("fit", "--set", "data.name=iris", "data.test_fraction=0", *TINY, "--out", "run")
    assert "test has no points to evaluate on; name others with --data" in refused("evaluate", "run")


def test_evaluations_that_cannot_be_written(cli, refused, mine, tmp_path):
    (tmp_path / "run" / "evaluations").write_text("in the way")
    assert "could not be written" in refused("evaluate", "run")


def test_shifted_images(cli, tmp_path):
    keys = ["data.name=digits", "data.limit=100", "architecture.widths=[]", "inference.name=map"]
    cli("fit", "--set", *keys, "inference.num_steps=30", "--out", "run")
    status, out, _ = cli("evaluate", "run", "--shift", "rotation:90", "--json")
    assert status == 0
    content = json.loads(out)
    assert content["shift"] == "rotation:90"
    assert content == json.loads((tmp_path / "run/evaluations/test-rotation-90.json").read_text())
    run = load_run("run")
    assert content["accuracy"] < run.metrics["test"]["accuracy"] - 0.1
    # A rotation by 90 degrees is exact, so it can be done by hand on the raw images.
    test = run.dataset().test
    offset = torch.from_numpy(run.preprocessing.scaling.x_mean / run.preprocessing.scaling.x_scale).to(test.x)
    turned = torch.rot90(test.x + offset, 1, (2, 3)) - offset
    outputs = run.posterior.predict(turned).probabilities().argmax(-1)
    other = torch.rot90(test.x + offset, -1, (2, 3)) - offset
    outputs_other = run.posterior.predict(other).probabilities().argmax(-1)
    accuracies = [float((o == test.y).double().mean()) for o in (outputs, outputs_other)]
    assert min(abs(content["accuracy"] - accuracy) for accuracy in accuracies) < 0.01
