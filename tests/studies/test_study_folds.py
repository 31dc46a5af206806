"""Folds are replicates of a study: results are means over folds of the means over seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from bnn_symm.errors import ConfigError
from bnn_symm.report.html.rendering import write_study_report
from bnn_symm.report.text.study import study_text
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import plan_study
from bnn_symm.studies.results.comparisons import compare_settings, summarize_settings
from bnn_symm.studies.results.summary import write_summary
from bnn_symm.studies.study import load_study
from bnn_symm.studies.task import run_task

UCI = Path(__file__).parents[2] / "configs/uci.yaml"
NUM_SPLITS, ROWS = 3, 40
METHODS = "[{name: map, num_steps: 2}, {name: map, num_steps: 30}]"


@pytest.fixture(scope="module")
def uci(tmp_path_factory):
    """Write a data set in the format of the UCI suite, and return the folder of all data."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "uci" / "toy"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, 2))
    np.savetxt(folder / "data.txt", np.c_[x, x[:, 0] + 0.3 * random.normal(size=ROWS)])
    np.savetxt(folder / "index_features.txt", [0, 1])
    np.savetxt(folder / "index_target.txt", [2])
    for split in range(NUM_SPLITS):
        rows = np.random.default_rng(split).permutation(ROWS)
        np.savetxt(folder / f"index_train_{split}.txt", rows[:-10])
        np.savetxt(folder / f"index_test_{split}.txt", rows[-10:])
    return root


@pytest.fixture(scope="module")
def finished(uci, tmp_path_factory):
    """Return the directory and the summary of the shipped study, on a tiny set and quick fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNN_SYMM_DATA", str(uci))
        keys = ["data.name=uci/toy", "architecture.widths=[2]"]
        keys += [f"study.vary={{data.fold: all, inference: {METHODS}}}"]
        study = load_study(UCI, keys)
        plan = plan_study(study)
        directory = StudyDirectory.create(tmp_path_factory.mktemp("study") / "out", study, plan)
        for fit in plan.fits:
            assert run_task(directory, fit.key) == 0
        return directory, write_summary(directory, study, plan), study


@pytest.mark.thorough
def test_a_uci_study_has_means_and_standard_errors_over_its_splits(finished):
    import pandas

    directory, content, _ = finished
    cells = pandas.read_parquet(directory.path / "cells.parquet")
    assert sorted(cells.fold) == [0, 0, 1, 1, 2, 2]
    assert len(content["settings"]) == 2
    for setting in content["settings"]:
        assert (setting["folds"], setting["seeds"]) == ([0, 1, 2], [0])
        rmse, own = setting["measures"]["test_rmse"], cells[cells.setting == setting["label"]]
        assert (rmse["kind"], rmse["n"]) == ("folds", NUM_SPLITS)
        assert rmse["mean"] == pytest.approx(own.test_rmse.mean())
        assert rmse["standard_error"] == pytest.approx(stats.sem(own.test_rmse))
        low, high = stats.t.interval(0.95, 2, own.test_rmse.mean(), stats.sem(own.test_rmse))
        assert (rmse["low"], rmse["high"]) == pytest.approx((low, high))
    # Times to a common target are not defined.
    assert {context["convergence"] for context in content["contexts"]} == {None}


def test_its_report_and_its_text_are_over_folds(finished):
    directory, content, _ = finished
    page = write_study_report(directory.path).read_text()
    assert "3 folds each" in page
    assert "means over folds" in page
    assert "over seeds" not in page.partition("Glossary")[0]
    text = study_text(json.loads(directory.summary.read_text()))
    assert "standard error over folds" in text
    assert "over seeds" not in text
    mean = content["settings"][0]["measures"]["test_rmse"]["mean"]
    assert f"{mean:.2f}"[:3] in text


def test_the_stored_study_expands_to_the_same_fits(finished, uci, monkeypatch):
    monkeypatch.setenv("BNN_SYMM_DATA", str(uci))
    directory, _, study = finished
    stored = directory.read_study()
    assert yaml.safe_load(stored.to_yaml())["study"]["vary"]["data.fold"] == "all"
    assert stored.configs() == study.configs()


FOLDS = ["data.name=iris", "architecture.widths=[6]", "data.num_folds=3", "study.seeds=2"]
KINDS = "architecture.symmetry.kind: [standard, weight_asymmetric]"


def test_folds_are_no_settings_and_pairs_share_their_fold():
    study = load_study(None, [*FOLDS, f"study.vary={{data.fold: all, {KINDS}}}"])
    settings = study.settings()
    assert [setting.label for setting in settings] == ["standard", "weight_asymmetric"]
    expected = [(fold, seed) for fold in range(3) for seed in range(2)]
    for setting in settings:
        assert [(one.data.fold, one.seed) for one in setting.configs] == expected
    plan = plan_study(study)
    assert [(fit.fold, fit.seed) for fit in plan.fits] == expected * 2
    assert len({fit.key for fit in plan.fits}) == 12
    fits = {fit.key: fit for fit in plan.fits}
    assert len(plan.pairs) == 6
    for pair in plan.pairs:
        assert fits[pair.first].fold == fits[pair.second].fold
        assert fits[pair.first].setting == fits[pair.second].setting


def test_repeated_random_splits_are_replicates():
    keys = ["data.name=iris", "architecture.widths=[6]", "study.seeds=2"]
    study = load_study(None, [*keys, f"study.vary={{data.split_seed: [3, 5], {KINDS}}}"])
    assert [setting.label for setting in study.settings()] == ["standard", "weight_asymmetric"]
    expected = [(split, seed) for split in (3, 5) for seed in range(2)]
    plan = plan_study(study)
    assert [(fit.config.data.split_seed, fit.seed) for fit in plan.fits] == expected * 2
    assert [(fit.fold, fit.seed) for fit in plan.fits] == expected * 2
    with pytest.raises(ConfigError, match=r"data\.split_seed: got .*expected all, or numbers"):
        load_study(None, [*keys, "study.vary={data.split_seed: [all, 1]}"]).settings()


def test_some_folds_and_repeated_folds():
    some = load_study(None, [*FOLDS, "study.vary={data.fold: [0, 2]}"])
    assert [one.data.fold for one in some.configs()] == [0, 0, 2, 2]
    repeated = load_study(None, [*FOLDS, "study.vary={data.fold: all, data.split_seed: [0, 1]}"])
    labels = [setting.label for setting in repeated.settings()]
    assert labels == ["split_seed=0, standard", "split_seed=1, standard"]
    assert all(len(setting.configs) == 6 for setting in repeated.settings())


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("{prior.scale: all}", "study.vary.prior.scale: got all, expected the list"),
        ("{data.fold: [0, all]}", "expected all, or numbers"),
        ("{data.fold: every}", "study.vary.data.fold"),
        ("{data.fold: [-1]}", "data.fold: got -1"),
    ],
)
def test_folds_that_are_refused(vary, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_study(None, [*FOLDS, f"study.vary={vary}"])
    assert "\n" not in str(error.value)


def rows_of(values, settings=("standard", "weight_asymmetric")):
    """Return the rows of fits from values (setting, fold, seed); NaN is a failed fit."""
    return [
        {
            "setting": label,
            "fold": fold,
            "seed": seed,
            "status": "complete" if np.isfinite(value) else "failed",
            "test_nll": value,
        }
        for label, own in zip(settings, values, strict=True)
        for (fold, seed), value in np.ndenumerate(own)
    ]


SETTINGS = [
    {"label": "standard", "context": 0, "role": "baseline", "kind": "standard"},
    {"label": "weight_asymmetric", "context": 0, "role": "asymmetric", "kind": "weight_asymmetric"},
]


def test_seeds_are_averaged_within_folds():
    values = np.random.default_rng(0).normal(size=(2, 5, 3))
    first, _ = summarize_settings(SETTINGS, rows_of(values), [])
    estimate, folds = first["measures"]["test_nll"], values[0].mean(axis=1)
    assert (estimate["n"], estimate["kind"]) == (5, "folds")
    assert estimate["mean"] == pytest.approx(folds.mean())
    assert estimate["standard_error"] == pytest.approx(stats.sem(folds))
    [comparison] = compare_settings(SETTINGS, rows_of(values), [])
    test = stats.ttest_rel(values[1].mean(axis=1), folds)
    assert (comparison["n"], comparison["kind"]) == (5, "folds")
    assert comparison["p_value"] == pytest.approx(test.pvalue)
    assert "5 folds" in comparison["sentence"]


def test_settings_are_compared_on_fits_that_both_have():
    values = np.random.default_rng(0).normal(size=(2, 4, 3))
    values[1] = values[0] + 1.0
    values[0, 0, 0], values[1, 2, 1] = np.nan, np.nan  # failed
    [comparison] = compare_settings(SETTINGS, rows_of(values), [])
    assert comparison["difference"]["mean"] == pytest.approx(1.0)
    assert comparison["n"] == 4


def test_barriers_are_averaged_within_folds():
    heights = np.random.default_rng(0).normal(size=(2, 4, 3))
    seeds = [(0, 1), (0, 2), (1, 2)]
    pairs = [
        {
            "relation": "across_seeds",
            "setting": setting["label"],
            "other_setting": setting["label"],
            "fold": fold,
            "seed": first,
            "other_seed": second,
            "status": "complete",
            "naive": heights[number, fold, place],
        }
        for number, setting in enumerate(SETTINGS)
        for fold in range(4)
        for place, (first, second) in enumerate(seeds)
    ]
    fits = rows_of(np.zeros((2, 4, 3)))
    first, _ = summarize_settings(SETTINGS, fits, pairs)
    naive, folds = first["measures"]["naive"], heights[0].mean(axis=1)
    assert (naive["n"], naive["kind"], naive["mean"]) == (4, "folds", pytest.approx(folds.mean()))
    assert naive["standard_error"] == pytest.approx(stats.sem(folds))
