"""Runs with columns beside the target: fit, resume, load, predict, evaluate and report."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.inference import Callback
from bnn_symm.runs import fit_run, load_config, load_run, resume_run

from .fits import fit, history, same_bits

RANDOM = np.random.default_rng(0)
ROWS = 60
SIZE = RANDOM.normal(size=ROWS)
TABLE = pd.DataFrame(
    {
        "size": SIZE,
        "w": RANDOM.integers(0, 4, ROWS),
        "price": 100 + 20 * SIZE + RANDOM.normal(size=ROWS),
        "kind": np.where(SIZE + RANDOM.normal(size=ROWS) > 0.5, "up", "down"),
    }
)
CASES = {
    "weights": ["data.target=price", "data.drop=kind", "data.weight=w"],
    "classes": [
        *("data.target=kind", "data.drop=price", "data.weight=w"),
        *("data.normalize_weights=true", "data.class_weights=balanced"),
    ],
}


class Stop(Callback):
    """Stop a fit after three rows of its history."""

    rows = 0

    def on_history(self, row):
        self.rows += 1

    def should_stop(self):
        return self.rows >= 3


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory):
    """Return a run that was interrupted and resumed."""
    folder = tmp_path_factory.mktemp(request.param)
    TABLE.to_csv(folder / "table.csv", index=False)
    keys = [f"data.name={folder / 'table.csv'}", "architecture.widths=[4]", *CASES[request.param]]
    keys.append("inference={name: mean_field_vi, num_steps: 60, log_every: 5, num_draws: 10}")
    undisturbed = fit(folder / "undisturbed", keys)
    fit_run(load_config(None, keys), folder / "run", callbacks=[Stop()])
    resumed = resume_run(folder / "run")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    return load_run(folder / "run")


def test_a_stored_run_has_the_data_of_its_fit(run) -> None:
    data = run.dataset()
    counts = dict(zip(TABLE["size"].round(5), TABLE["w"], strict=True))
    scaling = data.scaling
    sizes = (scaling.x_mean + scaling.x_scale * data.test.x.double().numpy())[:, 0].round(5)
    weights = data.test.weight.numpy()
    expected = np.array([counts[size] for size in sizes])
    np.testing.assert_allclose(weights / weights.sum(), expected / expected.sum(), rtol=1e-6)
    with torch.no_grad():
        log_prob = run.posterior.predict(data.test.x).log_prob(data.test.y)
    assert run.metrics["test"]["nll"] == pytest.approx(-data.test.mean(log_prob), rel=1e-6)


def test_predictions_need_features_only(run) -> None:
    columns = run.predict(TABLE[["size"]])
    assert columns.equals(run.predict(TABLE))
    assert len(columns) == ROWS


def test_files_are_scored_with_weights_if_they_have_them(run, capsys) -> None:
    folder, scores = run.path.parent, {}
    for name, table in {"with": TABLE, "without": TABLE.drop(columns="w")}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
        assert main(["evaluate", str(run.path), "--data", f"{folder}/{name}.csv", "--json"]) == 0
        scores[name] = json.loads(capsys.readouterr().out)
    part = scores["without"]
    assert part["points"] == scores["with"]["points"] == ROWS
    assert part["nll"] != scores["with"]["nll"]
    repeated = TABLE.loc[TABLE.index.repeat(TABLE["w"])].drop(columns="w")
    repeated.to_csv(folder / "repeated.csv", index=False)
    assert main(["evaluate", str(run.path), "--data", f"{folder}/repeated.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nll"] == pytest.approx(scores["with"]["nll"])


def test_the_page_of_the_run_says_how_points_count(run) -> None:
    assert main(["report", str(run.path), "--quiet"]) == 0
    assert "a point of weight w" in (run.path / "report.html").read_text()
