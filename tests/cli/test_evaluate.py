import json

import numpy as np
import pandas
import pytest
import torch

from bnn_symm.analyses.predictions.calibration import describe_calibration
from bnn_symm.analyses.predictions.stored_regions import stored_regions
from bnn_symm.errors import InvalidRun
from bnn_symm.formatting import mean
from bnn_symm.report.text.calibration import calibration_text
from bnn_symm.runs import load_config, load_run
from bnn_symm.runs.conformal import OTHER_POINTS, conformal_notes

pytestmark = pytest.mark.thorough

TINY = ["architecture.widths=[]", "inference.num_steps=5", "inference.num_draws=5"]


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"size": rng.normal(size=60), "color": rng.choice(["red", "green"], 60)}
    )
    frame["kind"] = np.where(frame["size"] + (frame["color"] == "red") > 0.5, "big", "small")
    frame.to_csv(tmp_path / "mine.csv", index=False)
    return frame


@pytest.fixture
def mine(cli, table):
    assert (
        cli(
            "fit",
            "--set",
            "data.name=mine.csv",
            "data.target=kind",
            *TINY,
            "--out",
            "run",
            "--quiet",
        )[0]
        == 0
    )
    return load_run("run")


def test_scores_of_the_test_part_equal_the_metrics(cli, mine):
    status, out, err = cli("evaluate", "run", "--json")
    assert (status, err) == (0, "")
    content = json.loads(out)
    with open("run/evaluations/test.json") as file:
        assert json.load(file) == content
    counts = np.array(content.pop("confusion")["counts"])
    assert np.trace(counts) / counts.sum() == pytest.approx(content["accuracy"])
    assert {
        "run": "run",
        "data": None,
        "shift": None,
        "status": "complete",
        **mine.metrics["test"],
        "notes": mine.metrics["notes"],
    } == content


def test_baselines_stand_in_the_same_table(cli, refused, mine):
    status, out, err = cli("evaluate", "run", "--baseline", "gradient_boosting")
    assert (status, err) == (0, "")
    names = ["test", "the base rates", "logistic regression", "gradient boosting"]
    assert [line.split("  ")[0] for line in out.splitlines()[2:6]] == names
    with open("run/evaluations/test.json") as file:
        content = json.load(file)
    found = content["baselines"]
    assert list(found) == names[1:]
    stored = mine.metrics["baselines"]
    for name in names[1:3]:
        assert found[name]["difference"] == pytest.approx(stored[name]["difference"], rel=1e-6)
        assert found[name]["standing"] == stored[name]["standing"]
    for own in found.values():
        assert own["scores"]["nll"] == pytest.approx(own["nll"])
        assert own["difference"] == pytest.approx(content["nll"] - own["nll"])
        assert set(own["scores"]) == set(mine.metrics["test"])
    beaten = [own["standing"] == "better" for own in found.values()]
    assert len(content["notes"]) == beaten.count(False)
    assert out.count("note: on the test data this model is ") == beaten.count(False)
    linear = json.loads(cli("evaluate", "run", "--baseline", "linear", "--json")[1])
    assert list(linear["baselines"]) == names[1:3]
    assert "--baseline applies to one set of points, got --ood wine" in refused(
        "evaluate", "run", "--ood", "wine", "--baseline", "linear"
    )


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
    points = {
        path.name: json.loads(path.read_text())["points"]
        for path in (tmp_path / "run/evaluations").iterdir()
    }
    assert points == {"test.json": 12, "test-2.json": 20, "test-3.json": 30}


def refused_usage(cli, *arguments):
    """Return the error of argparse for conflicting options."""
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    return err


def test_wrong_data(cli, refused, mine, table, tmp_path):
    table.drop(columns="kind").to_csv(tmp_path / "no_target.csv", index=False)
    table.assign(kind="huge").to_csv(tmp_path / "unknown.csv", index=False)
    table.drop(columns="size").to_csv(tmp_path / "no_size.csv", index=False)
    table.assign(color="blue").to_csv(tmp_path / "blue.csv", index=False)
    assert "has no target 'kind'" in refused("evaluate", "run", "--data", "no_target.csv")
    assert "'huge'" in refused("evaluate", "run", "--data", "unknown.csv")
    assert "columns are missing: size" in refused("evaluate", "run", "--data", "no_size.csv")
    assert "'blue' is not a category" in refused("evaluate", "run", "--data", "blue.csv")
    assert "got 'irs', which is no data set" in refused("evaluate", "run", "--data", "irs")
    assert "does not exist" in refused("evaluate", "run", "--data", "absent.csv")
    assert "no run at absent" in refused("evaluate", "absent")
    assert "is for images" in refused("evaluate", "run", "--shift", "rotation:30")
    assert "unknown shift 'rotatin'" in refused("evaluate", "run", "--shift", "rotatin:30")
    assert "expected NAME:SEVERITY" in refused("evaluate", "run", "--shift", "rotation:")
    assert "is for images" in refused("evaluate", "run", "--shift", "rotation")
    assert "unknown shift 'rotatin'; did you mean 'rotation'?" in refused(
        "evaluate", "run", "--shift", "rotatin"
    )
    assert "columns are missing: size" in refused("evaluate", "run", "--ood", "no_size.csv")
    assert "did you mean 'photo_patches'" in refused("evaluate", "run", "--ood", "photo_patch")
    assert "not allowed with" in refused_usage(
        cli, "evaluate", "run", "--ood", "wine", "--shift", "all"
    )
    assert not (tmp_path / "run" / "evaluations").exists()
    assert not (tmp_path / "run" / "figures").exists()


def test_data_that_changed_since_the_fit(refused, mine, table, tmp_path):
    table.assign(size=-table["size"]).to_csv(tmp_path / "mine.csv", index=False)
    assert "changed since the fit" in refused("evaluate", "run")
    (tmp_path / "mine.csv").unlink()
    assert "does not exist" in refused("evaluate", "run")


def test_no_test_part(cli, refused):
    cli("fit", "--set", "data.name=iris", "data.test_fraction=0", *TINY, "--out", "run")
    assert "test has no points to evaluate on; name other data with --data" in refused(
        "evaluate", "run"
    )


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
    offset = torch.from_numpy(
        run.preprocessing.scaling.x_mean / run.preprocessing.scaling.x_scale
    ).to(test.x)
    turned = torch.rot90(test.x + offset, 1, (2, 3)) - offset
    outputs = run.posterior.predict(turned).probabilities().argmax(-1)
    other = torch.rot90(test.x + offset, -1, (2, 3)) - offset
    outputs_other = run.posterior.predict(other).probabilities().argmax(-1)
    accuracies = [float((o == test.y).double().mean()) for o in (outputs, outputs_other)]
    assert min(abs(content["accuracy"] - accuracy) for accuracy in accuracies) < 0.01


def test_a_whole_shift(cli, mine, tmp_path):
    status, out, err = cli("evaluate", "run", "--shift", "gaussian_noise")
    assert (status, err) == (0, "")
    assert "severity  accuracy" in out
    content = json.loads((tmp_path / "run/evaluations/test-gaussian_noise.json").read_text())
    curve = content["curves"]["gaussian_noise"]
    assert (content["shift"], content["points"], curve["severities"]) == (
        "gaussian_noise",
        12,
        [0, 1, 2, 3, 4, 5],
    )
    picture = tmp_path / "run/figures/test-gaussian_noise.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert out.splitlines()[-2:] == [
        "figure: run/figures/test-gaussian_noise.png",
        "written: run/evaluations/test-gaussian_noise.json",
    ]
    # Without a shift, and at one severity, the scores are those of the other ways to ask.
    values = {name: [row["value"] for row in rows] for name, rows in curve["scores"].items()}
    noisy = json.loads(cli("evaluate", "run", "--shift", "gaussian_noise:2", "--json")[1])
    for name in ("nll", "accuracy", "brier", "ece"):
        assert values[name][0] == pytest.approx(mine.metrics["test"][name], abs=1e-6)
        assert values[name][2] == pytest.approx(noisy[name], abs=1e-6)


def test_every_shift_that_the_data_can_undergo(cli, mine, tmp_path):
    content = json.loads(cli("evaluate", "run", "--shift", "all", "--json")[1])
    assert list(content["curves"]) == ["gaussian_noise"]
    assert json.loads((tmp_path / "run/evaluations/test-shifts.json").read_text()) == content
    assert (tmp_path / "run/figures/test-shifts-gaussian_noise.png").exists()


def test_out_of_distribution_points(cli, mine, table, tmp_path):
    table.assign(size=1000.0).drop(columns="kind").to_csv(tmp_path / "odd.csv", index=False)
    status, out, err = cli("evaluate", "run", "--ood", "odd.csv")
    assert (status, err) == (0, "")
    assert out.startswith("odd (60 points) versus test (12 points): ")
    assert "mutual information" in out
    assert out.splitlines()[-1] == "written: run/evaluations/test-ood-odd.json"
    content = json.loads((tmp_path / "run/evaluations/test-ood-odd.json").read_text())
    assert (content["data"], content["ood"]) == (None, str((tmp_path / "odd.csv").resolve()))
    assert (content["inside_points"], content["outside_points"]) == (12, 60)
    assert list(content["by"]) == ["entropy", "confidence", "mutual_information"]
    assert json.loads(cli("evaluate", "run", "--ood", "odd.csv", "--json")[1]) == content
    # A linear model is ever surer the farther away: the certain points are the odd ones.
    assert content["by"]["entropy"]["auroc"]["value"] < 0.5


def test_the_points_of_the_run_are_not_separated(cli, mine, tmp_path):
    content = json.loads(
        cli("evaluate", "run", "--data", "mine.csv", "--ood", "mine.csv", "--json")[1]
    )
    assert all(own["auroc"]["value"] == pytest.approx(0.5) for own in content["by"].values())
    assert content["conclusion"].startswith("no kind of uncertainty separates the two")


def test_temperature_scaling(cli, refused, mine, tmp_path):
    status, out, err = cli("evaluate", "run", "--temperature-scaling")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[2:4]] == ["test", "test, scaled"]
    assert lines[4].startswith("log probabilities divided by ")
    assert lines[-1] == "written: run/evaluations/test-temperature-scaled.json"
    content = json.loads((tmp_path / "run/evaluations/test-temperature-scaled.json").read_text())
    scaling = content.pop("temperature_scaling")
    del content["confusion"]
    assert {
        "run": "run",
        "data": None,
        "shift": None,
        "status": "complete",
        **mine.metrics["test"],
        "notes": mine.metrics["notes"],
    } == content
    # It was fitted to the validation split alone, and its scores are those of the scaled mixture.
    data = mine.dataset()
    assert scaling["points"] == len(data.validation)
    assert (
        scaling["nll"]
        <= scaling["nll_before"]
        == pytest.approx(mine.metrics["validation"]["nll"], rel=1e-5)
    )
    power = mine.posterior.predict(data.test.x).probabilities().double() ** (
        1 / scaling["logit_temperature"]
    )
    probabilities = (power / power.sum(-1, keepdim=True))[torch.arange(len(data.test)), data.test.y]
    assert scaling["scores"]["nll"] == pytest.approx(-float(probabilities.log().mean()), rel=1e-5)
    noisy = json.loads(
        cli("evaluate", "run", "--shift", "gaussian_noise:2", "--temperature-scaling", "--json")[1]
    )
    assert noisy["temperature_scaling"]["logit_temperature"] == scaling["logit_temperature"]
    assert "got --ood wine; leave it out, or" in refused(
        "evaluate", "run", "--ood", "wine", "--temperature-scaling"
    )
    assert "got --shift all; leave" in refused(
        "evaluate", "run", "--shift", "all", "--temperature-scaling"
    )


def test_temperature_scaling_is_for_classes(cli, refused):
    cli("fit", "--set", "data.name=gap", *TINY, "--out", "run")
    assert "likelihood gaussian has none" in refused("evaluate", "run", "--temperature-scaling")
    cli("fit", "--set", "data.name=iris", "data.validation_fraction=0", *TINY, "--out", "iris")
    assert "the validation split, which has no points" in refused(
        "evaluate", "iris", "--temperature-scaling"
    )


def test_conformal_regions_beside_those_of_the_posterior(cli, refused, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    frame = pandas.DataFrame({"x": x, "y": x + rng.standard_t(3, size=300)})
    frame["kind"] = np.where(rng.random(300) < 0.3, "c", np.where(x > 0, "a", "b"))
    frame[["x", "y"]].to_csv(tmp_path / "numbers.csv", index=False)
    frame[["x", "kind"]].to_csv(tmp_path / "classes.csv", index=False)
    common = ["data.validation_fraction=0.3", "inference.name=map", "architecture.widths=[]"]
    common.append("inference.num_steps=50")
    noise = ["likelihood.name=gaussian", "likelihood.noise=0.1"]
    for name, target, keys in (("numbers", "y", noise), ("classes", "kind", [])):
        data = [f"data.name={name}.csv", f"data.target={target}"]
        cli("fit", "--quiet", "--set", *data, *common, *keys, "--out", name)
        run = load_run(name)
        status, out, _ = cli("evaluate", name, "--conformal", "0.9")
        assert status == 0
        assert f"calibrated on {len(run.dataset().validation)} validation points" in out
        content = json.loads((tmp_path / name / "evaluations/test.json").read_text())["conformal"]
        regions = run.conformal(0.9)
        assert content["threshold"] == regions.threshold
        assert content["conformal"]["coverage"]["value"] > 0.9 - 4 * 0.05
        assert content["conformal"]["size"]["value"] > 0
        if name == "numbers":
            assert content["bayesian"]["coverage"]["value"] < 0.5
        frame[["x"]].head(40).to_csv(tmp_path / "in.csv", index=False)
        output = f"{name}_out.csv"
        status, out, err = cli("predict", name, "in.csv", "-o", output, "--conformal", "0.9")
        assert (status, err) == (0, "")
        got = pandas.read_csv(tmp_path / output)
        same = run.predict(frame[["x"]].head(40), conformal=0.9)
        pandas.testing.assert_frame_equal(got, same, check_dtype=False)
    assert (got[["in_set_a", "in_set_b", "in_set_c"]].sum(axis=1) == got["set_size"]).all()
    inside = [row[f"in_set_{row['prediction']}"] for _, row in got.iterrows()]
    assert all(inside)
    numbers = pandas.read_csv(tmp_path / "numbers_out.csv")
    assert (numbers["conformal_low"] < numbers["quantile_0.05"]).all()
    assert "got 1.5, expected a number between 0 and 1" in refused(
        "evaluate", "numbers", "--conformal", "1.5"
    )
    assert "need at least 99 validation points" in refused(
        "predict", "numbers", "in.csv", "-o", "no.csv", "--conformal", "0.99"
    )
    assert "--conformal applies to one set of points" in refused(
        "evaluate", "numbers", "--shift", "all", "--conformal", "0.9"
    )


def test_stored_conformal_regions_are_on_the_page_and_in_the_diagnosis(cli, table, tmp_path):
    fit = ["fit", "--quiet", "--set", "data.name=mine.csv", "data.target=size", *TINY]
    cli(*fit, "data.validation_fraction=0.3", "--out", "run")
    run = load_run("run")
    assert stored_regions(run) == []
    cli("evaluate", "run", "--conformal", "0.9")
    cli("evaluate", "run", "--conformal", "0.8", "--data", "mine.csv")
    cli("report", "run", "-o", "page.html")
    page = (tmp_path / "page.html").read_text()
    page = page[page.index('id="is-it-calibrated"') : page.index('id="predicted-against')]
    text = calibration_text(describe_calibration(run, num_resamples=10))
    found = stored_regions(run)
    assert [own.evaluation for own in found] == ["mine", "test"]
    for own, level in zip(found, ("80 %", "90 %"), strict=True):
        path = tmp_path / "run" / "evaluations" / f"{own.evaluation}.json"
        assert own.regions == json.loads(path.read_text())["conformal"]
        for shown in (page, text):
            assert f"Bayesian, {level}" in shown
            assert f"conformal, {level}" in shown
            for kind in ("bayesian", "conformal"):
                assert mean(own.regions[kind]["coverage"]) in shown
                assert mean(own.regions[kind]["size"]) in shown
    assert found[0].notes == (OTHER_POINTS,)
    assert found[1].notes == ()
    path.write_text('{"conformal": {"level": 2}}')
    with pytest.raises(InvalidRun, match=r"test\.json is damaged"):
        stored_regions(run)


def test_what_weakens_the_guarantee_of_conformal_regions_is_noted():
    def notes(*keys: str) -> list[str]:
        return conformal_notes(load_config(None, ["data.name=iris", *keys]))

    assert notes() == []
    assert "inference.early_stopping" in notes("inference.early_stopping.patience=3")[0]
    assert "inference.gain_test" in notes("inference.name=hmc", "inference.gain_test={}")[0]
    assert "points of one site" in notes("data.group=site")[0]
    assert "later in day" in notes("data.time=day")[0]
    assert "within a gap of x" in notes("data.gap_feature=x")[0]
