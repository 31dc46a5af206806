"""External draws and checkpoints as runs: stored on disk, or temporary."""

import hashlib
import json
from pathlib import Path

import h5netcdf
import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save_file

from bnn_symm.analyses.alignment import align_runs
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun
from bnn_symm.posteriors import read_netcdf
from bnn_symm.runs import Config, Run, load_config, load_run, resume_run
from bnn_symm.runs.compatibility import check_comparable
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.runs.external_runs import external_run, import_run
from tests.posteriors.external.test_foreign import NUMPYRO, SIGMA

pytestmark = pytest.mark.thorough

FACTORY = """
from torch import nn

def build(input_shape, num_outputs):
    widths = [*input_shape, 5, 5, num_outputs]
    layers = [nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Return config(*keys) for the data of NumPyro, which were not standardized."""
    monkeypatch.chdir(tmp_path)
    with h5netcdf.File(NUMPYRO) as file:
        x, y = file["constant_data"]["x"][...], file["observed_data"]["y"][...]
    pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}).to_csv("theirs.csv", index=False)
    own = ["data.name=theirs.csv", "data.target=y", "data.standardize=false", "dtype=float64"]
    own += ["architecture.widths=[5,5]", "architecture.activation=tanh"]

    def make(*keys: str) -> Config:
        return load_config(None, [*own, *keys])

    return make


def mu(x) -> np.ndarray:
    """Return the outputs of NumPyro's network at some of its points, (chain, draw, point)."""
    with h5netcdf.File(NUMPYRO) as file:
        theirs = file["constant_data"]["x"][...]
    order = [int(np.abs(theirs - row).sum(1).argmin()) for row in x.numpy()]
    return read_netcdf(NUMPYRO).arrays["mu"][:, :, order]


def test_draws_become_a_run_that_loads_and_predicts_what_they_did(config, tmp_path) -> None:
    run = import_run([NUMPYRO], tmp_path / "run", config=config(), names=SIGMA)
    again = load_run(tmp_path / "run")
    assert (again.status, again.record["method"], again.record["engine"]) == (
        "complete",
        "imported",
        "numpyro 0.22.0",
    )
    x = again.dataset().test.x
    np.testing.assert_allclose(
        again.posterior.predict(x).outputs[..., 0].numpy(), mu(x), rtol=1e-10, atol=1e-12
    )
    assert set(again.posterior.sample_stats) == set(read_netcdf(NUMPYRO).sample_stats)
    assert again.metrics is not None
    assert again.metrics["test"]["rmse"] > 0
    assert again.metrics["elbo"] is None
    derived = again.record["derived"]
    assert derived["by"] == "import"
    assert derived["files"] == [
        {"path": str(NUMPYRO), "sha256": hashlib.sha256(NUMPYRO.read_bytes()).hexdigest()}
    ]
    assert (derived["chains"], derived["draws"], derived["left_out"]) == (3, 40, ["mu"])
    assert derived["matched"][0] == {
        "parameter": "layers.0.weight",
        "name": "w1",
        "shape": [2, 5],
        "rule": "numbered in order",
        "changes": ["transposed"],
    }
    steps = read_netcdf(NUMPYRO).sample_stats["n_steps"].sum()
    assert (
        again.record["gradient_evaluations"] == run.posterior.info["gradient_evaluations"] == steps
    )
    assert not (tmp_path / "run" / "lock.json").exists()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.yaml",
        "run.json",
        "preprocessing.json",
        "posterior.nc",
        "metrics.json",
        "history.parquet",
    }
    with pytest.raises(InvalidRun, match="derived from other runs by import"):
        resume_run(tmp_path / "run")


def test_the_sampler_follows_from_the_file_unless_configured(config, tmp_path) -> None:
    run = import_run([NUMPYRO], tmp_path / "a", config=config(), names=SIGMA)
    method = run.config.inference
    assert (method.name, method.num_chains, method.num_draws) == ("nuts", 3, 40)
    assert run.record["derived"]["method_assumed"]
    configured = config(
        "inference.name=hmc", "inference.target_accept_prob=0.9", "inference.temperature=0.5"
    )
    run = import_run([NUMPYRO], tmp_path / "b", config=configured, names=SIGMA)
    method = run.config.inference
    assert (method.name, method.num_draws, method.target_accept_prob, method.temperature) == (
        "hmc",
        40,
        0.9,
        0.5,
    )
    assert not run.record["derived"]["method_assumed"]


def test_a_run_that_is_not_kept_has_all_that_one_on_disk_has(config, tmp_path) -> None:
    kept = import_run([NUMPYRO], tmp_path / "kept", config=config(), names=SIGMA)
    run = external_run([str(NUMPYRO)], config=config(), names=SIGMA)
    assert (run.path, run.status, run.threads) == (NUMPYRO, "complete", kept.threads)
    assert torch.equal(run.posterior.draws(), kept.posterior.draws())
    assert run.metrics == kept.metrics
    assert run.preprocessing.to_dict() == kept.preprocessing.to_dict()
    assert torch.equal(run.dataset().test.x, kept.dataset().test.x)
    assert check_comparable([run, kept]) == []
    (_, aligned), _, _ = align_runs(run, [kept])
    x = kept.dataset().test.x
    torch.testing.assert_close(aligned.predict(x).outputs, kept.posterior.predict(x).outputs)
    folder = run.directory.path
    assert folder.exists()
    run.close()
    assert not folder.exists()
    assert not folder.parent.exists()


def test_a_network_of_the_users_own(config, tmp_path) -> None:
    (tmp_path / "foreign_networks.py").write_text(FACTORY)
    own = load_config(
        None,
        [
            "data.name=theirs.csv",
            "data.target=y",
            "data.standardize=false",
            "dtype=float64",
            "seed=3",
        ],
    )
    run = import_run(
        [NUMPYRO], tmp_path / "run", config=own, module="foreign_networks:build", names=SIGMA
    )
    assert list(run.model.shapes)[:2] == ["0.weight", "0.bias"]
    again = load_run(tmp_path / "run", module="foreign_networks:build")
    x = again.dataset().train.x
    np.testing.assert_allclose(
        again.posterior.predict(x).outputs[..., 0].numpy(), mu(x), rtol=1e-10, atol=1e-12
    )
    with pytest.raises(ConfigError, match="module='foreign_networks:build'"):
        load_run(tmp_path / "run")


def test_the_chains_of_several_files_are_those_of_one_run(config, tmp_path) -> None:
    other = tmp_path / "other.nc"
    other.write_bytes(NUMPYRO.read_bytes())
    run = import_run([NUMPYRO, other], tmp_path / "run", config=config(), names=SIGMA)
    assert run.posterior.shape == (6, 40, 52)
    assert len(run.record["derived"]["files"]) == 2


def test_checkpoints_become_an_ensemble(config, tmp_path) -> None:
    model = external_run([NUMPYRO], config=config("likelihood.noise=0.2")).model
    states = [model.net_values(model.unflatten(model.initial(seed))) for seed in range(3)]
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    for state, path in zip(states, paths, strict=True):
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    run = import_run(paths, tmp_path / "run", config=config("likelihood.noise=0.2"))
    assert run.posterior.shape == (3, 1, 51)
    assert (run.config.inference.name, run.config.inference.num_members) == ("deep_ensemble", 3)
    assert run.record["engine"] == "torch"
    assert torch.equal(
        run.posterior.draws(), torch.stack([model.initial(seed) for seed in range(3)])
    )
    with pytest.raises(
        IncompatiblePosteriors, match=r"0\.safetensors: .*likelihood\.log_noise is missing"
    ):
        import_run(paths, tmp_path / "learned", config=config())


def test_an_asymmetric_network_keeps_what_is_fixed(config, tmp_path) -> None:
    keys = [
        "likelihood.noise=0.2",
        "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [0, 2, 0]}",
    ]
    with pytest.raises(IncompatiblePosteriors, match=r"layers\.1\.weight holds .* the fixed value"):
        import_run([NUMPYRO], tmp_path / "no", config=config(*keys))
    assert not (tmp_path / "no").exists()
    # Its own draws, with whole weights, come back as they were.
    run = external_run_of_own_draws(config(*keys), tmp_path)
    assert run.record["mask_fingerprint"] is not None
    assert (run.directory.path / "symmetry.safetensors").exists()
    assert [match["changes"] for match in run.record["derived"]["matched"]][2] == [
        "restricted to the free entries"
    ]


def external_run_of_own_draws(config: Config, folder: Path) -> Run:
    model = prepare(config).model
    flat = torch.stack([model.initial(seed) for seed in range(6)]).reshape(2, 3, -1)
    with h5netcdf.File(folder / "own.nc", "w") as file:
        group = file.create_group("posterior")
        group.dimensions.update({"chain": 2, "draw": 3})
        for name, value in model.layer_values(model.unflatten(flat)).items():
            axes = [f"{name}_{i}" for i in range(value.dim() - 2)]
            group.dimensions.update(dict(zip(axes, value.shape[2:], strict=True)))
            group.create_variable(name, ("chain", "draw", *axes), "f8", data=value.numpy())
    run = import_run([folder / "own.nc"], folder / "own", config=config)
    assert torch.equal(run.posterior.draws(), flat.flatten(0, 1))
    return run


def test_refusals_leave_nothing_behind(config, tmp_path, monkeypatch) -> None:
    def refused(files: list[str | Path], message: str, error=ConfigError, **keywords) -> None:
        with pytest.raises(error, match=message):
            import_run(files, tmp_path / "run", **{"config": config(), "names": SIGMA, **keywords})
        assert not (tmp_path / "run").exists()

    refused([], "no files")
    refused([NUMPYRO, "a.pt"], "NetCDF files and checkpoints together")
    refused([NUMPYRO, NUMPYRO], "a file is named twice")
    refused([NUMPYRO], "leave it out", config=config("initial=x"))
    refused(["missing.nc"], "no file missing.nc", InvalidRun)
    refused([NUMPYRO], "no name mapping nowhere.yaml", names="nowhere.yaml")
    refused(
        [NUMPYRO],
        "numpyro_mlp.nc: .*does not|do not fit the network",
        IncompatiblePosteriors,
        names=None,
    )
    with pytest.raises(IncompatiblePosteriors, match="never guessed"):
        external_run([NUMPYRO], config=config())
    import_run([NUMPYRO], tmp_path / "taken", config=config(), names=SIGMA)
    with pytest.raises(InvalidRun, match="is never overwritten"):
        import_run([NUMPYRO], tmp_path / "taken", config=config(), names=SIGMA)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bnn_symm.posteriors.io.netcdf._write", full)
    with pytest.raises(Exception, match=r"No space left.*free some space"):
        import_run([NUMPYRO], tmp_path / "run", config=config(), names=SIGMA)
    assert not (tmp_path / "run").exists()


def test_run_json_is_json(config, tmp_path) -> None:
    import_run([NUMPYRO], tmp_path / "run", config=config(), names=SIGMA)
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["derived"]["library"]
        == "numpyro 0.22.0"
    )
