"""Test `bnn-symm report`."""

import json
import shutil

from tests.report.synthetic_study import write_study
from tests.runs.fits import METHODS


def test_a_run_has_a_page_with_its_scores_settings_and_commands(cli, fitted, tmp_path):
    run = fitted("vi", *METHODS["local"])
    assert cli("report", run) == (0, "written: vi/report.html\n", "")
    text = (tmp_path / "vi" / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    metrics = json.loads((tmp_path / "vi" / "metrics.json").read_text())
    assert f"NLL, nats per point {metrics['test']['nll']:.4g}" in text
    assert (tmp_path / "vi" / "config.yaml").read_text().splitlines()[0] in text
    assert "bnn-symm fit vi/config.yaml --out DIR" in text
    for title in (
        "Convergence",
        "Scores",
        "Calibration",
        "Parameters and symmetries",
        "Settings",
        "Provenance",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "<h2>Mixing</h2>" not in text  # a closed form has no chains
    assert text.count("<img ") == 1
    before = text
    assert cli("report", run)[0] == 0  # replaces the old one
    assert (tmp_path / "vi" / "report.html").read_text() == before


def test_chains_are_reported_in_all_views(cli, fitted, tmp_path):
    run = fitted("nuts", *METHODS["nuts"], "inference.chain_method=sequential")
    assert cli("report", run, "-o", "page.html") == (0, "written: page.html\n", "")
    text = (tmp_path / "page.html").read_text()
    assert not (tmp_path / "nuts" / "report.html").exists()
    for view in ("raw weights", "aligned weights", "chain by chain", "functions"):
        assert f">{view}</th>" in text


def test_a_run_whose_results_were_removed_has_no_page(refused, fitted, tmp_path):
    run = fitted("vi", *METHODS["local"])
    for name in ("metrics.json", "posterior.nc"):
        (tmp_path / run / name).unlink()
    assert "posterior.nc is missing" in refused("report", run)
    assert not (tmp_path / run / "report.html").exists()


def test_a_study_has_a_page(cli, tmp_path):
    write_study(tmp_path / "new", bare=True)
    assert cli("report", "new") == (0, "written: new/report.html\n", "")
    status, out, _ = cli("report", "new", "--json")
    assert (status, json.loads(out)) == (0, {"report": "new/report.html"})
    assert cli("report", "new", "--quiet") == (0, "", "")
    assert "Inconclusive: " in (tmp_path / "new" / "report.html").read_text()


def test_invalid_directories_are_refused_in_one_line(refused, fitted, tmp_path):
    assert "neither a study nor a run" in refused("report", tmp_path)
    assert "there is no directory" in refused("report", "nowhere")
    run = fitted("vi", *METHODS["local"])
    assert "--module is for user-defined networks" in refused("report", run, "--module", "a:b")
    assert f"--out {tmp_path} is a directory" in refused("report", run, "-o", tmp_path)
    assert "nowhere" in refused("report", run, "-o", "nowhere/page.html")
    shutil.rmtree(run)
    (tmp_path / "vi").mkdir()
    (tmp_path / "vi" / "summary.json").write_text("{}")
    assert "has no study_schema" in refused("report", "vi")
