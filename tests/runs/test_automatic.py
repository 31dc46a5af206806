"""Tests of what is chosen for a table if a configuration leaves it open."""

import json

import numpy as np
import pandas as pd
import pytest

from bnn_symm import BNNClassifier, BNNRegressor, Prior, fit_run, load_config
from bnn_symm.errors import ConfigError
from bnn_symm.inference import MCLMC, SGMCLMC, Automatic, DeepEnsemble, MeanFieldVI, automatic
from bnn_symm.models import HeteroscedasticStudentT
from bnn_symm.runs.configuration.automatic import automatic_prior, open_prior
from bnn_symm.runs.configuration.config import parse_config, plain_config
from bnn_symm.runs.configuration.prepare import prepare

# What a regression has by default, given by hand.
PRIOR = "{scale: fan_in, overrides: {head.*: {scale: 1.0}}}"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("table") / "houses.csv"
    rng = np.random.default_rng(0)
    size = rng.uniform(30, 200, 60)
    price = 1000 * size + rng.normal(0, 100, 60) * size
    pd.DataFrame({"size": size, "price": price}).to_csv(path, index=False)
    return str(path)


def shorten(monkeypatch) -> None:
    """Shorten the methods for large tables."""
    lengths = {"_LARGE_CHAINS": 1, "_LARGE_MEMBER_STEPS": 5, "_MINIBATCH_WARMUP": 4}
    for name, value in {**lengths, "_MINIBATCH_DRAWS": 2}.items():
        monkeypatch.setattr(automatic, name, value)


def of_table(table: str, *overrides: str):
    return load_config(None, [f"data.name={table}", "data.target=price", *overrides], choose=True)


def test_what_a_table_leaves_open_is_chosen(table):
    config = of_table(table, "architecture.widths=[16]")
    assert isinstance(config.inference, Automatic)
    assert config.prior == open_prior(config.architecture)
    assert config.prior.overrides["head.*"].scale == 1.0
    prepared = prepare(config)
    assert prepared.config.prior == automatic_prior(config.architecture, "regression")
    assert isinstance(prepared.config.likelihood, HeteroscedasticStudentT)
    assert isinstance(prepared.config.inference, MCLMC)
    assert [type(stage) for stage in prepared.config.warm_start] == [DeepEnsemble]
    assert prepared.reason in prepared.notes
    assert prepared.record()["method_reason"] == prepared.reason


def test_the_prior_of_classes_is_wider(tmp_path):
    path = tmp_path / "kinds.csv"
    pd.DataFrame({"size": range(60), "kind": ["a", "b", "c"] * 20}).to_csv(path, index=False)
    keys = [f"data.name={path}", "data.target=kind", "architecture.widths=[16]"]
    config = load_config(None, keys, choose=True)
    # Left open in a file too, where the prior of a regression would be a setting.
    assert plain_config(config)["prior"] is None
    assert parse_config(plain_config(config)) == config
    prepared = prepare(config)
    assert prepared.config.prior.overrides["head.*"].scale == 2.0
    given = load_config(None, [*keys, f"prior={PRIOR}"], choose=True)
    assert prepare(given).config.prior == given.prior


def test_estimators_have_the_same_prior(monkeypatch):
    shorten(monkeypatch)
    x, method = np.arange(60.0).reshape(30, 2), Automatic(max_size=1)
    classifier = BNNClassifier(widths=(16,), method=method).fit(x, ["a", "b", "c"] * 10)
    regressor = BNNRegressor(widths=(16,), method=method).fit(x, x[:, 0])
    scales = [
        own.posterior_.model.prior.overrides["head.*"].scale for own in (classifier, regressor)
    ]
    assert scales == [2.0, 1.0]


@pytest.mark.parametrize(
    "overrides",
    [["inference.name=mean_field_vi"], ["inference.num_steps=5"]],
)
def test_a_section_that_is_given_is_not_changed(table, overrides):
    config = of_table(table, *overrides)
    assert isinstance(config.inference, MeanFieldVI)
    assert config.prior == Prior()
    assert prepare(config).config.likelihood.name == "gaussian"


def test_given_prior_and_likelihood_are_kept(table):
    config = of_table(table, "prior.scale=0.3", "likelihood.noise=0.2")
    assert config.prior == Prior(scale=0.3)
    assert prepare(config).config.likelihood.noise == 0.2


def test_other_data_keep_the_default():
    assert isinstance(load_config(None, ["data.name=diabetes"], choose=True).inference, MeanFieldVI)
    assert isinstance(load_config(None, ["data.name=x.npz"], choose=True).inference, MeanFieldVI)
    named = load_config(None, ["data.name=diabetes", "inference.name=auto"])
    assert named.prior == open_prior(named.architecture)


def test_the_method_chooses_its_own_warm_start(table):
    for override in ("warm_start=[map]", "warm_start=[auto]"):
        with pytest.raises(ConfigError):
            prepare(of_table(table, "inference.name=auto", override))


@pytest.mark.thorough
def test_a_run_stores_what_was_chosen(table, tmp_path, monkeypatch):
    notes = []
    config = of_table(table, "architecture.widths=[]", "inference={name: auto, max_size: 1}")
    shorten(monkeypatch)
    run = fit_run(config, tmp_path / "run", on_note=notes.append)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["method"] == "sgmclmc"
    assert record["method_reason"] in notes
    assert isinstance(run.config.inference, SGMCLMC)
