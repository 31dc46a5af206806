import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.thorough

# Small networks; the four features of iris distinguish six units of a first layer.
IRIS = ["--set", "data={name: iris, limit: 40}", "architecture.widths=[6, 5]"]
ASYMMETRIC = [*IRIS, "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [2, 2, 2]}"]
KEYS = {"log10_order", "certificate", "fingerprint", "free_parameters", "groups"}


def log10_factorials(*sizes: int) -> float:
    return sum(math.log10(math.factorial(size)) for size in sizes)


@pytest.fixture
def content(cli):
    """Return the parsed --json output of a command."""

    def run(*arguments: object) -> dict[str, Any]:
        status, out, err = cli("symmetry", *arguments, "--json")
        assert (status, err) == (0, "")
        parsed = json.loads(out)
        assert set(parsed) >= KEYS
        return parsed

    return run


# -- output


def test_of_a_standard_network(cli, content):
    found = content(*IRIS)
    assert found["log10_order"] == pytest.approx(log10_factorials(6, 5), rel=1e-12)
    assert found["order"] == str(math.factorial(6) * math.factorial(5))
    assert found["fingerprint"] is None
    assert found["certificate"].startswith("full: nothing is fixed")
    assert (
        found["free_parameters"] == found["network_parameters"] == 4 * 6 + 6 + 6 * 5 + 5 + 5 * 3 + 3
    )
    assert (found["fixed"], found["fixed_parameters"], found["duplicate_mask_rows"]) == ([], 0, {})
    assert [(group["name"], group["size"]) for group in found["groups"]] == [
        ("layers.0", 6),
        ("layers.1", 5),
    ]
    assert found["groups"][0]["tensors"] == ["layers.0.weight", "layers.0.bias", "layers.1.weight"]
    assert [group["log10_order_left"] for group in found["groups"]] == pytest.approx(
        [log10_factorials(6), log10_factorials(5)]
    )
    assert 0 <= found["defect"]["median"] < 1e-6 < found["defect"]["reference"]

    status, out, err = cli("symmetry", *IRIS)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:2] == ["group", "units"]
    assert [line.split()[:2] for line in lines[2:4]] == [["layers.0", "6"], ["layers.1", "5"]]
    assert "layers.0.weight, layers.0.bias, layers.1.weight" in lines[2]
    assert f"equivalent modes: {math.factorial(6) * math.factorial(5):,}" in out
    assert found["certificate"] in out
    assert "83 free of 83" in out
    assert "symmetry defect at initial values" in out


def test_of_an_asymmetric_network(cli, content):
    found = content(*ASYMMETRIC)
    assert found["log10_order"] == 0
    assert found["certificate"].startswith("trivial: proved")
    assert found["log10_order_if_nothing_fixed"] == pytest.approx(log10_factorials(6, 5), rel=1e-12)
    assert len(found["fingerprint"]) == 64
    assert found["fixed_parameters"] == 2 * 6 + 2 * 5 + 2 * 3
    assert found["free_parameters"] == 83 - 28
    assert {entry["tensor"]: entry["fixed"] for entry in found["fixed"]} == {
        "layers.0.weight": 12,
        "layers.1.weight": 10,
        "head.weight": 6,
    }
    assert all(group["units_that_move"] == 0 for group in found["groups"])
    assert found["defect"]["best"] > 1e-3
    assert {entry["kind"] for entry in found["continuous"]} == {
        "positive scaling",
        "shift of the softmax",
    }

    status, out, err = cli("symmetry", *ASYMMETRIC)
    assert (status, err) == (0, "")
    for words in (
        found["certificate"],
        found["fingerprint"],
        "55 free of 83; 28 fixed",
        "layers.1.weight: 10 of 30",
    ):
        assert words in out


def test_zeros_are_certified_although_their_effect_is_small(content):
    zero, one = (content(*ASYMMETRIC, f"architecture.symmetry.kappa={kappa}") for kappa in (0, 1))
    assert zero["certificate"].startswith("trivial: proved")
    assert zero["log10_order"] == one["log10_order"] == 0
    assert zero["fingerprint"] != one["fingerprint"]
    assert 0 < zero["defect"]["best"] < one["defect"]["best"]
    scaling = [
        {entry["where"]: (entry["dimensions"], entry["removed"]) for entry in found["continuous"]}
        for found in (zero, one)
    ]
    assert scaling[0]["layers.0"] == (6, 0)
    assert scaling[1]["layers.0"] == (0, 6)


def test_blocks_are_listed(cli, content):
    keys = ["--set", "data={name: iris, limit: 40}", "architecture.widths=[6, 4]"]
    keys += ["architecture.symmetry={kind: block_fixed, block: 2, fixed_per_row: [2, 2, 0]}"]
    found = content(*keys)
    assert found["order"] == str(2**5)
    assert found["log10_order"] == pytest.approx(5 * math.log10(2))
    assert found["num_components"] == 5
    units = [tuple(component["units"].items()) for component in found["components"]]
    blocks = [("layers.0", [0, 1]), ("layers.0", [2, 3]), ("layers.0", [4, 5])]
    blocks += [("layers.1", [0, 1]), ("layers.1", [2, 3])]
    assert sorted(units) == [(block,) for block in blocks]
    out = cli("symmetry", *keys)[1]
    assert all(f"{name} units {i}, {j}" in out for name, (i, j) in blocks)


def test_gates_have_a_fingerprint_and_no_fixed_weights(cli, content):
    keys = [*IRIS, "architecture.symmetry.kind=sigma_asymmetric"]
    found = content(*keys)
    assert found["certificate"].startswith("trivial: proved")
    assert len(found["fingerprint"]) == 64
    assert found["free_parameters"] == 83
    assert [(entry["tensor"], entry["trainable"]) for entry in found["fixed"]] == [
        ("activations.0.matrix", False),
        ("activations.1.matrix", False),
    ]
    assert "activations.0.matrix: fixed as a whole" in cli("symmetry", *keys)[1]


def test_units_with_sign_flips(cli, content):
    keys = [*IRIS, "architecture.activation=tanh"]
    found = content(*keys)
    assert found["log10_order"] == pytest.approx(log10_factorials(6, 5) + 11 * math.log10(2))
    assert all(group["signed"] for group in found["groups"])
    assert cli("symmetry", *keys)[1].count("may flip") == 2


def test_of_a_linear_model(cli, content):
    found = content("--set", "data={name: iris, limit: 40}", "architecture.widths=[]")
    assert (found["log10_order"], found["groups"], found["defect"]) == (0, [], None)
    assert found["certificate"] == "trivial: proved, there are no hidden units"
    status, out, _ = cli(
        "symmetry", "--set", "data={name: iris, limit: 40}", "architecture.widths=[]"
    )
    assert status == 0
    assert "there are no two units to swap" in out


def test_of_a_regression(content):
    """Test that the noise is not a parameter of the network, and no softmax shift is reported."""
    found = content("--set", "data={name: diabetes, limit: 40}", "architecture.widths=[5]")
    assert found["free_parameters"] == 10 * 5 + 5 + 5 + 1
    assert {entry["kind"] for entry in found["continuous"]} == {"positive scaling"}


def test_quiet_prints_nothing(cli):
    assert cli("symmetry", *IRIS, "--quiet") == (0, "", "")


# -- where a network comes from


def test_of_a_config_file(cli, content, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "data: {name: iris, limit: 40}\n"
        "architecture:\n"
        "  widths: [6, 5]\n"
        "  symmetry: {kind: weight_asymmetric, fixed_per_row: [2, 2, 2]}\n"
    )
    found = content("c.yaml")
    assert found == content(*ASYMMETRIC)
    assert found["fingerprint"] in cli("symmetry", "c.yaml")[1]
    changed = content("c.yaml", "--set", "architecture.symmetry.kind=standard")
    assert (changed["fingerprint"], changed["kind"]) == (None, "standard")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]  # it writes nothing


def test_of_a_run(cli, content):
    before = content(*ASYMMETRIC)
    status, _, err = cli("fit", *ASYMMETRIC, "inference.num_steps=20", "--out", "run", "--quiet")
    assert (status, err) == (0, "")
    files = sorted(str(path) for path in Path("run").rglob("*"))
    found = content("run")
    assert found["fingerprint"] == json.loads(Path("run/run.json").read_text())["mask_fingerprint"]
    # The same network at other values: all but the defect is as before.
    assert found["defect"]["at"] == "the posterior mean"
    assert before["defect"]["at"] == "initial values"
    assert found["defect"]["best"] != before["defect"]["best"]
    assert {**found, "defect": None} == {**before, "defect": None}
    status, out, err = cli("symmetry", "run")
    assert (status, err) == (0, "")
    assert "symmetry defect at the posterior mean" in out
    assert found["fingerprint"] in out
    assert sorted(str(path) for path in Path("run").rglob("*")) == files


def test_of_a_run_without_masks(cli, content):
    assert cli("fit", *IRIS, "inference.num_steps=2", "--out", "run", "--quiet")[0] == 0
    found = content("run")
    assert found["fingerprint"] is None
    assert json.loads(Path("run/run.json").read_text())["mask_fingerprint"] is None
    assert found["log10_order"] == pytest.approx(log10_factorials(6, 5))
    assert found["defect"]["median"] < 1e-6


PLANTED = """
from torch import nn
from bnn_symm.architectures import asymmetrize
from bnn_symm.architectures.asymmetric.fixed_entries import fix_entries


def plain(features, outputs):
    return nn.Sequential(
        nn.Linear(features, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, outputs)
    )


def build(input_shape, num_outputs):
    \"\"\"Unit 4 of the first layer is fixed, and is read, as unit 1 is.\"\"\"
    made = asymmetrize(plain(input_shape[0], num_outputs), fixed_per_row=2, kappa=1.0)
    net = plain(input_shape[0], num_outputs)
    for layer in (0, 2):
        mask, fixed = made[layer].mask.clone(), made[layer].fixed.clone()
        for array in (mask, fixed):
            if layer == 0:
                array[4] = array[1]
            else:
                array[:, 4] = array[:, 1]
        fix_entries(net[layer], mask, fixed)
    return net
"""


def test_a_planted_duplicate_is_named(cli, content, tmp_path):
    (tmp_path / "my_nets_planted.py").write_text(PLANTED)
    words = ["--module", "my_nets_planted:build", "--set", "data={name: iris, limit: 40}"]
    found = content(*words)
    assert (found["order"], found["log10_order"]) == ("2", pytest.approx(math.log10(2)))
    assert found["duplicate_mask_rows"] == {"0.weight": [[1, 4]]}
    assert [component["units"] for component in found["components"]] == [{"0": [1, 4]}]
    assert found["certificate"].startswith("not trivial: 2 of 11 hidden units can move")
    assert found["defect"]["best"] < 1e-9
    assert found["defect"]["units"] == [1, 4]
    status, out, err = cli("symmetry", *words)
    assert (status, err) == (0, "")
    assert "interchangeable: 0 units 1, 4\n" in out
    assert "equal mask rows of 0.weight: units 1, 4\n" in out


def test_a_custom_module_gets_masks_too(content, tmp_path):
    (tmp_path / "my_nets_plain.py").write_text(PLANTED)
    words = ["--module", "my_nets_plain:plain", "--set", "data={name: iris, limit: 40}"]
    words += ["architecture.keywords={features: 4, outputs: 3}"]
    assert content(*words)["log10_order"] == pytest.approx(log10_factorials(6, 5))
    found = content(*words, "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: 2}")
    assert found["certificate"].startswith("trivial: proved")
    assert found["free_parameters"] == 83 - 28


# -- the same everywhere


def test_two_processes_print_the_same_fingerprint(content):
    keys = [word for word in ASYMMETRIC if word != "--set"]
    command = [sys.executable, "-m", "bnn_symm.cli", "symmetry", "--set", *keys, "--json"]
    # Other hashes of strings, and other vector instructions.
    other = {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run(
        command, env=os.environ | other, capture_output=True, text=True, check=True
    )
    first, second = content(*ASYMMETRIC), json.loads(done.stdout)
    for key in ("fingerprint", "log10_order", "certificate", "components", "groups", "fixed"):
        assert first[key] == second[key]


# -- refusals

TRANSFORMED = """
import torch


class Net(torch.nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.first, self.head = torch.nn.Linear(n, 5), torch.nn.Linear(3, m)

    def forward(self, x):
        hidden = torch.fft.rfft(self.first(x), dim=1)
        return self.head(hidden.abs())


def build(input_shape, num_outputs):
    return Net(input_shape[0], num_outputs)
"""


def test_an_unknown_operation_is_named_with_its_line(refused, content, tmp_path):
    (tmp_path / "my_nets_transformed.py").write_text(TRANSFORMED)
    line = next(i for i, text in enumerate(TRANSFORMED.splitlines(), start=1) if "rfft" in text)
    network = ["--module", "my_nets_transformed:build", "--set", "data={name: iris, limit: 40}"]
    error = refused("symmetry", *network)
    assert "no rule for the operation 'fft_rfft'" in error
    assert f"my_nets_transformed.py:{line} (hidden = torch.fft.rfft(self.first(x), dim=1))" in error
    assert "--hold" in error
    found = content("--hold", *network)
    assert found["held_units"] == 5 + 3  # the units that it reads, and its outputs
    assert f"my_nets_transformed.py:{line}" in found["held_at"]
    assert "kept in place by an operation without a rule ('fft_rfft')" in found["certificate"]


def test_a_reference_of_zero_is_none(cli):
    status, out, _ = cli("symmetry", *IRIS, "inference.parameters=[head.*]")
    assert status == 0
    assert "scrambling two units" not in out
    assert "no reference" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["architecture.symmetry={kind: weight_asymmetric, fixed_per_row: 4}"],
            "layers.0: fixed_per_row=4 leaves nothing trainable of 4 inputs per row",
        ),
        (
            ["architecture.symmetry.kind=weight_asymmetric", "architecture.widths=[64]"],
            "layers.0: with 2 of 4 inputs fixed only 6 rows can differ, but it has 64, for which "
            "12 inputs would be needed; fixed_per_row 0 for this layer leaves it unchanged: type "
            "fixed_per_row=[0,32]",
        ),
        (
            [
                "architecture.symmetry={kind: weight_asymmetric, mask: densest}",
                "architecture.widths=[64]",
            ],
            "layers.0: 64 rows of 4 inputs cannot all differ and have a free entry, since there "
            "are 15 such rows; want at least 7 inputs",
        ),
        (
            ["architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [2, 2]}"],
            "fixed_per_row: got 2 values, want one, or one for each of the 3 layers: layers.0, "
            "layers.1, head",
        ),
        (
            ["architecture.symmetry={kind: block_fixed, block: 4, fixed_per_row: [2, 2, 2]}"],
            "6 units of layers.0 cannot be divided into blocks of 4",
        ),
        (
            ["architecture.symmetry.kappa=1"],
            "architecture.symmetry has kappa but no kind, and would have no effect; type --set "
            "architecture.symmetry.kind=weight_asymmetric",
        ),
        (["architecture.symmetry.kind=asymmetric"], "architecture.symmetry.kind: got 'asymmetric'"),
    ],
)
def test_invalid_settings(refused, words, message):
    assert message in refused("symmetry", *IRIS, *words)


def test_the_command_in_the_error_works(cli, refused):
    words = [*IRIS, "architecture.symmetry.kind=weight_asymmetric", "architecture.widths=[64]"]
    error = refused("symmetry", *words)
    typed = error.strip().rpartition("type ")[2]
    assert typed == "fixed_per_row=[0,32]"
    status, out, err = cli("symmetry", *words, f"architecture.symmetry.{typed}", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["fixed_parameters"] == 32 * 3


def test_the_configuration_of_a_run_is_fixed(cli, refused):
    assert cli("fit", *IRIS, "inference.num_steps=2", "--out", "run", "--quiet")[0] == 0
    assert "--set changes a configuration; run is a run, whose configuration is fixed" in refused(
        "symmetry", "run", "--set", "architecture.symmetry.kind=weight_asymmetric"
    )
    assert "--module absent:build is for code of the user; this run has none" in refused(
        "symmetry", "run", "--module", "absent:build"
    )


def test_a_run_of_a_custom_module_requires_it(cli, content, refused, tmp_path):
    (tmp_path / "my_nets_run.py").write_text(PLANTED)
    words = [
        "--module",
        "my_nets_run:build",
        "--set",
        "data={name: iris, limit: 40}",
        "inference.num_steps=2",
    ]
    assert cli("fit", *words, "--out", "run", "--quiet")[0] == 0
    assert "repeat it: --module my_nets_run:build" in refused("symmetry", "run")
    found = content("run", "--module", "my_nets_run:build")
    assert found["duplicate_mask_rows"] == {"0.weight": [[1, 4]]}
    assert found["fingerprint"] == json.loads(Path("run/run.json").read_text())["mask_fingerprint"]


def test_missing_paths(refused, tmp_path):
    assert "absent.yaml" in refused("symmetry", "absent.yaml")
    assert "absent" in refused("symmetry", "absent/run")
    (tmp_path / "folder").mkdir()
    assert "folder is not a run of bnn_symm: it has no run.json" in refused("symmetry", "folder")
    assert "no module 'absent'" in refused("symmetry", "--module", "absent:build")


def test_help_has_an_example(cli):
    status, out, err = cli("symmetry", "--help")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith(
        "example: bnn-symm symmetry --set architecture.symmetry.kind="
    )
