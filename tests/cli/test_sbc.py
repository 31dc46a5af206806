"""Test `bnn-symm sbc`."""

import json

import pytest

from bnn_symm.analyses.sbc_runner import default_overrides

pytestmark = pytest.mark.thorough

# Variational inference of a line: quick; after so few steps it is not calibrated, which is not the
# matter here.
TINY = ["inference={name: mean_field_vi, num_steps: 20, learning_rate: 0.1}", "data.limit=20"]
TINY_SBC = ["sbc", "--set", *TINY, "--jobs", 1]


def read(path) -> dict:
    return json.loads(path.read_text())


def test_a_check_writes_its_ranks_its_figure_and_its_verdict(cli, tmp_path):
    status, out, err = cli(*TINY_SBC, "--simulations", 8, "-o", "check")
    assert (status, err) == (0, "")
    assert "p uniform" in out
    assert "VSBC: " in out
    assert "figure: check/figures/sbc.png" in out
    folder = tmp_path / "check"
    assert (folder / "figures" / "sbc.png").read_bytes()[:4] == b"\x89PNG"
    content = read(folder / "sbc.json")
    assert (content["status"], content["kind"], content["num_simulations"]) == (
        "complete",
        "vsbc",
        8,
    )
    assert content["conclusion"] in out
    assert len(content["ranks"]) == len(content["values"]) == 8
    assert content["names"] == [own["name"] for own in content["quantities"]]
    assert "head.weight[0, 0]" in content["names"]
    lines = (folder / "simulations.jsonl").read_text().splitlines()
    assert [json.loads(line)["ranks"] for line in lines] == content["ranks"]
    assert "num_steps: 20" in (folder / "config.yaml").read_text()


def test_an_interrupted_check_can_be_resumed_and_extended(cli, tmp_path):
    assert cli(*TINY_SBC, "--simulations", 4, "-o", "whole", "--quiet") == (0, "", "")
    assert cli(*TINY_SBC, "--simulations", 3, "-o", "cut", "--quiet")[0] == 0
    log = tmp_path / "cut" / "simulations.jsonl"
    # As a process leaves it that is killed while it writes the third.
    log.write_text(log.read_text()[:-30])
    status, printed, _ = cli("sbc", "--resume", "cut", "--simulations", 4, "--jobs", 1, "--json")
    assert status == 0
    assert json.loads(printed)["values"] == read(tmp_path / "whole" / "sbc.json")["values"]
    assert log.read_text() == (tmp_path / "whole" / "simulations.jsonl").read_text()


def test_an_interrupted_check_prints_the_command_to_resume(cli, tmp_path, monkeypatch):
    from bnn_symm.diagnostics.simulation.sbc_simulation import FitSimulation

    once = FitSimulation.__call__

    def interrupted(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return once(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(FitSimulation, "__call__", interrupted)
        status, _, err = cli(*TINY_SBC, "--simulations", 4, "-o", "check")
    assert status == 130
    assert "resume with: bnn-symm sbc --resume check" in err
    assert read(tmp_path / "check" / "sbc.json")["status"] == "interrupted"
    assert len((tmp_path / "check" / "simulations.jsonl").read_text().splitlines()) == 2
    assert cli("sbc", "--resume", "check", "--jobs", 1)[0] == 0
    assert read(tmp_path / "check" / "sbc.json")["simulations"] == [0, 1, 2, 3]


def test_notes_are_printed_before_the_start(cli):
    keys = [*TINY, "inference.temperature=0.5", "architecture.widths=[80]"]
    status, _, err = cli("sbc", "--set", *keys, "--simulations", 2, "--jobs", 1)
    assert status == 0
    assert "inference.temperature is 0.5: only at 1" in err
    assert "the model has 242 parameters, and every simulation fits it" in err


def test_the_default_is_nuts_on_a_linear_model_and_can_be_overridden(cli):
    assert [key.partition("=")[0] for key in default_overrides([])] == [
        "data",
        "architecture",
        "inference",
    ]
    kept = default_overrides(
        ["inference.name=mean_field_vi", "data.limit=10", "architecture.widths=[3]"]
    )
    assert [key.partition("=")[0] for key in kept] == ["data", "architecture"]
    keys = ["inference.num_warmup=10", "inference.num_draws=12", "data.limit=10"]
    status, printed, _ = cli("sbc", "--set", *keys, "--simulations", 2, "--jobs", 1, "--json")
    assert status == 0
    content = json.loads(printed)
    assert (content["run"]["method"], content["run"]["dataset"]["name"], content["kind"]) == (
        "nuts",
        "gap",
        "sbc",
    )


def test_a_config_file_replaces_the_default(cli, tmp_path):
    (tmp_path / "c.yaml").write_text("data: {name: iris, limit: 20}\narchitecture: {widths: [2]}\n")
    keys = ["inference.num_steps=5"]
    status, printed, _ = cli(
        "sbc", "--set", *keys, "c.yaml", "--simulations", 2, "--jobs", 1, "--json"
    )
    assert status == 0
    content = json.loads(printed)
    assert content["run"]["dataset"]["name"] == "iris"
    # Hidden units of this network can be permuted, so that its weights are not ranked.
    assert "output 2 at input 0" in content["names"]
    assert not any("[" in name for name in content["names"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--simulations", "0"], "--simulations 0: expected 1 or more"),
        (["--jobs", "0"], "--jobs 0: expected 1 or more"),
        (["--resume", "missing"], "missing is not a directory of simulation-based calibration"),
        (["--resume", "x", "-o", "y"], "--resume uses the configuration of the check"),
        (
            ["--set", "inference={name: map, num_steps: 2}", "--jobs", "1"],
            "the method returns a single draw",
        ),
        (
            ["--set", "inference.num_steps=3"],
            "unknown key inference.num_steps for inference.name=nuts",
        ),
    ],
)
def test_wrong_input(refused, tmp_path, arguments, message):
    assert message in refused("sbc", *arguments)
    assert not list(tmp_path.glob("runs/*"))


def test_other_data_and_fewer_simulations_are_refused(cli, refused, tmp_path):
    assert cli(*TINY_SBC, "--simulations", 3, "-o", "check", "--quiet")[0] == 0
    assert "already has 3 simulations" in refused("sbc", "--resume", "check", "--simulations", 2)
    assert "exists and is never overwritten" in refused(*TINY_SBC, "-o", "check")
    config = tmp_path / "check" / "config.yaml"
    config.write_text(config.read_text().replace("limit: 20", "limit: 19"))
    assert "was created with another dataset" in refused("sbc", "--resume", "check")
