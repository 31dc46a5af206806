"""Zoos are trained, resumed, extended and refused on the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bnn_symm.zoo import load_zoo

pytestmark = pytest.mark.thorough

TINY = ["data.name=iris", "architecture.widths=[3]", "zoo.num_steps=[3,6]"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a zoo of 40 networks, which tests copy."""
    from bnn_symm.cli import main

    path = tmp_path_factory.mktemp("zoo") / "zoo"
    words = ["zoo", "train", "--quiet", "--jobs", "1", "--networks", "40", "--set", *TINY]
    assert main([*words, "-o", str(path)]) == 0
    return path


def test_a_zoo_is_one_file_with_its_configuration_and_symmetry(trained):
    assert sorted(file.name for file in trained.iterdir()) == [
        "config.yaml",
        "networks.npz",
        "zoo.json",
    ]
    zoo = load_zoo(trained)
    assert zoo.weights.shape == (40, 27)
    assert set(zoo.hyperparameters["num_steps"]) <= {3, 4, 5, 6}
    assert list(zoo.scores) == ["nll", "accuracy", "ece", "barrier"]
    content = json.loads((trained / "zoo.json").read_text())
    assert content["status"] == "complete"
    assert content["symmetry"]["log10_order"] == pytest.approx(np.log10(6))
    assert content["symmetry"]["fingerprint"] is None
    assert content["scores"]["nll"][0] == zoo.scores["nll"].min()


def test_an_extended_zoo_keeps_its_networks_and_has_those_of_a_larger_one(cli, trained):
    shutil.copytree(trained, "zoo")
    status, out, err = cli("zoo", "train", "--resume", "zoo", "--networks", 50, "--jobs", 1)
    assert (status, err) == (0, "")
    assert "50 networks of 27 parameters, standard: 10^0.778 elements" in out
    assert cli("zoo", "train", "--jobs", 1, "--networks", 50, "--set", *TINY, "-o", "all")[0] == 0
    extended, whole = load_zoo("zoo"), load_zoo("all")
    np.testing.assert_array_equal(extended.weights[:40], load_zoo(trained).weights)
    np.testing.assert_allclose(extended.weights, whole.weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(extended.scores["nll"], whole.scores["nll"], rtol=1e-4)


def test_an_interrupted_zoo_keeps_complete_batches(cli, refused, monkeypatch):
    import bnn_symm.zoo.training_run as module

    monkeypatch.setattr(module, "_BATCH", 5)
    train, calls = module.train_networks, []

    def interrupted(*arguments):
        calls.append(arguments[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(module, "train_networks", interrupted)
    words = ("zoo", "train", "--jobs", 1, "--networks", 20, "--set", *TINY)
    status, _, err = cli(*words, "-o", "zoo")
    assert status == 130
    assert "bnn-symm zoo train --resume zoo" in err
    assert "is not complete (status: interrupted)" in refused("zoo", "predict", "zoo")
    status, _, err = cli("zoo", "train", "--resume", "zoo", "--jobs", 1)
    assert (status, err) == (0, "")
    assert [own.start for own in calls] == [0, 5, 10, 10, 15]
    assert cli(*words, "-o", "whole")[0] == 0
    np.testing.assert_array_equal(load_zoo("zoo").weights, load_zoo("whole").weights)


def test_predictors_of_several_zoos_are_in_one_answer(cli, trained, monkeypatch):
    monkeypatch.setattr("bnn_symm.zoo.predictors._EPOCHS", 2)
    shutil.copytree(trained, "again")
    words = ("zoo", "predict", trained, "again", "--seeds", 1, "--jobs", 1)
    status, out, err = cli(*words, "-o", "predictors")
    assert (status, err) == (0, "")
    assert "standard, again" in out
    content = json.loads(Path("predictors/predictors.json").read_text())
    first, second = content["zoos"]
    assert (first["num_networks"], first["num_held_out"], first["num_excluded"]) == (40, 8, 0)
    assert first["scores"] == second["scores"]
    assert len(first["scores"]) == 4 * 5
    for score in first["scores"]:
        tau = score["tau"]
        if tau["value"] is not None:
            assert -1 <= tau["low"] <= tau["value"] <= tau["high"] <= 1
            assert score["tau_of_seeds"] == [pytest.approx(tau["value"])]


def test_wrong_input_is_refused_in_one_line(cli, refused, trained):
    assert "--networks 0: expected 1 or more" in refused("zoo", "train", "--networks", 0)
    assert "already has 40 networks" in refused(
        "zoo", "train", "--resume", trained, "--networks", 30
    )
    assert "exists and is never overwritten" in refused("zoo", "train", "-o", trained)
    assert "test split" in refused(
        "zoo", "train", "--set", "data.test_fraction=0", "architecture.widths=[3]"
    )
    assert "takes no CONFIG" in refused("zoo", "train", "--resume", trained, "--set", "seed=1")
    assert "is not a zoo" in refused("zoo", "predict", ".")
    assert "zoo train CONFIG" in refused("fit", "--set", *TINY)
    shutil.copytree(trained, "changed")
    config = Path("changed/config.yaml")
    config.write_text(config.read_text().replace("kind: standard", "kind: weight_asymmetric"))
    assert "mask fingerprint" in refused("zoo", "predict", "changed")
    shutil.copytree(trained, "damaged")
    Path("damaged/networks.npz").write_text("no archive")
    assert "networks.npz" in refused("zoo", "predict", "damaged")
    shutil.copytree(trained, "missing")
    (load_zoo("missing").path / "networks.npz").unlink()
    assert "networks.npz" in refused("zoo", "predict", "missing")
    shutil.copytree(trained, "small")
    arrays = {name: own[:10] for name, own in np.load("small/networks.npz").items()}
    np.savez("small/networks.npz", **arrays)
    assert "at least 30" in refused("zoo", "predict", "small")


def test_a_network_of_the_user_is_trained_and_has_to_be_named_again(
    cli, refused, tmp_path, monkeypatch
):
    Path("zoo_of_user.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, num_outputs))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = ("--module", "zoo_of_user:build")
    words = ("--jobs", 1, "--networks", 3, "--set", "data.name=iris", "zoo.num_steps=[2,3]")
    status, _, err = cli("zoo", "train", *module, *words, "-o", "zoo")
    assert (status, err) == (0, "")
    assert load_zoo("zoo", module=module[1]).weights.shape == (3, 43)
    assert "repeat it: --module zoo_of_user:build" in refused("zoo", "predict", "zoo")
    assert "--module" in refused("zoo", "train", "zoo/config.yaml", "--networks", 3)
