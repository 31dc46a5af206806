"""The quality of predictions beside those of baselines."""

import numpy as np
import pytest

from bnn_symm.analyses.predictions.quality import describe_qualities
from bnn_symm.diagnostics.measures import measure_of
from bnn_symm.diagnostics.scores.standing import Standing
from bnn_symm.runs import fit_run, load_config, load_run

pytestmark = pytest.mark.thorough

FLAT = ["architecture.widths=[]", "inference.name=map"]


def fitted(tmp_path, *keys):
    return fit_run(load_config(None, [*FLAT, *keys]), tmp_path / "run")


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_scores_of_the_run_stand_beside_those_of_baselines(tmp_path, name):
    run = fitted(tmp_path, f"data.name={name}", "inference.num_steps=20")
    quality = describe_qualities(run, num_resamples=100)[0]
    is_classes = name == "iris"
    point = "accuracy" if is_classes else "rmse"
    assert quality.part == "test"
    assert len(quality.baselines) == 2
    assert [own.measure for own in quality.comparisons] == ["nll", point] * 2
    assert (quality.pit is None, quality.observed is None) == (is_classes, is_classes)
    assert (quality.confusion is None) == (not is_classes)
    for key in ("nll", point):
        assert quality.scores[key].value == pytest.approx(run.metrics["test"][key], rel=1e-5)
    for own in quality.comparisons:
        theirs = quality.baselines[own.baseline][own.measure].value
        gain = theirs - quality.scores[own.measure].value
        gain = -gain if measure_of(own.measure).better == "higher" else gain
        assert own.gain.value == pytest.approx(gain)
        if own.measure == "nll":
            stored = run.metrics["baselines"][own.baseline]
            assert own.verdict.kind.name.lower() == stored["standing"]
            assert own.gain.value == pytest.approx(-stored["difference"], rel=1e-4)
            continue
        better = {Standing.BETTER: own.gain.low > 0, Standing.WORSE: own.gain.high < 0}
        assert better.get(own.verdict.kind, own.gain.low <= 0 <= own.gain.high)


def test_a_fit_without_steps_is_worse_than_the_mean(tmp_path):
    keys = ["data.name=diabetes", "likelihood.name=gaussian", "likelihood.noise=0.01"]
    run = fitted(tmp_path, *keys, "inference.num_steps=1")
    quality = describe_qualities(run, num_resamples=100)[0]
    assert quality.verdict.kind is Standing.WORSE
    assert quality.verdict == quality.comparisons[0].verdict
    assert {own["standing"] for own in run.metrics["baselines"].values()} == {"worse"}
    assert len(run.metrics["notes"]) == 2
    assert load_run(run.path).metrics["notes"] == run.metrics["notes"]


def test_every_point_is_in_the_confusion_matrix(tmp_path):
    run = fitted(tmp_path, "data.name=iris", "inference.num_steps=200")
    quality = describe_qualities(run, num_resamples=20)[0]
    right = np.trace(quality.confusion) / quality.confusion.sum()
    assert quality.confusion.sum() == quality.scores.points
    assert right == pytest.approx(quality.scores["accuracy"].value)
    assert len(quality.labels) == len(quality.confusion) == 3


def test_without_a_test_split_the_note_says_which_split_it_is(tmp_path):
    keys = ["data.name=iris", "data.test_fraction=0", "data.validation_fraction=0"]
    run = fitted(tmp_path, *keys, "inference.num_steps=5")
    quality = describe_qualities(run, num_resamples=20)[0]
    assert quality.part == "train"
    assert (run.metrics["baselines"], run.metrics["notes"]) == ({}, [])
    assert "no test points" in quality.notes[0]


def test_observed_points_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr("bnn_symm.analyses.predictions.quality._MOST_POINTS", 20)
    run = fitted(tmp_path, "data.name=diabetes", "inference.num_steps=5")
    observed = describe_qualities(run, num_resamples=20)[0].observed
    assert (len(observed.target), observed.num_points) == (20, 88)
    assert (observed.low <= observed.high).all()
