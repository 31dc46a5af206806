"""A run of a missing device opens on the CPU with a warning, and is resumed there if allowed."""

import json
import shutil
import warnings

import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.errors import ConfigError, InvalidRun
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.run import DeviceWarning

from .fits import GAP, VI, fit, sign
from .test_allow_changes import StopAfter

pytestmark = pytest.mark.thorough

# Of a kind that torch knows and that no machine of ours has.
MISSING = "mtia:5"


def move(path, device):
    """Edit the run as if it had been fitted on another device."""
    config = path / "config.yaml"
    assert "device: cpu\n" in config.read_text()
    config.write_text(config.read_text().replace("device: cpu\n", f"device: {device}\n"))
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, "device": device}))
    sign(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs") / "run", [*GAP, *VI])


@pytest.fixture
def elsewhere(run, tmp_path):
    return move(shutil.copytree(run.path, tmp_path / "run"), MISSING)


def test_it_is_opened_on_the_cpu_and_predicts_the_same(run, elsewhere):
    with pytest.warns(DeviceWarning) as caught:
        opened = load_run(elsewhere)
    assert [str(warning.message) for warning in caught] == [
        f"{elsewhere} was fitted on {MISSING}, which is not available here; it is opened on the CPU"
    ]
    assert opened.model.device == torch.device("cpu")
    assert opened.config.device == MISSING
    x = run.dataset().test.x
    assert torch.equal(opened.posterior.predict(x).outputs, run.posterior.predict(x).outputs)


@pytest.mark.parametrize(
    "command",
    [["evaluate", "--json"], ["diagnose", "--json"], ["predict", "gap.csv", "-o", "out.csv"]],
)
def test_commands_report_it_in_one_line(elsewhere, tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gap.csv").write_text("x\n0.5\n1.0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("default", DeviceWarning)
        assert main([command[0], str(elsewhere), *command[1:]]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if MISSING in line]
    assert line.startswith(
        f"bnn-symm: note: {elsewhere} was fitted on {MISSING}, which is not available here"
    )


def test_it_is_resumed_there_if_allowed(tmp_path):
    keys = [*GAP, "inference={name: map, num_steps: 60, log_every: 5}"]
    path = tmp_path / "run"
    assert fit_run(load_config(None, keys), path, callbacks=[StopAfter(3)]).status == "interrupted"
    move(path, MISSING)
    with pytest.raises(InvalidRun, match=f"device was {MISSING}, is cpu; .* allow_changes=True"):
        resume_run(path)
    with pytest.warns(DeviceWarning, match="opened on the CPU"):
        resumed = resume_run(path, allow_changes=True)
    assert resumed.status == "complete"
    assert resumed.record["device"] == "cpu"


def test_a_new_fit_on_it_is_refused():
    with pytest.raises(
        ConfigError,
        match=rf"device '{MISSING}' is not available here \(.*\); use device='cpu'",
    ):
        fit_run(load_config(None, [*GAP, f"device={MISSING}"]))
