"""The calibration part of `diagnose`: plain data, text and a figure."""

import json

import pytest

from bnn_symm.analyses.predictions.calibration import describe_calibration
from bnn_symm.data import DataConfig
from bnn_symm.io.atomic import json_text
from bnn_symm.report.text.calibration import calibration_text, draw_calibration
from bnn_symm.runs import Config, fit_run, load_run

pytestmark = pytest.mark.thorough


def fitted(tmp_path, monkeypatch, **data):
    from bnn_symm.architectures import MLPConfig
    from bnn_symm.inference import MeanFieldVI

    monkeypatch.chdir(tmp_path)
    method = MeanFieldVI(num_steps=30, num_draws=30)
    fit_run(
        Config(data=DataConfig(**data), architecture=MLPConfig(widths=()), inference=method), "run"
    )
    return load_run("run")


@pytest.mark.parametrize(
    ("name", "kind", "error"), [("iris", "classes", "ece"), ("diabetes", "numbers", "qce")]
)
def test_of_a_run(tmp_path, monkeypatch, name, kind, error):
    run = fitted(tmp_path, monkeypatch, name=name)
    content = describe_calibration(run, num_resamples=100)
    assert json.loads(json_text(content))["conclusion"] == content["conclusion"]
    assert content["conclusion"].startswith("test split: ")
    assert (content["part"], content["kind"], content["reliability"]["kind"]) == (
        "test",
        kind,
        kind,
    )
    test, values = content["test"], content["scores"]["values"]
    assert test["error"] == error
    assert test["value"] == pytest.approx(values[error]["value"], abs=1e-9)
    assert content["calibrated"] == test["calibrated"]
    for score in ("nll", "accuracy" if kind == "classes" else "rmse"):
        assert values[score]["value"] == pytest.approx(run.metrics["test"][score], rel=1e-5)
    assert content["loo"]["num_points"] == len(run.dataset().train)
    assert content == describe_calibration(run, num_resamples=100)
    text = calibration_text(content)
    assert text.startswith("calibration: test split: ")
    assert "PSIS-LOO: elpd" in text
    (picture,) = draw_calibration(content, tmp_path, title="reliability")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_test_points_the_part_is_named(tmp_path, monkeypatch):
    run = fitted(tmp_path, monkeypatch, name="iris", test_fraction=0.0, validation_fraction=0.0)
    content = describe_calibration(run, num_resamples=20)
    assert content["part"] == "train"
    assert "to which it was fitted" in content["notes"][0]
    assert "note: there are no test points" in calibration_text(content)


def test_of_a_run_without_a_posterior(tmp_path):
    nothing = {"conclusion": "runs/a has no posterior", "reason": "runs/a has no posterior"}
    assert calibration_text(nothing) == "calibration: runs/a has no posterior"
    assert draw_calibration(nothing, tmp_path, title="") == []
