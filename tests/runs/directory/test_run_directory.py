import contextlib
import json
import os
import shutil

import pandas
import pytest

from bnn_symm.errors import InvalidRun
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.directory.history import stage_rows
from tests.runs.fits import GAP, IRIS, METHODS, fit, overrides, sign

from .test_run_files import new_run

SCORES = {
    "classification": {
        *("points", "nll", "accuracy", "ece", "brier", "auc", "balanced_accuracy", "expected_nll")
    },
    "regression": {"points", "nll", "rmse", "crps", "coverage_90", "r2", "expected_nll"},
}


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_contents_of_a_complete_run(tmp_path, method):
    run = fit(tmp_path / "run", overrides(method))
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.yaml",
        "history.parquet",
        "metrics.json",
        "posterior.nc",
        "preprocessing.json",
        "run.json",
    ]
    for path in run.path.iterdir():
        # Pickles begin with the protocol byte; those of torch are archives with a data.pkl.
        assert path.read_bytes()[:1] != b"\x80"
        assert b"data.pkl" not in path.read_bytes()
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert {"train", "validation", "test", "elbo"} <= set(metrics)
    for part in ("train", "validation", "test"):
        assert set(metrics[part]) == SCORES["regression"]
    assert {tuple(own) for own in metrics["baselines"].values()} == {
        ("nll", "difference", "standard_error", "standing")
    }
    for own in metrics["baselines"].values():
        assert own["difference"] == pytest.approx(metrics["test"]["nll"] - own["nll"])
    assert (metrics["elbo"] is not None) == (method in ("local", "weight"))
    table = pandas.read_parquet(run.path / "history.parquet")
    common = {"chain", "step", "seconds", "gradient_evaluations", "objective"}
    own = (
        {"epoch", "nll"}
        if "acceptance_rate" not in table
        else {"phase", "acceptance_rate", "step_size", "divergences"}
    )
    assert common | own <= set(table.columns)
    assert (method in ("local", "weight")) == ({"elbo", "kl"} <= set(table.columns))
    assert table.equals(table.sort_values(["chain", "step"], kind="stable"))


def test_scores_of_classes(tmp_path):
    run = fit(tmp_path / "run", [*IRIS, "inference.num_steps=2"])
    assert run.metrics is not None
    assert set(run.metrics["test"]) == SCORES["classification"]


def test_provenance(tmp_path):
    run = fit(tmp_path / "run", [*IRIS, "inference.num_steps=2", "seed=3"])
    record = json.loads((run.path / "run.json").read_text())
    assert record["run_schema"] == 1
    assert record["status"] == "complete"
    assert record["seed"] == 3
    assert record["method"] == "mean_field_vi"
    assert record["threads"] == 1
    assert record["num_parameters"] == 4 * 3 + 3
    assert record["mask_fingerprint"] is None
    assert {"python", "torch", "pyro-ppl", "numpy", "bnn_symm"} <= set(record["versions"])
    data = record["dataset"]
    assert (data["name"], data["task"], data["split_seed"]) == ("iris", "classification", 0)
    assert data["train"] + data["validation"] + data["test"] == 150
    assert len(data["sha256"]) == 64
    assert data["source"].startswith("scikit-learn")
    assert record["gradient_evaluations"] == 2
    assert record["seconds"] > 0


@pytest.mark.thorough
def test_the_stored_config_repeats_the_run(tmp_path):
    run = fit(tmp_path / "run", [*GAP, "inference.num_steps=3"])
    assert load_config(run.path / "config.yaml") == run.config
    assert run.config.likelihood is not None
    assert run.config.likelihood.name == "gaussian"


@pytest.mark.thorough
def test_the_likelihood_follows_the_task(tmp_path):
    table = pandas.DataFrame({"a": range(40), "y": [i % 7 for i in range(40)]})
    table.to_csv(tmp_path / "counts.csv", index=False)
    keys = [f"data.name={tmp_path}/counts.csv", "architecture.widths=[]", "inference.num_steps=2"]
    assert fit(tmp_path / "a", keys).config.likelihood.name == "categorical"
    assert fit(tmp_path / "b", [*keys, "data.task=regression"]).config.likelihood.name == "gaussian"
    counts = fit(tmp_path / "c", [*keys, "likelihood.name=poisson"])
    assert counts.config.data.task == "count"
    assert counts.record["dataset"]["task"] == "count"
    assert counts.metrics["test"]["rmse"] > 0


def test_names_by_default_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, [*IRIS, "inference.num_steps=1"])
    names = [fit_run(config).path.as_posix() for _ in range(2)]
    assert names == ["runs/iris-mlp-mean_field_vi-1", "runs/iris-mlp-mean_field_vi-2"]


def test_a_name_that_another_process_takes_meanwhile(tmp_path, monkeypatch):
    import bnn_symm.runs.fit_runner as module

    monkeypatch.chdir(tmp_path)
    free = module.next_free
    calls = []

    def slow(parent, stem):
        path = free(parent, stem)
        calls.append(path)
        if len(calls) == 1:
            path.mkdir(parents=True)
        return path

    monkeypatch.setattr(module, "next_free", slow)
    run = fit_run(load_config(None, [*IRIS, "inference.num_steps=1"]))
    assert run.path.name == "iris-mlp-mean_field_vi-2"
    assert len(calls) == 2


def test_a_folder_named_as_a_data_set_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris").mkdir()
    assert (
        fit(tmp_path / "run", [*IRIS, "inference.num_steps=1"]).record["dataset"]["name"] == "iris"
    )


def test_infinite_scores_are_null(tmp_path):
    """JSON has no infinity; the fit must still be saved."""
    keys = [
        *GAP,
        "inference.name=map",
        "inference.num_steps=1",
        "likelihood.noise=1e-18",
        "dtype=float64",
    ]
    run = fit(tmp_path / "run", [*keys, "inference.learning_rate=1e140"])
    assert run.status == "complete"
    assert run.metrics["test"]["rmse"] is None
    assert "NaN" not in (run.path / "metrics.json").read_text()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("good") / "run", [*IRIS, "inference.num_steps=3"]).path


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "run")


def _edit(path, **changes):
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content.pop(key)
        if value is not None:
            content[key] = value
    path.write_text(json.dumps(content))


def _open(path):
    return load_run(path).posterior.draws()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: os.truncate(run / "posterior.nc", 2000),
            "posterior.nc is not a complete posterior",
        ),
        (
            lambda run: os.truncate(run / "posterior.nc", 0),
            "posterior.nc is not a complete posterior",
        ),
        (
            lambda run: (run / "posterior.nc").write_text("hello"),
            "posterior.nc is not a complete posterior",
        ),
        (lambda run: os.truncate(run / "run.json", 50), "run.json is damaged"),
        (
            lambda run: (run / "run.json").write_text("[]"),
            "run.json is damaged: got a list, expected an object",
        ),
        (lambda run: (run / "run.json").unlink(), "is not a run of bnn_symm: it has no run.json"),
        (
            lambda run: _edit(run / "run.json", run_schema=2),
            "has run schema 2, this version reads up to 1; upgrade",
        ),
        (lambda run: _edit(run / "run.json", run_schema=None), "is not a run of bnn_symm"),
        (
            lambda run: _edit(run / "run.json", num_outputs=None, threads=None),
            "it has no threads, num_outputs",
        ),
        (lambda run: (run / "preprocessing.json").unlink(), "it has no preprocessing.json"),
        (
            lambda run: _edit(run / "preprocessing.json", scaling=None),
            "preprocessing.json is damaged: scaling",
        ),
        (lambda run: (run / "config.yaml").unlink(), "it has no config.yaml"),
        (
            lambda run: (run / "config.yaml").write_text("{}"),
            "config.yaml is damaged: it has no likelihood",
        ),
        (lambda run: (run / "history.parquet").write_text("x"), "history.parquet is damaged"),
        (
            lambda run: (run / "config.yaml").write_text(
                "likelihood: {name: categorical}\narchitecture: {widths: [3]}"
            ),
            "do not fit the network",
        ),
    ],
)
def test_damage_is_named(copy, damage, message):
    damage(copy)
    with contextlib.suppress(InvalidRun, FileNotFoundError):  # of a run.json that is damaged itself
        sign(copy)
    with pytest.raises(Exception, match=message) as error:
        _open(copy)
    assert type(error.value).__module__ == "bnn_symm.errors"
    assert "\n" not in str(error.value)


def test_a_directory_that_is_not_a_run_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "absent": "no run at",
        "file": "is a file",
        "folder": "not a run of bnn_symm",
    }.items():
        with pytest.raises(InvalidRun, match=message):
            load_run(tmp_path / name)


def test_a_newer_posterior_is_refused(copy):
    import h5netcdf

    with h5netcdf.File(copy / "posterior.nc", "a") as file:
        file.attrs["bnn_symm_posterior_schema"] = 3
    sign(copy)
    with pytest.raises(InvalidRun, match="posterior schema 3"):
        _open(copy)


@pytest.mark.thorough
@pytest.mark.parametrize("file", ["chain-0000.safetensors", "000000.npy"])
def test_a_damaged_checkpoint_or_draw(tmp_path, file):
    from tests.runs.test_interruption import LONG, _stop_after_draws

    _stop_after_draws(tmp_path / "run", [*LONG["hmc"], "inference.num_draws=60"], 5)
    (path,) = (tmp_path / "run").rglob(file)
    os.truncate(path, 20)
    with pytest.raises(InvalidRun, match="is damaged"):
        _open(tmp_path / "run")


@pytest.mark.thorough
def test_draws_before_the_state_must_exist(tmp_path):
    from tests.runs.test_interruption import LONG, _stop_after_draws

    path = tmp_path / "run"
    _stop_after_draws(path, [*LONG["hmc"], "inference.num_draws=60"], 5)
    for draws in (path / "draws").glob("*.npy"):
        draws.unlink()
    for use in (_open, resume_run):
        with pytest.raises(InvalidRun, match="has 0 draws of chain 0") as error:
            use(path)
        assert "\n" not in str(error.value)


def test_a_state_that_is_a_broken_link(tmp_path):
    run = new_run(tmp_path / "run")
    (run.checkpoint / "chain-0000.safetensors").symlink_to("nowhere")
    with pytest.raises(InvalidRun, match="cannot be found"):
        run.fit_state()


@pytest.mark.parametrize(
    "row",
    [
        {"step": 2, "chain": 0, "gradient_evaluations": 4},
        {"step": 2, "chain": 0, "seconds": 0.2},
        {"step": 2, "seconds": 0.2, "gradient_evaluations": 4},
        {"chain": 0, "seconds": 0.2, "gradient_evaluations": 4},
        {"step": 2, "chain": 0, "seconds": "0.2", "gradient_evaluations": 4},
    ],
)
def test_rows_of_the_history_need_their_keys(tmp_path, row):
    first = {"step": 1, "chain": 0, "seconds": 0.1, "gradient_evaluations": 2}
    log = tmp_path / "history.jsonl"
    log.write_text(f"{json.dumps(first)}\n{json.dumps(row)}\n")
    with pytest.raises(InvalidRun, match=r"history\.jsonl is damaged") as error:
        stage_rows(tmp_path)
    assert "\n" not in str(error.value)
