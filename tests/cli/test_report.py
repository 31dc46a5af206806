"""Test `bnn-symm report`."""

import json
import re
import shutil

import pytest

from tests.report.synthetic_study import write_study
from tests.report.test_report import CHROMIUM, assert_shown
from tests.runs.fits import METHODS


def headings(text):
    return re.findall("<h2>(.*?)</h2>", text)


def rows(text):
    """Return the names of the rows of all tables."""
    cells = re.findall('<th scope="row"[^>]*>(.*?)</th>', text)
    return {re.sub("<.*?>", "", cell) for cell in cells}


@pytest.mark.thorough
def test_a_run_has_a_page_with_the_first_questions_first(cli, fitted, tmp_path):
    run = fitted("vi", *METHODS["local"])
    assert cli("report", run) == (0, "written: vi/report.html\n", "")
    text = (tmp_path / "vi" / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    metrics = json.loads((tmp_path / "vi" / "metrics.json").read_text())
    headline = re.sub("<.*?>", "", re.search('<p class="headline">(.*?)</p>', text)[1])
    assert f"NLL, nats per point {metrics['test']['nll']:.4g}" in headline
    assert (tmp_path / "vi" / "config.yaml").read_text().splitlines()[0] in text
    assert "bnn-symm fit vi/config.yaml --out DIR" in text
    assert headings(text) == [
        *("Is it any good?", "Is it calibrated?", "Confusion matrix", "Has it converged?"),
        *("What did it cost?", "How to repeat it", "Scores of all parts"),
        *("Parameters and symmetries", "Settings", "Provenance", "Glossary"),
    ]
    assert {"this run", "the base rates", "logistic regression"} <= rows(text)
    assert text.count("<img ") == 3  # reliability, confusion matrix, convergence
    answers = re.findall(r'<dt><a href="#(.*?)">', text)
    assert len(answers) == 4
    assert all(f'<section id="{anchor}">' in text for anchor in answers)
    before = text
    assert cli("report", run)[0] == 0  # replaces the old one
    assert (tmp_path / "vi" / "report.html").read_text() == before


@pytest.mark.thorough
def test_a_regression_has_its_errors_on_the_page(cli, fit_once, tmp_path):
    keys = ["data.name=diabetes", "architecture.widths=[4]", *METHODS["local"]]
    assert cli("report", fit_once("numbers", *keys), "-o", "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text()
    assert "Predicted against observed" in headings(text)
    assert "Confusion matrix" not in headings(text)
    assert "ridge regression" in rows(text)
    assert text.count("<img ") == 3  # PIT, predicted against observed, convergence


@pytest.mark.thorough
def test_a_custom_network_has_a_page_with_its_factory_in_the_commands(cli, refused, tmp_path):
    (tmp_path / "page_networks.py").write_text(
        "from torch import nn\n\n"
        "def build(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Tanh(), "
        "nn.Linear(4, num_outputs))\n"
    )
    module = ["--module", "page_networks:build"]
    keys = ["data.name=iris", *METHODS["local"]]
    assert cli("fit", "--quiet", *module, "--set", *keys, "--out", "run")[0] == 0
    assert "--module page_networks:build" in refused("report", "run")
    assert cli("report", "run", *module)[0] == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert "bnn-symm fit run/config.yaml --out DIR --module page_networks:build" in text
    assert {"this run", "the base rates", "logistic regression"} <= rows(text)
    assert text.count("<img ") == 3  # reliability, confusion matrix, convergence


@pytest.mark.thorough
def test_counts_without_a_test_split_have_a_page(cli, fit_once, tmp_path):
    lines = [f"{i % 7},{i % 5},{(i * i) % 4}" for i in range(80)]
    (tmp_path / "visits.csv").write_text("\n".join(["age,size,visits", *lines]))
    keys = [f"data.name={tmp_path}/visits.csv", "data.target=visits", "data.task=count"]
    keys += ["architecture.widths=[4]", "data.test_fraction=0", "data.validation_fraction=0"]
    assert cli("report", fit_once("counts", *keys, *METHODS["local"]), "-o", "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text()
    assert "Poisson regression" in rows(text)
    assert "Note: there are no test points" in text


@pytest.mark.thorough
def test_a_run_whose_data_changed_has_a_page_with_the_reason(cli, fit_once, tmp_path):
    (tmp_path / "own.csv").write_text("\n".join(["a,b", *(f"{i},{i * i}" for i in range(50))]))
    keys = [f"data.name={tmp_path}/own.csv", "data.target=b", "architecture.widths=[4]"]
    run = fit_once("own", *keys, *METHODS["local"])
    (tmp_path / "own.csv").write_text("\n".join(["a,b", *(f"{i},{i + 1}" for i in range(50))]))
    assert cli("report", run, "-o", "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text()
    assert "changed since the fit" in text
    assert {"Has it converged?", "What did it cost?", "How to repeat it"} <= {*headings(text)}


@pytest.mark.thorough
def test_chains_are_reported_in_all_views(cli, fitted, tmp_path):
    run = fitted("nuts", *METHODS["nuts"], "inference.chain_method=sequential")
    assert cli("report", run, "-o", "page.html") == (0, "written: page.html\n", "")
    text = (tmp_path / "page.html").read_text()
    assert not (tmp_path / "nuts" / "report.html").exists()
    assert {"raw weights", "aligned weights", "chain by chain", "functions"} <= rows(text)


def test_a_run_whose_results_were_removed_has_no_page(refused, fitted, tmp_path):
    run = fitted("vi", *METHODS["local"])
    for name in ("metrics.json", "posterior.nc"):
        (tmp_path / run / name).unlink()
    assert "posterior.nc is missing" in refused("report", run)
    assert not (tmp_path / run / "report.html").exists()


@pytest.mark.thorough
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_of_a_run_without_errors(width, cli, fitted, tmp_path):
    assert cli("report", fitted("nuts", *METHODS["nuts"]))[0] == 0
    assert_shown((tmp_path / "nuts" / "report.html").read_text(), width, tmp_path)


def test_a_study_has_a_page(cli, tmp_path):
    write_study(tmp_path / "new", bare=True)
    assert cli("report", "new") == (0, "written: new/report.html\n", "")
    status, out, _ = cli("report", "new", "--json")
    assert (status, json.loads(out)) == (0, {"report": "new/report.html"})
    assert cli("report", "new", "--quiet") == (0, "", "")
    assert "Inconclusive: " in (tmp_path / "new" / "report.html").read_text()


@pytest.mark.thorough
def test_invalid_directories_are_refused_in_one_line(refused, fitted, tmp_path):
    assert "neither a study nor a run" in refused("report", tmp_path)
    assert "there is no directory" in refused("report", "nowhere")
    run = fitted("vi", *METHODS["local"])
    assert "is for code of the user; this run has none" in refused("report", run, "--module", "a:b")
    assert f"--out {tmp_path} is a directory" in refused("report", run, "-o", tmp_path)
    assert "nowhere" in refused("report", run, "-o", "nowhere/page.html")
    shutil.rmtree(run)
    (tmp_path / "vi").mkdir()
    (tmp_path / "vi" / "summary.json").write_text("{}")
    assert "has no study_schema" in refused("report", "vi")
