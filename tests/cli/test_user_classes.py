"""Likelihoods and priors of the user's own code, from a configuration to a report."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from bnn_symm.cli import main
from bnn_symm.errors import ConfigError
from bnn_symm.io.documents import parse_yaml
from bnn_symm.likelihoods import Gaussian
from bnn_symm.models import Imported, Prior
from bnn_symm.runs import dump_config, load_config, load_run, parse_config
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.runs.directory.code_record import CodeWarning
from tests import user_classes

LIKELIHOOD, PRIOR = "tests.user_classes:LaplaceNoise", "tests.user_classes:ScaledNormals"
FLAGS = ["--module", LIKELIHOOD, "--module", PRIOR]
SHORT = {
    "mean_field_vi": {"num_steps": 20},
    "mclmc": {"num_chains": 2, "num_warmup": 20, "num_draws": 10},
    "map": {"num_steps": 3},
}


def own_config(method: str) -> dict:
    return {
        "data": {"name": "gap"},
        "architecture": {"widths": [3], "activation": "tanh"},
        "likelihood": {"name": LIKELIHOOD, "log_scale_sd": 0.5},
        "prior": {"name": PRIOR, "scale": 0.7, "num_scales": 3},
        "inference": {"name": method, **SHORT[method]},
    }


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "method", ["mean_field_vi", pytest.param("mclmc", marks=pytest.mark.thorough)]
)
def test_a_run_is_fitted_loaded_scored_predicted_and_reported(cli, tmp_path, method):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own_config(method)))
    assert cli("fit", "own.yaml", "--out", "run", "--quiet")[0] == 0
    run = load_run(tmp_path / "run", module=[LIKELIHOOD, PRIOR])
    assert run.model.likelihood == user_classes.LaplaceNoise(log_scale_sd=0.5)
    assert run.model.prior.name == user_classes.ScaledNormals(num_scales=3)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["likelihood"] == {"name": LIKELIHOOD, "log_scale_mean": -1.0, "log_scale_sd": 0.5}
    assert stored["prior"]["num_scales"] == 3
    assert set(json.loads((tmp_path / "run" / "run.json").read_text())["code"]) == {
        LIKELIHOOD,
        PRIOR,
    }
    assert np.isfinite(run.metrics["test"]["nll"])
    (tmp_path / "new.csv").write_text("x\n0.1\n0.5\n")
    for words in (
        ["evaluate", "run"],
        ["predict", "run", "new.csv", "-o", "p.csv"],
        ["report", "run"],
    ):
        status, _, err = cli(*words, *FLAGS)
        assert status == 0, err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 3
    assert LIKELIHOOD in (tmp_path / "run" / "report.html").read_text()


# The import creates a file.
PLANTED = """
import pathlib
pathlib.Path(__file__).with_name("mark").touch()
from bnn_symm.settings import settings
from tests import user_classes

@settings
class Noise(user_classes.LaplaceNoise):
    width: float = 1.0
"""


@pytest.fixture
def planted(tmp_path, cli):
    """Fit a run whose likelihood is in a module of the current folder, and forget the module."""
    (tmp_path / "planted_noise.py").write_text(PLANTED)
    settings = ["data.name=gap", "architecture.widths=[2]", "inference.name=map"]
    settings += ["inference.num_steps=3", "likelihood.name=planted_noise:Noise"]
    assert cli("fit", "--set", *settings, "--out", "run", "--quiet")[0] == 0
    assert (tmp_path / "mark").exists()
    sys.modules.pop("planted_noise")
    (tmp_path / "mark").unlink()
    yield tmp_path
    sys.modules.pop("planted_noise", None)


@pytest.mark.thorough
def test_no_command_imports_a_class_that_only_a_directory_names(planted, cli):
    for words in (
        "evaluate run",
        "report run",
        "fit run/config.yaml --out x",
        "fit --resume run",
        "symmetry run/config.yaml",
    ):
        status, out, err = cli(*words.split())
        assert (status, out) == (2, ""), err
        assert "--module planted_noise:Noise" in err
        assert not (planted / "mark").exists()
    source = planted / "planted_noise.py"
    assert cli("evaluate", "run", "--module", "planted_noise:Noise")[0] == 0
    # Changed settings, changed source, another name, and a module that is gone.
    sys.modules.pop("planted_noise")
    source.write_text(PLANTED.replace("width: float = 1.0", "height: float = 1.0"))
    with pytest.raises(ConfigError, match=r"unknown key likelihood.width for .*; known: "):
        load_run("run", module="planted_noise:Noise")
    sys.modules.pop("planted_noise")
    source.write_text(PLANTED.replace("1.0", "2.0"))
    with pytest.warns(CodeWarning, match=r"source \(sha256\) of planted_noise:Noise is"):
        load_run("run", module="planted_noise:Noise")
    source.rename(planted / "moved_noise.py")
    sys.modules.pop("planted_noise")
    with pytest.raises(ConfigError, match=r"no module 'planted_noise'"):
        load_run("run", module="planted_noise:Noise")
    with pytest.warns(CodeWarning):
        run = load_run("run", module="moved_noise:Noise")
    assert run.config.likelihood.name == "moved_noise:Noise"
    with pytest.raises(ConfigError, match="is for code of the user; this run has"):
        load_run("run", module=["planted_noise:Noise", "os:system"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["likelihood.name=nowhere:Noise"], r"likelihood.name='nowhere:Noise': no module"),
        (
            ["likelihood.name=tests.user_classes:LaplaceNois"],
            r"has no 'LaplaceNois'; did you mean 'LaplaceNoise'",
        ),
        (["likelihood.name=a b:Noise"], r"want package.module:Class"),
        ([f"likelihood.name={PRIOR}"], r"is a class, want a class that derives from .*Likelihood"),
        (["likelihood.name=math:tau"], r"math:tau is of type float, want a class"),
        (
            [f"likelihood.name={LIKELIHOOD}", "likelihood.log_scale_s=1"],
            rf"unknown key likelihood.log_scale_s for likelihood.name={LIKELIHOOD}; did you mean",
        ),
        (
            [f"likelihood.name={LIKELIHOOD}", "likelihood.log_scale_sd=-1"],
            rf"likelihood.name={LIKELIHOOD}: LaplaceNoise: log_scale_sd: got -1",
        ),
        (
            ["likelihood.name=bnn_symm.likelihoods:NumberLikelihood"],
            "lacks distribution, log_prob; write these methods",
        ),
        ([f"prior.name={LIKELIHOOD}"], r"want a class that derives from .*PriorFamily"),
        (
            [f"prior.name={PRIOR}", "prior.narrow_weight=0.3"],
            rf"unknown key prior.narrow_weight for prior.name={PRIOR}",
        ),
        ([f"prior.name={PRIOR}", "prior.scale=-1"], r"prior.scale: got -1"),
        (["prior.name=cauchy"], r"prior.name: got 'cauchy'.*student_t"),
        ([f"likelihood.name={LIKELIHOOD}", "data.name=iris"], r"for regression, but the data"),
    ],
    ids=str,
)
def test_errors_name_the_key_and_the_class(settings, words):
    with pytest.raises(ConfigError, match=words):
        prepare(load_config(None, ["data.name=gap", "architecture.widths=[2]", *settings]))


def test_configurations_with_classes_of_users_survive_yaml():
    config = parse_config(own_config("map"))
    assert config.likelihood == Imported(name=LIKELIHOOD, settings={"log_scale_sd": 0.5})
    assert parse_config(parse_yaml(dump_config(config), "")) == config


def test_the_code_of_the_how_to_page_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "how_to" / "own_likelihood.md").read_text()
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    noise, priors, checks, config, model = blocks
    (tmp_path / "noise.py").write_text(noise)
    (tmp_path / "priors.py").write_text(priors)
    (tmp_path / "own.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace: dict = {}
    exec(checks + "\n" + model, namespace)
    namespace["test_laplace_noise"]()
    namespace["test_logistic"]()
    prepared = prepare(load_config("own.yaml"))
    assert prepared.config.likelihood.settings == {"log_scale_sd": 0.5}
    assert type(prepared.model.prior.name).__name__ == "Logistic"


def test_an_instance_in_a_configuration_is_refused():
    config = load_config(None, ["data.name=gap"])
    prior = Prior(name=user_classes.ScaledNormals())
    with pytest.raises(ConfigError, match="configurations store names"):
        prepare(config.__class__(data=config.data, prior=prior, likelihood=Gaussian()))
