"""Test `bnn-symm diagnose`."""

import json

import h5netcdf
import pandas
import pytest

from tests.posteriors.external.test_foreign import NUMPYRO
from tests.runs.fits import METHODS

pytestmark = pytest.mark.thorough


def test_a_variational_run(cli, fitted, tmp_path):
    status, out, err = cli("diagnose", fitted("vi", *METHODS["local"]), "-o", "d")
    assert (status, err) == (0, "")
    for message in (
        "convergence",
        "a closed form has no chains",
        "elbo: The ELBO is",
        "calibration:",
        "PSIS-LOO",
    ):
        assert message in out
    content = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert {"mixing", "convergence", "elbo", "calibration", "runs"} <= set(content)
    assert {"raw", "aligned", "chainwise", "function"} <= set(content["mixing"])
    metrics = json.loads((tmp_path / "vi" / "metrics.json").read_text())
    assert content["elbo"]["value"] == metrics["elbo"]
    assert content["calibration"]["scores"]["values"]["nll"]["value"] == pytest.approx(
        metrics["test"]["nll"], rel=1e-6
    )
    pictures = [
        line.removeprefix("figure: ") for line in out.splitlines() if line.startswith("figure: ")
    ]
    assert {path.rsplit("/", 1)[1] for path in pictures} >= {
        "reliability.png",
        "posterior_scales.png",
    }
    for path in pictures:
        assert (tmp_path / path).read_bytes()[:4] == b"\x89PNG"


CHAINS = [*METHODS["nuts"], "inference.chain_method=sequential"]


def test_chains(cli, fitted, tmp_path):
    run = fitted("a", *CHAINS)
    status, printed, err = cli("diagnose", run, "--no-per-draw", "--json", "-o", "one")
    assert (status, err) == (0, "")
    content = json.loads(printed)
    for view in ("raw", "aligned", "chainwise", "function"):
        assert {"rhat_max", "ess_bulk_min", "status", "verdict"} <= set(content["mixing"][view])
    assert content["mixing"]["raw"]["num_chains"] == 2
    assert content["elbo"]["value"] is None
    assert "no density" in content["elbo"]["reason"]
    for name in ("rhat", "traces"):
        assert (tmp_path / "one" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_side_by_side(cli, fitted, tmp_path):
    runs = [fitted("a", *CHAINS), fitted("b", *CHAINS, "seed=1")]
    status, out, _ = cli("diagnose", *runs, "--no-per-draw", "-o", "both")
    assert status == 0
    assert "all runs together" in out
    content = json.loads((tmp_path / "both" / "diagnosis.json").read_text())
    assert content["mixing"]["raw"]["num_chains"] == 4
    assert [own["run"] for own in content["each"]] == ["a", "b"]
    assert len(content["convergence"]["runs"]) == 2
    assert (tmp_path / "both" / "figures" / "2-b" / "reliability.png").exists()
    point = fitted("point", *METHODS["map"])
    status, out, _ = cli("diagnose", runs[0], point, "--no-per-draw", "-o", "mixed")
    assert status == 0
    assert (
        "not defined for the runs together: point has 1 draw per chain and others have up to 20"
        in out
    )


def test_runs_of_different_networks_are_diagnosed_separately(cli, fitted, tmp_path):
    runs = [fitted("a", *METHODS["map"]), fitted("b", *METHODS["map"], "architecture.widths=[3]")]
    status, out, _ = cli("diagnose", *runs, "-o", "d")
    assert status == 0
    content = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert "architecture.widths" in content["mixing"]["reason"]
    assert content["each"][0]["mixing"]["raw"]["rhat_max"] is None
    assert "1 draw per chain" in out


def test_draws_of_another_tool(cli, tmp_path):
    with h5netcdf.File(NUMPYRO) as file:
        x, y = file["constant_data"]["x"][...], file["observed_data"]["y"][...]
    pandas.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y}).to_csv(
        tmp_path / "theirs.csv", index=False
    )
    (tmp_path / "names.yaml").write_text("likelihood.log_noise: {name: sigma, transform: log}\n")
    data = ["data.name=theirs.csv", "data.target=y", "data.standardize=false"]
    network = ["architecture.widths=[5,5]", "architecture.activation=tanh"]
    keys = ["--names", "names.yaml", "--set", *data, *network]
    status, out, err = cli("diagnose", "--draws", NUMPYRO, *keys, "--no-per-draw", "-o", "d")
    assert status == 0, err
    assert "transposed" in err
    content = json.loads((tmp_path / "d" / "diagnosis.json").read_text())
    assert content["mixing"]["raw"]["num_chains"] == 3
    assert content["mixing"]["sampler"]["divergences"] is not None
    assert "functions" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name run directories, or draws of another tool"),
        (["nowhere"], "nowhere"),
        (["a", "--draws", "b.nc"], "name run directories, or draws"),
        (["a", "--set", "seed=1"], "--set requires --draws"),
        (["--draws", "missing.nc", "--set", "data.name=iris"], "missing.nc"),
    ],
)
def test_refused(refused, words, message):
    assert message in refused("diagnose", *words)


def test_a_target_that_cannot_be_read_and_a_directory_that_exists(refused, fitted, tmp_path):
    run = fitted("vi", *METHODS["local"])
    assert "target" in refused("diagnose", run, "--target", "soon")
    assert "named twice" in refused("diagnose", run, f"./{run}")
    (tmp_path / "d").mkdir()
    assert "exists and is never overwritten" in refused("diagnose", run, "-o", "d")
