import json
import subprocess
import sys

import pytest

from bnn_symm.cli import main
from bnn_symm.runs import load_run
from bnn_symm.runs.compatibility import check_comparable

IRIS = ["--set", "data.name=iris", "architecture.widths=[]", "inference.num_steps=5"]


def test_table_and_name(cli):
    status, out, err = cli("fit", *IRIS)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        *("part", "points", "nll", "accuracy", "ece", "brier"),
        *("auc", "balanced_accuracy", "expected_nll"),
    ]
    assert [line.split()[0] for line in lines[2:5]] == ["train", "validation", "test"]
    assert "ELBO" in lines[5]
    assert lines[-1] == "run: runs/iris-mlp-mean_field_vi-1"


def test_json_is_metrics(cli):
    status, out, err = cli("fit", *IRIS, "--out", "run", "--json")
    assert (status, err) == (0, "")
    with open("run/metrics.json") as file:
        assert json.loads(out) == {"run": "run", **json.load(file)}


def test_quiet_prints_nothing(cli):
    assert cli("fit", *IRIS, "--out", "run", "--quiet") == (0, "", "")


@pytest.mark.thorough
def test_an_unused_dropout_rate_is_noted_and_has_no_effect(cli, tmp_path):
    keys = ["data.name=iris", "architecture.widths=[4]", "inference.num_steps=2"]
    errors = {}
    for name, method, rate in (
        ("map", "map", 0.2),
        ("a", "mc_dropout", 0.1),
        ("b", "mc_dropout", 0.3),
    ):
        own = [f"inference.name={method}", f"architecture.dropout={rate}"]
        status, _, errors[name] = cli("fit", "--quiet", "--set", *keys, *own, "--out", name)
        assert status == 0
    reason = "map does not drop units; use inference.name=mc_dropout"
    assert errors == {
        "map": f"bnn-symm: note: architecture.dropout=0.2 has no effect: {reason}\n",
        "a": "",
        "b": "",
    }
    records = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in errors}
    assert records["map"]["unused"] == {"architecture.dropout": 0.2}
    assert "unused" not in records["a"]
    runs = {name: load_run(name) for name in errors}
    assert check_comparable([runs["map"], runs["a"]]) == []
    assert check_comparable([runs["a"], runs["b"]]) == ["b has dropout rate 0.3, a has 0.1"]


@pytest.mark.thorough
def test_config_file_and_overrides(cli, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "data: {name: iris}\narchitecture: {widths: []}\ninference: {num_steps: 5}\n"
    )
    assert (
        cli(
            "fit",
            "c.yaml",
            "--set",
            "seed=1",
            "--set",
            "inference.num_steps=6",
            "--out",
            "a",
            "--quiet",
        )[0]
        == 0
    )
    assert (
        cli("fit", "--set", "seed=1", "inference.num_steps=6", "c.yaml", "--out", "b", "--quiet")[0]
        == 0
    )
    text = (tmp_path / "a" / "config.yaml").read_text()
    assert text == (tmp_path / "b" / "config.yaml").read_text()
    assert "seed: 1" in text
    assert "num_steps: 6" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.yaml"], "no configuration file absent.yaml"),
        (["--set", "data.name=irs"], "got 'irs', which is no data set"),
        (["--set", "data.name=absent.csv"], "the file 'absent.csv' does not exist"),
        (
            ["--set", "data.name=gap", "likelihood.name=categorical"],
            "likelihood categorical is for classification",
        ),
        (
            ["--set", "data.name=iris", "likelihood.name=bernoulli"],
            "needs 2 classes, the data have 3",
        ),
        (["--set", "device=cuda:7"], "device 'cuda:7' is not available here"),
        (["--set", "data.name=iris", "initial=absent"], "no run at absent"),
        (["--module", "absent:build", "--set", "data.name=iris"], "no module 'absent'"),
        (["--resume", "absent"], "no run at absent"),
        (["--resume", "r", "--out", "b"], "it takes no CONFIG, --set, --out or --dry-run"),
    ],
)
def test_wrong_input(refused, words, message):
    assert message in refused("fit", *words)


def test_existing_and_unwritable_places(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    assert "file exists and is never overwritten; choose another --out\n" in refused(
        "fit", *IRIS, "--out", "file"
    )
    assert "folder exists" in refused("fit", *IRIS, "--out", "folder")
    assert "cannot be written" in refused("fit", *IRIS, "--out", "file/run")
    assert "cannot be written" in refused("fit", *IRIS, "--out", "/proc/nowhere/run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_existing_run_can_be_resumed(refused, cli):
    cli("fit", *IRIS, "--out", "run")
    assert "or resume it: bnn-symm fit --resume run" in refused("fit", *IRIS, "--out", "run")


def test_traceback_only_with_debug(cli):
    from bnn_symm.errors import BnnSymmError

    with pytest.raises(BnnSymmError):
        cli("fit", "absent.yaml", "--debug")


# In processes of their own, chains must find the module as well.
@pytest.mark.parametrize(
    "how", ["sequential", pytest.param("parallel", marks=pytest.mark.thorough)]
)
def test_a_custom_module(cli, refused, tmp_path, how):
    (tmp_path / "my_nets_a.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, n, m):\n"
        "        super().__init__()\n"
        "        self.head = torch.nn.Linear(n, m)\n"
        "    def forward(self, x):\n"
        "        return self.head(x)\n"
        "def build(input_shape, num_outputs):\n"
        "    return Net(input_shape[0], num_outputs)\n"
    )
    keys = [
        "--set",
        "data.name=iris",
        "inference={name: deep_ensemble, num_steps: 3, num_members: 2}",
    ]
    keys += [f"inference.chain_method={how}"]
    status, _, err = cli("fit", *keys, "--module", "my_nets_a:build", "--out", "run")
    assert (status, err) == (0, "")
    assert "repeat it: --module my_nets_a:build" in refused("evaluate", "run")
    assert "no module 'absent'" in refused("evaluate", "run", "--module", "absent:build")
    assert "has no 'built'" in refused("evaluate", "run", "--module", "my_nets_a:built")
    assert cli("evaluate", "run", "--module", "my_nets_a:build")[0] == 0
    more = ["--set", "data.name=iris", "inference.name=map", "inference.num_steps=2", "initial=run"]
    assert cli("fit", *more, "--module", "my_nets_a:build", "--out", "next", "--quiet") == (
        0,
        "",
        "",
    )
    assert "which this configuration does not name" in refused("fit", *more, "--out", "other")
    cli("fit", *IRIS, "--out", "plain")
    assert "--module my_nets_a:build is for code of the user; this run has none" in refused(
        "evaluate", "plain", "--module", "my_nets_a:build"
    )


@pytest.mark.parametrize(
    "words", [[], ["fit"], ["evaluate"], ["predict"], ["data"], ["data", "list"], ["data", "fetch"]]
)
def test_help_has_an_example_in_one_line(capsys, words):
    with pytest.raises(SystemExit) as error:
        main([*words, "--help"])
    assert error.value.code == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(" ".join(["example: bnn-symm", *words]))


def test_version(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"bnn-symm {version('bnn_symm')}\n"


@pytest.mark.parametrize(
    "words", [["absent"], ["fit", "--absent"], ["predict", "a", "b"], ["data", "list", "x"]]
)
def test_unknown_commands_exit_with_status_2(cli, words):
    status, out, err = cli(*words)
    assert (status, out) == (2, "")
    assert "error: " in err


def test_help_imports_nothing_heavy():
    code = (
        "import sys, bnn_symm.cli as c\ntry: c.main(['fit', '--help'])\nexcept SystemExit: pass\n"
    )
    heavy = {"torch", "pandas", "pydantic", "numpy", "pyro", "matplotlib"}
    code += f"print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.thorough
def test_output_that_cannot_be_written():
    """Test a full disk behind stdout, and a closed pipe."""
    command = f"{sys.executable} -m bnn_symm.cli data list --quiet --json"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (
        2,
        "bnn-symm: error: output: No space left on device\n",
    )
    gone = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert (gone.stdout, gone.stderr) == ("0\n", "")
