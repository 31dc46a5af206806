"""States that are preserved at chosen epochs."""

import numpy as np
import pytest
import torch

from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.runs import fit_run, load_config, load_run

from .fits import IRIS, fit, sign

pytestmark = pytest.mark.thorough

KEEP = [*IRIS, "inference.num_steps=40", "inference.num_draws=10"]


@pytest.mark.parametrize("method", ["mean_field_vi", "map", "deep_ensemble"])
def test_kept_states_load_as_posteriors(tmp_path, method):
    draws = [] if method != "mean_field_vi" else ["inference.num_draws=10"]
    members = (
        ["inference.num_members=2", "inference.chain_method=sequential"]
        if method == "deep_ensemble"
        else []
    )
    keys = [*IRIS, f"inference.name={method}", "inference.num_steps=40", *draws, *members]
    run = fit(tmp_path / "kept", [*keys, "checkpoint.keep=[5,20.4]"])
    kept = run.checkpoints()
    assert sorted(kept) == [5, 20]  # of full batches, an epoch is a step
    early, late = kept[5].mean(), kept[20].mean()
    assert not torch.equal(early, late)
    assert (late - run.posterior.mean()).norm() < (early - run.posterior.mean()).norm()
    assert kept[5].shape[0] == (2 if method == "deep_ensemble" else 1)
    # A fit that ends where the state was kept comes to the same values.
    short = fit(
        tmp_path / "short", [*keys, "inference.num_steps=40", "inference.schedule=constant"]
    )
    again = fit(tmp_path / "again", [*keys, "inference.schedule=constant", "checkpoint.keep=[5]"])
    assert torch.equal(short.posterior.mean(), again.posterior.mean())


def test_minibatches_count_epochs(tmp_path):
    run = fit(tmp_path / "run", [*KEEP, "inference.batch_size=54", "checkpoint.keep=[3]"])
    points = run.record["dataset"]["train"]
    assert list(run.checkpoints()) == [round(3 * points / 54)]


def test_without_the_key_nothing_is_kept(tmp_path):
    run = fit(tmp_path / "run", KEEP)
    assert run.checkpoints() == {}
    assert not (run.path / "checkpoints").exists()


def test_a_damaged_state_is_named(tmp_path):
    run = fit(tmp_path / "run", [*KEEP, "checkpoint.keep=[5]"])
    (path,) = (run.path / "checkpoints").iterdir()
    path.write_bytes(b"damaged")
    with pytest.raises(InvalidRun, match=rf"{path.name} was damaged or replaced"):
        load_run(run.path).checkpoints()
    sign(run.path)
    with pytest.raises(InvalidRun, match=rf"{path.name} .*is damaged"):
        load_run(run.path).checkpoints()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["checkpoint.keep=[50]"], "epoch 50, which is step 50; the fit ends at step 40"),
        (["checkpoint.keep=[0]"], "checkpoint.keep.0: got 0"),
        (["inference={name: nuts}", "checkpoint.keep=[1]"], "nuts stores all of its draws"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, keys, message):
    base = IRIS if "nuts" in keys[0] else KEEP
    with pytest.raises(ConfigError, match=message):
        fit_run(load_config(None, [*base, *keys]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resumed_fits_keep_the_same(tmp_path):
    """The state of a step is a function of the step, whichever process writes it."""
    one, other = (
        fit(tmp_path / name, [*KEEP, "checkpoint.keep=[7]"]).checkpoints()[7] for name in "ab"
    )
    assert np.array_equal(one.mean().numpy(), other.mean().numpy())
