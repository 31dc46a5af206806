"""Masks belong to a run: they are recorded, saved, loaded, checked and compared."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bnn_symm.architectures import fingerprint, fixed_buffers
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidRun
from bnn_symm.runs import dump_config, load_config, load_run, resume_run

from .fits import METHODS, PARALLEL, fit, same_bits, sign
from .test_interruption import _stop_after_draws

pytestmark = pytest.mark.thorough

DIGITS = ["data={name: digits, limit: 60}", "architecture.widths=[8]", "inference.num_steps=2"]
WEIGHT = "architecture.symmetry.kind=weight_asymmetric"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("good") / "run", [*DIGITS, WEIGHT]).path


@pytest.fixture
def copy(good, tmp_path):
    return shutil.copytree(good, tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        *((method, "weight_asymmetric") for method in METHODS),
        ("local", "sigma_asymmetric"),
        ("local", "bias_asymmetric"),
        *(
            pytest.param(method, "sigma_asymmetric", marks=pytest.mark.thorough)
            for method in METHODS
            if method != "local"
        ),
    ],
)
def test_every_method_saves_and_loads_asymmetric_runs(tmp_path, method, kind):
    keys = ["data={name: diabetes, limit: 60}", "architecture.widths=[4]", *METHODS[method]]
    keys += [f"architecture.symmetry.kind={kind}"]
    keys += ["inference.chain_method=sequential"] if method in PARALLEL else []
    run = fit(tmp_path / "run", keys)
    again = load_run(run.path)
    assert same_bits(run, again)
    known = json.loads((run.path / "run.json").read_text())["mask_fingerprint"]
    assert len(known) == 64
    assert known == fingerprint(run.model.net) == fingerprint(again.model.net)
    saved = load_file(run.path / "symmetry.safetensors")
    own = fixed_buffers(run.model.net)
    assert set(saved) == set(own)
    assert all(torch.equal(saved[name], own[name]) for name in own)
    # The last coordinate is the noise.
    assert (
        run.record["num_parameters"]
        == sum(value.numel() for value in run.model.net.parameters()) + 1
    )
    assert load_config(run.path / "config.yaml") == run.config


def test_masks_do_not_depend_on_the_runs_seed_or_dtype(tmp_path, good):
    known = load_run(good).record["mask_fingerprint"]
    other = fit(tmp_path / "b", [*DIGITS, WEIGHT, "seed=3", "dtype=float64"])
    assert other.record["mask_fingerprint"] == known
    another = fit(tmp_path / "c", [*DIGITS, WEIGHT, "architecture.symmetry.seed=1"])
    assert another.record["mask_fingerprint"] != known


@pytest.mark.parametrize("kind", ["standard", "init_matched", "parameter_matched"])
def test_networks_without_fixed_entries_have_no_file(tmp_path, kind):
    run = fit(tmp_path / "run", [*DIGITS, f"architecture.symmetry.kind={kind}"])
    assert run.record["mask_fingerprint"] is None
    assert not (run.path / "symmetry.safetensors").exists()
    assert same_bits(run, load_run(run.path))


def test_the_saved_masks_are_what_a_posterior_is_about(copy, monkeypatch):
    """A version that draws other masks does not change the predictions of a saved run."""
    before = load_run(copy)
    x = before.dataset().test.x[:4]
    wanted = before.posterior.predict(x).outputs
    import bnn_symm.architectures.asymmetric.masks as masks

    monkeypatch.setattr(masks, "numpy_generator", lambda *key: _other_stream(*key))
    after = load_run(copy)
    assert fingerprint(after.model.net) == before.record["mask_fingerprint"]
    assert torch.equal(after.posterior.predict(x).outputs, wanted)


def _other_stream(*key):
    from bnn_symm.randomness import numpy_generator

    return numpy_generator("another version", *key)


def _edit(path, change):
    content = load_file(path)
    change(content)
    save_file(content, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda run: (run / "symmetry.safetensors").unlink(),
            "has no symmetry.safetensors.*copy the whole directory",
        ),
        (
            lambda run: os.truncate(run / "symmetry.safetensors", 20),
            "symmetry.safetensors.*is damaged",
        ),
        (
            lambda run: _edit(run / "symmetry.safetensors", lambda saved: saved.pop("head.mask")),
            "symmetry.safetensors does not fit .*config.yaml: .*head.mask is missing",
        ),
        (
            lambda run: _edit(
                run / "symmetry.safetensors", lambda saved: saved["head.fixed"].mul_(2)
            ),
            "symmetry.safetensors has the mask fingerprint .*run.json has",
        ),
        (
            lambda run: (run / "config.yaml").write_text(
                (run / "config.yaml").read_text().replace("weight_asymmetric", "standard")
            ),
            "does not fit .*config.yaml: .*is unknown",
        ),
        (
            lambda run: (run / "run.json").write_text(
                json.dumps({**json.loads((run / "run.json").read_text()), "mask_fingerprint": None})
            ),
            "config.yaml has the mask fingerprint .*run.json has none",
        ),
    ],
)
def test_damage_is_named(copy, damage, message):
    damage(copy)
    sign(copy)
    with pytest.raises(InvalidRun, match=message) as error:
        load_run(copy)
    assert "\n" not in str(error.value)


def test_a_fit_starts_only_from_a_run_with_the_same_masks(tmp_path, good):
    started = fit(tmp_path / "a", [*DIGITS, WEIGHT, f"initial={good}"])
    assert started.status == "complete"
    known = load_run(good).record["mask_fingerprint"]
    for key, theirs in (
        ("architecture.symmetry.seed=1", None),
        ("architecture.symmetry.kind=standard", "none"),
    ):
        with pytest.raises(
            IncompatiblePosteriors, match=r"initial: .* has the mask fingerprint"
        ) as error:
            fit(tmp_path / "b", [*DIGITS, WEIGHT, key, f"initial={good}"])
        assert known[:12] in str(error.value)
        assert theirs is None or theirs in str(error.value)
    assert not (tmp_path / "b").exists()


def test_a_run_is_resumed_only_with_its_masks(tmp_path):
    keys = [
        *("data={name: diabetes, limit: 60}", "architecture.widths=[4]", WEIGHT),
        "inference={name: hmc, max_num_steps: 5, num_warmup: 20, num_draws: 60, num_chains: 2}",
        "inference.chain_method=sequential",
    ]
    _stop_after_draws(tmp_path / "run", keys, 5)
    changed = shutil.copytree(tmp_path / "run", tmp_path / "changed")
    config = changed / "config.yaml"
    text = config.read_text()
    assert "gate_scale: auto\n    seed: 0" in text
    config.write_text(
        text.replace("gate_scale: auto\n    seed: 0", "gate_scale: auto\n    seed: 1")
    )
    sign(changed)
    with pytest.raises(
        InvalidRun, match="cannot be resumed bitwise identically: mask_fingerprint was"
    ):
        resume_run(changed)
    assert same_bits(resume_run(tmp_path / "run"), fit(tmp_path / "undisturbed", keys))


# -- configuration


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["architecture.symmetry.kappa=1"],
            "has kappa but no kind.*set its key 'kind' to 'weight_asymmetric'",
        ),
        (
            ["architecture.symmetry=weight_asymmetric"],
            "got 'weight_asymmetric', expected a section.*set its key 'kind'",
        ),
        (
            [WEIGHT, "architecture.symmetry.kapa=1"],
            "unknown key architecture.symmetry.kapa; did you mean 'kappa'?",
        ),
        (
            [WEIGHT, "architecture.name=resnet", "architecture.symmetry.blok=1"],
            "did you mean 'block'?",
        ),
        (["architecture.symmetry.kind=weight"], "architecture.symmetry.kind: got 'weight'"),
        ([WEIGHT, "architecture.symmetry.kappa=-1"], "architecture.symmetry.kappa: got -1"),
        (
            [WEIGHT, "architecture.symmetry.fixed_per_row=[1, -1]"],
            "architecture.symmetry.fixed_per_row.1: got -1",
        ),
        ([WEIGHT, "architecture.symmetry.mask=dense"], "architecture.symmetry.mask: got 'dense'"),
        ([WEIGHT, "architecture.symmetry.block=0"], "architecture.symmetry.block: got 0"),
    ],
)
def test_what_is_wrong_is_named(overrides, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as error:
        load_config(None, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
@pytest.mark.parametrize(
    "keys",
    [
        [
            "kind=block_fixed",
            "block=4",
            "fixed_per_row=[3, 4]",
            "kappa=[0.5, 1]",
            "seed=2",
            "mask=filters",
        ],
        ["kind=sigma_asymmetric", "gate_scale=0.3", "fixed_per_row=3", "kappa=0"],
        ["kind=standard", "kappa=1"],
    ],
)
def test_symmetry_round_trips_and_controls_share_the_keys(tmp_path, name, keys):
    config = load_config(
        None, [f"architecture.name={name}", *(f"architecture.symmetry.{key}" for key in keys)]
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config
    assert config.architecture.symmetry.kind == keys[0].removeprefix("kind=")


def test_an_empty_section_is_the_default(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("architecture:\n  symmetry:\n")
    assert load_config(path) == load_config()
