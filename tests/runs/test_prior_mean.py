"""Runs whose prior has a learned mean can be loaded and resumed without the original run."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from bnn_symm.cli import main
from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.inference import MAP, Callback
from bnn_symm.models import Prior, PriorMean
from bnn_symm.runs import Config, fit_run, load_config, load_run, resume_run
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.studies.keys import fit_key

from .fits import GAP, fit, history, same_bits, sign

pytestmark = pytest.mark.thorough

VI = ["inference.num_steps=20", "inference.num_draws=20"]
MOPED = "prior={mean: PATH, scale: moped, delta: 0.2}"


def moped(path) -> str:
    return MOPED.replace("PATH", str(path))


@pytest.fixture
def pretrained(tmp_path):
    """Return a MAP fit, whose weights are the prior mean."""
    return fit(tmp_path / "pretrained", [*GAP, "inference={name: map, num_steps: 40}"])


def test_a_fit_starts_at_the_mean_of_a_run_and_does_not_need_it_again(tmp_path, pretrained):
    keys = [*GAP, *VI, moped(pretrained.path)]
    run = fit(tmp_path / "run", [*keys, "inference.num_steps=1", "inference.learning_rate=1e-9"])
    weights = run.model.num_net_parameters
    torch.testing.assert_close(
        run.posterior.loc[:weights], pretrained.posterior.mean()[:weights], rtol=0, atol=1e-6
    )
    before = run.posterior.draws(), run.metrics, run.model.log_prior(run.posterior.loc)
    shutil.rmtree(pretrained.path)
    again = load_run(run.path)
    assert torch.equal(again.posterior.draws(), before[0])
    assert again.model.log_prior(again.posterior.loc) == before[2]
    assert again.record["prior_mean"] == again.model.prior.mean.sha256
    assert main(["evaluate", str(run.path), "--json"]) == 0


def test_it_is_resumed_bitwise_identically_without_the_original(tmp_path, pretrained):
    keys = [*GAP, "inference={name: map, num_steps: 60, log_every: 5}", moped(pretrained.path)]
    undisturbed = fit(tmp_path / "undisturbed", keys)

    class Stop(Callback):
        rows = 0

        def on_history(self, row):
            self.rows += 1

        def should_stop(self):
            return self.rows >= 3

    assert (
        fit_run(load_config(None, keys), tmp_path / "run", callbacks=[Stop()]).status
        == "interrupted"
    )
    shutil.rmtree(pretrained.path)
    resumed = resume_run(tmp_path / "run")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)


def test_a_file_of_weights_and_the_run_they_are_of_are_the_same_prior(tmp_path, pretrained):
    values = pretrained.model.unflatten(pretrained.posterior.mean())
    save_file(pretrained.model.net_values(values), tmp_path / "weights.safetensors")
    keys = [*GAP, "inference={name: map, num_steps: 5}"]
    of_file = fit(tmp_path / "file", [*keys, moped(tmp_path / "weights.safetensors")])
    of_run = fit(tmp_path / "run", [*keys, moped(pretrained.path)])
    assert of_file.model.prior == of_run.model.prior
    assert same_bits(of_file, of_run)


def test_free_entries_of_asymmetric_networks_alone_have_a_mean(tmp_path):
    symmetry = "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [0, 1]}"
    gap = ["data.name=gap", "architecture.widths=[4]", symmetry]
    first = fit(tmp_path / "first", [*gap, "inference={name: map, num_steps: 20}"])
    run = fit(tmp_path / "second", [*gap, "inference={name: map, num_steps: 5}", moped(first.path)])
    assert run.record["mask_fingerprint"] is not None
    mean, free = run.model.parameter_prior.mean, run.model.num_net_parameters
    assert torch.equal(mean, first.posterior.mean()[:free])
    again = load_run(run.path)
    assert torch.equal(again.model.parameter_prior.mean, mean)


def test_what_is_in_the_directory_is_what_was_fitted(tmp_path, pretrained):
    run = fit(tmp_path / "run", [*GAP, *VI, moped(pretrained.path)])
    kept = run.path / "prior_mean.safetensors"
    weights = {name: value.clone() for name, value in run.model.prior.mean.weights.items()}
    weights["head.bias"] += 1
    save_file(weights, kept)
    with pytest.raises(InvalidRun, match="was damaged or replaced"):
        load_run(run.path)
    sign(run.path)
    with pytest.raises(InvalidRun, match="was changed since the fit"):
        load_run(run.path)
    kept.write_bytes(b"nonsense")
    sign(run.path)
    with pytest.raises(InvalidRun, match=r"prior_mean\.safetensors .*is damaged"):
        load_run(run.path)
    kept.unlink()
    with pytest.raises(InvalidRun, match=r"has no prior_mean\.safetensors, the mean of its prior"):
        load_run(run.path)


def test_derived_runs_keep_it(tmp_path, pretrained, capsys):
    for seed in (0, 1):
        fit(tmp_path / f"p{seed}", [*GAP, *VI, moped(pretrained.path), f"seed={seed}"])
    assert (
        main(
            [
                "align",
                str(tmp_path / "p0"),
                str(tmp_path / "p1"),
                "-o",
                str(tmp_path / "aligned"),
                "--quiet",
            ]
        )
        == 0
    )
    aligned = load_run(next(path.parent for path in (tmp_path / "aligned").rglob("run.json")))
    assert aligned.model.prior.mean == load_run(tmp_path / "p0").model.prior.mean


def test_weights_in_memory_will_do(tmp_path, pretrained):
    weights = pretrained.model.net_values(pretrained.model.unflatten(pretrained.posterior.mean()))
    config = load_config(None, GAP)
    prior = Prior(mean=PriorMean(weights), scale=0.5)
    run = fit_run(
        Config(
            data=config.data,
            architecture=config.architecture,
            prior=prior,
            inference=MAP(num_steps=5),
        ),
        tmp_path / "run",
    )
    assert run.config.prior.mean == f"sha256:{prior.mean.sha256}"
    assert load_run(run.path).model.prior.mean == PriorMean(weights)


def test_studies_know_a_mean_by_its_content(tmp_path, pretrained):
    shutil.copytree(pretrained.path, tmp_path / "copy")
    other = fit(tmp_path / "other", [*GAP, "inference={name: map, num_steps: 41}"])
    keys = [
        fit_key(prepare(load_config(None, [*GAP, moped(path)])))
        for path in (pretrained.path, tmp_path / "copy", other.path)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_what_can_be_typed_wrong(tmp_path, pretrained):
    chains = fit(
        tmp_path / "chains",
        [
            *GAP,
            "inference={name: deep_ensemble, num_members: 2, num_steps: 3, chain_method: "
            "sequential}",
        ],
    )
    (tmp_path / "notes.txt").write_text("weights")
    wrong = {
        str(tmp_path / "nowhere"): "does not exist; name a run directory, or a state dict",
        str(
            tmp_path / "nowhere.safetensors"
        ): "does not exist; name a run directory, or a file of weights",
        str(
            tmp_path / "notes.txt"
        ): "is not a file of weights; name a run directory, or a state dict",
        str(chains.path): "has 2 chains, which permute their units differently",
    }
    for path, message in wrong.items():
        with pytest.raises(ConfigError, match=message):
            prepare(load_config(None, [*GAP, moped(path)]))
    with pytest.raises(ConfigError, match=r"layers\.0\.weight has shape 4x1, expected 5x1"):
        prepare(
            load_config(None, ["data.name=gap", "architecture.widths=[5]", moped(pretrained.path)])
        )
    with pytest.raises(ConfigError, match=r"prior\.scale=moped is a fraction of prior\.mean"):
        prepare(load_config(None, [*GAP, "prior.scale=moped"]))
