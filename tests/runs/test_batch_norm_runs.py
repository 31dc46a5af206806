"""Fits of networks with batch norm, frozen or converted, are stored with their statistics."""

import sys
from pathlib import Path

import pytest
import torch

from bnn_symm.analyses.alignment import align_runs
from bnn_symm.analyses.barriers import BarrierOptions, barrier_runs
from bnn_symm.analyses.merging import merge_runs
from bnn_symm.architectures import frozen_layers
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.runs import Run, fit_run, load_config, load_run, resume_run
from bnn_symm.runs.compatibility import check_comparable, save_derived_run
from bnn_symm.testing import Interruption

from .fits import same_bits

pytestmark = pytest.mark.thorough

SOURCE = """
import torch
from torch import nn

def build(input_shape, num_outputs, trained=False):
    (features,) = input_shape
    net = nn.Sequential(
        nn.Linear(features, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, num_outputs)
    )
    if trained:
        net[1].running_mean += torch.arange(4.0)
        net[1].running_var *= 2.0
    return net
"""
MODULE = ["architecture.name=module", "architecture.factory=bnnets:build"]
METHODS = {
    "map": ["inference.name=map", "inference.num_steps=10"],
    "mean_field_vi": ["inference.num_steps=10", "inference.num_draws=5"],
    "hmc": [
        *("inference.name=hmc", "inference.max_num_steps=4", "inference.num_chains=2"),
        *("inference.num_warmup=5", "inference.num_draws=5"),
    ],
}
OWN = ["architecture.widths=[4]", "architecture.norm=batch"]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bnnets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("bnnets", None)


def fit(path: str, keys: list[str], mode: str = "frozen", **keywords) -> Run:
    config = load_config(None, ["data.name=iris", f"architecture.batch_norm={mode}", *keys])
    return fit_run(config, path, **keywords)


def same_predictions(first: Run, second: Run) -> bool:
    x = first.dataset().test.x
    return torch.equal(first.posterior.predict(x).outputs, second.posterior.predict(x).outputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["frozen", "convert"])
def test_fit_store_load_predict(method, mode) -> None:
    run = fit("run", [*MODULE, *METHODS[method]], mode)
    loaded = load_run("run", module="bnnets:build")
    assert same_bits(run, loaded)
    assert same_predictions(run, loaded)
    report = loaded.record["batch_norm"]
    assert (report["mode"], report["layers"]) == (mode, ["1"])
    if mode == "convert":
        assert report["relative_change"] > 0
        assert not frozen_layers(loaded.model.net)
    else:  # the stored statistics are those of the training inputs at the initial weights
        net, x = loaded.model.net, loaded.dataset().train.x
        first = net[0](x)
        assert torch.allclose(net[1].running_mean, first.mean(0), atol=1e-5)
        assert torch.allclose(net[1].running_var, first.var(0, correction=0), atol=1e-5)


def test_statistics_of_a_trained_module_are_kept() -> None:
    keys = [*MODULE, "architecture.keywords={trained: true}", *METHODS["map"]]
    run = fit("run", keys)
    assert run.record["batch_norm"]["estimated"] == []
    assert run.model.net[1].running_mean.tolist() == [0, 1, 2, 3]


def test_a_resumed_run_has_the_same_bits() -> None:
    keys = [*OWN, *METHODS["mean_field_vi"], "checkpoint.every=1"]
    undisturbed = fit("whole", keys)
    fit("part", keys, callbacks=[Interruption(stop_after=4)])
    resumed = resume_run("part")
    assert same_bits(resumed, undisturbed)
    assert same_predictions(resumed, undisturbed)


def test_a_fit_takes_the_statistics_of_the_weights_at_which_it_starts() -> None:
    start = fit("start", [*OWN, *METHODS["map"], "seed=3"])
    statistics = frozen_layers(start.model.net)["norms.0"].running_mean
    for name, keys in {
        "continued": ["initial=start"],
        "centered": ["prior.mean=start"],
    }.items():
        run = fit(name, [*OWN, *METHODS["map"], *keys])
        assert run.record["batch_norm"]["taken_from"] is not None
        assert torch.equal(frozen_layers(run.model.net)["norms.0"].running_mean, statistics)
        assert same_predictions(run, load_run(name))


def test_batch_norm_is_refused_by_default() -> None:
    with pytest.raises(ConfigError, match=r"batch_norm=frozen.*batch_norm=convert"):
        fit("run", [*MODULE, *METHODS["map"]], "refuse")


def test_runs_with_other_statistics_are_aligned_merged_and_repaired(tmp_path: Path) -> None:
    runs = [fit(f"run{seed}", [*OWN, *METHODS["map"], f"seed={seed}"]) for seed in (0, 1)]
    assert check_comparable(runs, move_statistics=True) == []
    with pytest.raises(IncompatiblePosteriors, match="constants"):
        check_comparable(runs)  # draws of both are not draws of one network
    x = runs[0].dataset().test.x
    _, aligned = align_runs(runs[0], runs[1:])[0]
    save_derived_run(tmp_path / "aligned", runs[1], aligned, {"by": "align"})
    stored = load_run("aligned")
    assert torch.equal(stored.posterior.predict(x).outputs, aligned.predict(x).outputs)
    assert torch.allclose(
        stored.posterior.predict(x).outputs, runs[1].posterior.predict(x).outputs, atol=1e-5
    )
    content = barrier_runs(runs, BarrierOptions(path="line", repair=True)).to_dict()
    for own in (content, content["naive"]):
        assert set(own["repaired"]) == {"height", "standard_error", "test", "train"}
    merged = merge_runs(runs, tmp_path / "merged", repair=True)
    assert {"merged", "unrepaired", "naive", "ensemble", "parts"} <= set(merged.test)
    assert load_run("merged").record["derived"]["repaired"] is True
    with pytest.raises(ConfigError, match="product"):
        merge_runs(runs, tmp_path / "product", rule="product", repair=True)
