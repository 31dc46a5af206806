"""Test `bnn-symm import`, and other commands on imported runs."""

import json

import h5netcdf
import pandas
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.posteriors.external.test_foreign import NUMPYRO

pytestmark = pytest.mark.thorough

DATA = ["data.name=theirs.csv", "data.target=y", "data.standardize=false"]
NETWORK = ["architecture.widths=[5,5]", "architecture.activation=tanh"]


@pytest.fixture
def numpyro(tmp_path):
    """Write the data of the NumPyro fit, and the name map of its noise."""
    with h5netcdf.File(NUMPYRO) as file:
        x, y = file["constant_data"]["x"][...], file["observed_data"]["y"][...]
    pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}).to_csv(
        tmp_path / "theirs.csv", index=False
    )
    (tmp_path / "names.yaml").write_text("likelihood.log_noise: {name: sigma, transform: log}\n")
    return [NUMPYRO, "--names", "names.yaml", "--set", *DATA, *NETWORK]


def test_draws_of_numpyro(cli, numpyro, tmp_path) -> None:
    status, out, err = cli("import", *numpyro, "-o", "theirs")
    assert status == 0, err
    assert "numbered in order; transposed" in out
    assert "map; log of a standard deviation" in out
    assert (
        "changed by the import: layers.0.weight, layers.1.weight, head.weight, likelihood.log_noise"
        in out
    )
    assert "3 chains x 40 draws of numpyro 0.22.0" in out
    assert "not standardized" in out
    assert out.endswith("run: theirs\n")
    assert "left out, since no parameter has these names: mu" in err
    assert "assumed method nuts, target_accept_prob 0.8" in err
    assert cli("evaluate", "theirs", "--quiet")[0] == 0
    (evaluation,) = (tmp_path / "theirs" / "evaluations").glob("*.json")
    metrics = json.loads((tmp_path / "theirs" / "metrics.json").read_text())
    assert json.loads(evaluation.read_text())["nll"] == pytest.approx(
        metrics["test"]["nll"], rel=1e-6
    )
    assert cli("predict", "theirs", "theirs.csv", "-o", "p.csv", "--quiet")[0] == 0
    assert len(pandas.read_csv(tmp_path / "p.csv")) == 24
    assert cli("report", "theirs")[0] == 0
    page = (tmp_path / "theirs" / "report.html").read_text()
    assert "Another program drew these parameters (numpyro 0.22.0)" in page
    assert "bnn-symm fit" not in page
    assert page.count("<img ") == 2  # PIT, predicted against observed; there is no history


def first_draws(path, chains: int, draws: int) -> None:
    """Write a file with the first chains and draws only, which are fast to align."""
    with h5netcdf.File(NUMPYRO) as file, h5netcdf.File(path, "w") as short:
        theirs, group = file["posterior"], short.create_group("posterior")
        for name, axis in theirs.dimensions.items():
            group.dimensions[name] = {"chain": chains, "draw": draws}.get(name, axis.size)
        for name, variable in theirs.variables.items():
            if variable.dimensions[:2] == ("chain", "draw"):
                group.create_variable(
                    name, variable.dimensions, "f8", data=variable[:chains, :draws]
                )


def test_two_imported_runs_are_aligned_and_compared(cli, numpyro, tmp_path) -> None:
    first_draws(tmp_path / "short.nc", 2, 5)
    for name, keys in (("a", []), ("b", ["data.split_seed=1"])):
        status, _, err = cli("import", "short.nc", *numpyro[1:], *keys, "-o", name, "--quiet")
        assert status == 0, err
        assert "the file has no sampler statistics" in err
    status, out, err = cli("align", "a", "b", "-o", "aligned")
    assert status == 0, err
    assert "units moved" in out
    before, after = (
        json.loads((tmp_path / d / "metrics.json").read_text()) for d in ("b", "aligned/b")
    )
    assert after["test"]["nll"] == pytest.approx(before["test"]["nll"], rel=1e-4)
    record = json.loads((tmp_path / "aligned" / "b" / "run.json").read_text())
    assert (record["method"], record["derived"]["by"]) == ("imported", "align")
    _, printed, err = cli("barrier", "a", "b", "--draws", 5, "--json")
    # The same draws twice: no barrier at all once they are aligned.
    assert json.loads(printed)["height"] == pytest.approx(0, abs=1e-6), err


def test_json_and_config_in_any_order(cli, numpyro, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(
        "data: {name: theirs.csv, target: y, standardize: false}\n"
    )
    words = ["--names", "names.yaml", "--json", "--set", *NETWORK]
    orders = [
        [NUMPYRO, "-o", "a", "config.yaml", *words],
        [NUMPYRO, "config.yaml", *words, "-o", "b"],
        ["-o", "c", NUMPYRO, *words, "config.yaml"],
        [*words, "config.yaml", "-o", "d", NUMPYRO],
    ]
    for name, order in zip("abcd", orders, strict=True):
        status, printed, err = cli("import", *order)
        assert status == 0, err
        content = json.loads(printed)
        assert content["run"] == name
        assert content["metrics"]["test"]["points"] == 5
        assert content["matched"][0]["changes"] == ["transposed"]


def test_checkpoints_and_a_custom_network(cli, tmp_path) -> None:
    (tmp_path / "import_networks.py").write_text(
        "from torch import nn\n\n"
        "def build(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], 6), nn.ReLU(), nn.Linear(6, "
        "num_outputs))\n"
    )
    paths = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        paths.append(f"member{seed}.safetensors")
        save_file(net.state_dict(), tmp_path / paths[-1])
    module = ["--module", "import_networks:build"]
    status, out, err = cli("import", *paths, "-o", "ensemble", *module, "--set", "data.name=iris")
    assert status == 0, err
    assert "changed by the import: nothing" in out
    assert "2 chains x 1 draws of torch" in out
    assert "standardized (for raw values: --set data.standardize=false)" in out
    assert "assumed method deep_ensemble" in err
    for number, path in enumerate(paths):
        assert (
            cli("import", path, "-o", f"m{number}", *module, "--set", "data.name=iris", "--quiet")[
                0
            ]
            == 0
        )
    assert cli("barrier", "m0", "m1", *module, "--quiet")[0] == 0
    assert cli("evaluate", "ensemble", *module, "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [NUMPYRO],
            "likelihood.log_noise is never guessed: "
            "if sigma is the noise, add {likelihood.log_noise:",
        ),
        (["missing.nc"], "no file missing.nc"),
        ([], "no files; name NetCDF files"),
        (
            [NUMPYRO, "a.yaml", "b.yaml"],
            "two configurations, a.yaml and b.yaml; pass a name mapping to --names",
        ),
        ([NUMPYRO, "a.pt"], "NetCDF files and checkpoints together"),
        ([NUMPYRO, "--names", "missing.yaml"], "no name mapping missing.yaml"),
        (
            [NUMPYRO, "--names", "names.yaml", "--set", "architecture.widths=[4]"],
            "head.weight is missing",
        ),
        (
            [NUMPYRO, "--names", "names.yaml", "-o", "taken"],
            "taken exists and is never overwritten",
        ),
        ([NUMPYRO, "--set", "inference.steps=3"], "unknown key inference.steps"),
    ],
)
def test_wrong_input(refused, numpyro, tmp_path, words, message) -> None:
    (tmp_path / "taken").mkdir()
    place = [] if "-o" in words else ["-o", "run"]
    assert message in refused("import", "--set", *DATA, *NETWORK, *place, *words)
    assert not (tmp_path / "run").exists()


def test_help_has_an_example_and_mentions_standardization(cli) -> None:
    status, out, _ = cli("import", "--help")
    assert status == 0
    assert "example: bnn-symm import" in out
    assert "data.standardize=false" in out
