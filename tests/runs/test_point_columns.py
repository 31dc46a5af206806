"""Runs with columns beside the target: fit, resume, load, predict, evaluate and report."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.errors import ConfigError
from bnn_symm.inference import Callback
from bnn_symm.runs import fit_run, load_config, load_run, resume_run

from .fits import fit, history, same_bits

pytestmark = pytest.mark.thorough

RANDOM = np.random.default_rng(0)
ROWS = 60
SIZE = RANDOM.normal(size=ROWS)
TABLE = pd.DataFrame(
    {
        "size": SIZE,
        "w": RANDOM.integers(0, 4, ROWS),
        "price": 100 + 20 * SIZE + RANDOM.normal(size=ROWS),
        "kind": np.where(SIZE + RANDOM.normal(size=ROWS) > 0.5, "up", "down"),
        "days": np.exp(4 + SIZE) * RANDOM.exponential(size=ROWS),
        "dead": RANDOM.random(ROWS) < 0.7,
        "claims": RANDOM.poisson(4, ROWS),
        "years": RANDOM.uniform(10, 90, ROWS),
    }
)
CASES = {
    "weights": ["data.target=price", "data.weight=w"],
    "times": ["data.target=days", "data.event=dead", "data.weight=w"],
    "counts": ["data.target=claims", "data.exposure=years", "data.weight=w"],
    "classes": [
        *("data.target=kind", "data.weight=w"),
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
    keys = [f"data.name={folder / 'table.csv'}", "architecture.widths=[4]", "data.features=size"]
    keys += CASES[request.param]
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
    columns, own = run.predict(TABLE[["size"]]), run.predict(TABLE)
    assert len(columns) == ROWS
    if run.config.data.exposure is None:
        assert columns.equals(own)
        return
    # Without their column, exposures are 1.
    expected = columns["mean"] * TABLE["years"]
    np.testing.assert_allclose(own["mean"], expected, rtol=1e-4)
    assert not np.allclose(own["quantile_0.95"], columns["quantile_0.95"])


def test_times_are_predicted_by_medians_and_probabilities_of_a_later_event(run, capsys) -> None:
    if run.config.data.event is None:
        with pytest.raises(ConfigError, match="is for survival times"):
            run.predict(TABLE, times=[3.0])
        return
    columns = run.predict(TABLE, quantiles=[0.25], times=[10, 100.5])
    assert list(columns) == ["median", "quantile_0.25", "survival_10", "survival_100.5"]
    assert (columns["quantile_0.25"] < columns["median"]).all()
    assert (columns["survival_100.5"] < columns["survival_10"]).all()
    median = float(columns["median"][0])
    again = run.predict(TABLE.iloc[:1], times=[median]).iloc[0, -1]
    assert again == pytest.approx(0.5, abs=1e-5)
    TABLE.to_csv(run.path.parent / "in.csv", index=False)
    options = ["-o", "-", "--times", "10,100.5", "--quantiles", "0.25", "--quiet"]
    assert main(["predict", str(run.path), f"{run.path.parent}/in.csv", *options]) == 0
    header, first = capsys.readouterr().out.splitlines()[:2]
    assert header == ",".join(columns)
    assert [float(part) for part in first.split(",")] == pytest.approx(
        columns.iloc[0].tolist(), rel=1e-4
    )


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
