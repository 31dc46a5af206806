"""Runs whose last layer alone gets a posterior, on features that a MAP fit has found."""

import json
import shutil

import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun
from bnn_symm.inference import Callback
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.compatibility import check_comparable, save_derived_run
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.studies.keys import fit_key

from .fits import GAP, fit, history, same_bits

pytestmark = pytest.mark.thorough

LAST = "inference.parameters=[head.*]"
MAP = "warm_start=[{name: map, num_steps: 30}]"
NUTS = (
    "inference={name: nuts, max_tree_depth: 2, num_warmup: 10, num_draws: 20, num_chains: 2, "
    "compile: false}"
)
KEYS = [*GAP, MAP, NUTS, LAST, "checkpoint.every=1 steps"]
METHODS = {
    "mean_field_vi": {"num_steps": 20, "num_draws": 20},
    "map": {"num_steps": 20},
    "deep_ensemble": {"num_steps": 20, "num_members": 2, "chain_method": "sequential"},
    "laplace": {"num_steps": 20, "num_draws": 20},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs") / "nuts", KEYS)


class StopIn(Callback):
    def __init__(self, stage, rows):
        self.stage, self.rows, self.seen = stage, rows, []

    def on_history(self, row):
        self.seen.append(row.get("stage"))

    def should_stop(self):
        return self.seen.count(self.stage) >= self.rows


def features_of_map(run):
    """The weights that the warm start of a run has found."""
    folder = run.path / "warm_start" / "1" / "posterior.nc"
    from bnn_symm.posteriors import load_posterior

    posterior = load_posterior(folder, run.full_model, run.preprocessing.scaling)
    return run.full_model.unflatten(posterior.mean())


def test_only_the_last_layer_is_inferred_on_the_features_of_the_warm_start(run):
    assert list(run.model.shapes) == ["head.weight", "head.bias", "likelihood.log_noise"]
    assert run.posterior.shape == (2, 20, 6)
    fitted = features_of_map(run)
    fixed = run.model.fixed_values()
    assert fixed.keys() == {"layers.0.weight", "layers.0.bias"}
    assert all(torch.equal(value, fitted[name]) for name, value in fixed.items())
    initial = run.full_model.net_values(run.full_model.unflatten(run.full_model.initial()))
    assert not torch.equal(fixed["layers.0.weight"], initial["layers.0.weight"])
    assert (run.record["num_parameters"], run.record["num_fixed_parameters"]) == (6, 8)


def test_a_loaded_run_predicts_bitwise_equally(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    loaded = load_run(tmp_path / "copy")
    assert same_bits(loaded, run)
    x = run.dataset().test.x
    assert torch.equal(loaded.posterior.predict(x).outputs, run.posterior.predict(x).outputs)
    outputs = run.model.outputs(run.posterior.draws()[0], x)
    whole = run.full_model.flatten(
        {**run.model.fixed_values(), **run.model.unflatten(run.posterior.draws()[0])}
    )
    assert torch.equal(run.full_model.outputs(whole, x), outputs)


@pytest.mark.parametrize(("stage", "rows"), [(1, 2), (2, 1)])
def test_an_interrupted_run_is_resumed_bitwise_identically(tmp_path, run, stage, rows):
    path = tmp_path / "run"
    stopped = fit_run(load_config(None, KEYS), path, callbacks=[StopIn(stage, rows)])
    assert stopped.status == "interrupted"
    # Until the warm start has found the other parameters, the run is that of its warm start.
    assert stopped.model.num_fixed_parameters == (0 if stage == 1 else 8)
    assert stopped.posterior.shape[2] == stopped.model.num_parameters
    assert stopped.directory.fixed_parameters.exists() == (stage == 2)
    resumed = resume_run(path)
    assert same_bits(resumed, run)
    assert history(resumed) == history(run)
    assert resumed.metrics == run.metrics
    files = (run.directory.fixed_parameters, resumed.directory.fixed_parameters)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", METHODS)
def test_other_methods_start_from_a_run_and_keep_its_features(tmp_path, name):
    source = tmp_path / "source"
    fit(source, [*GAP, "inference={name: map, num_steps: 30}"])
    keys = ", ".join(f"{key}: {value}" for key, value in METHODS[name].items())
    own = fit(
        tmp_path / name,
        [*GAP, f"inference={{name: {name}, {keys}}}", LAST, f"initial={source}"],
    )
    assert own.posterior.shape[2] == 6
    start = load_run(source)
    weights = start.model.unflatten(start.posterior.mean())
    for key, value in own.model.fixed_values().items():
        assert torch.equal(value, weights[key])
    shutil.rmtree(source)  # the values are stored with the run
    assert same_bits(load_run(own.path), own)


def test_runs_with_equal_features_are_compared_and_others_are_refused(tmp_path, run, capsys):
    other = fit(tmp_path / "other", [*KEYS, "seed=1"])
    with pytest.raises(IncompatiblePosteriors, match="fixed parameters"):
        check_comparable([run, other])
    whole = fit(tmp_path / "map", [*GAP, "inference={name: map, num_steps: 5}"])
    with pytest.raises(IncompatiblePosteriors, match="stochastic parameters"):
        check_comparable([run, whole])
    same = fit(tmp_path / "same", [*GAP, NUTS, LAST, f"initial={run.path}", "seed=1"])
    assert check_comparable([run, same]) == []
    assert all(
        torch.equal(value, run.model.fixed_values()[name])
        for name, value in same.model.fixed_values().items()
    )
    assert main(["align", str(run.path), str(same.path), "-o", str(tmp_path / "aligned")]) == 0
    assert same_bits(load_run(tmp_path / "aligned" / "same"), same)  # no unit can move
    capsys.readouterr()
    assert main(["barrier", str(run.path), str(same.path), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["height"] < 10


def test_a_derived_run_has_the_fixed_parameters_too(tmp_path, run):
    save_derived_run(tmp_path / "derived", run, run.posterior, {"by": "test"})
    assert same_bits(load_run(tmp_path / "derived"), run)


def test_a_damaged_or_missing_file_of_fixed_parameters_is_refused(tmp_path, run):
    path = tmp_path / "copy"
    shutil.copytree(run.path, path)
    file = path / "fixed_parameters.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"\0\0\0\0")
    with pytest.raises(InvalidRun, match=r"fixed_parameters\.safetensors"):
        load_run(path)
    file.unlink()
    with pytest.raises(InvalidRun, match=r"fixed_parameters\.safetensors"):
        load_run(path)


def test_without_a_fit_before_it_the_initial_values_are_kept_and_a_note_says_so():
    prepared = prepare(load_config(None, [*GAP, NUTS, LAST]))
    initial = prepared.full_model.unflatten(prepared.full_model.initial())
    for name, value in prepared.model.fixed_values().items():
        assert torch.equal(value, initial[name])
    assert any("5 of 13 parameters" in note for note in prepared.notes)
    assert any("warm_start=[map]" in note for note in prepared.notes)
    keys = [fit_key(prepared)]
    keys += [fit_key(prepare(load_config(None, [*GAP, NUTS])))]
    assert len(set(keys)) == 2


def test_dry_run_and_symmetry_count_stochastic_parameters(capsys):
    flags = [word for key in KEYS for word in ("--set", key)]
    assert main(["fit", "--dry-run", "--json", *flags]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert (estimate["parameters"], estimate["fixed_parameters"]) == (6, 8)
    assert [stage["method"] for stage in estimate["stages"]] == ["map", "nuts"]
    assert main(["symmetry", "--json", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["free_parameters"], found["network_parameters"]) == (5, 13)
    assert found["log10_order"] == 0 < found["log10_order_if_nothing_fixed"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["inference.parameters=[hed.*]"], "head"),
        (["inference.parameters=[head.*, body.*]"], "body"),
        (["inference.parameters=head.*"], "inference.parameters"),
        (
            ["warm_start=[{name: deep_ensemble, num_members: 2, num_steps: 3}]", LAST],
            "single chain",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path, keys, words):
    with pytest.raises(ConfigError, match=words):
        fit(tmp_path / "run", [*GAP, NUTS, *keys])
    assert not (tmp_path / "run").exists()
