"""Runs with several target columns: fit, resume, load, predict, evaluate, compare and report."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.diagnostics import score
from bnn_symm.diagnostics.scores.score_intervals import scores_with_intervals
from bnn_symm.posteriors.io.arviz import to_groups
from bnn_symm.runs import fit_run, load_config, load_run, resume_run

from .fits import fit, history, same_bits
from .test_point_columns import Stop

pytestmark = pytest.mark.thorough

RANDOM = np.random.default_rng(0)
ROWS = 60
SIZE = RANDOM.normal(size=ROWS)
NOISE = RANDOM.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], ROWS)
TABLE = pd.DataFrame(
    {
        "size": SIZE,
        "w": RANDOM.integers(0, 3, ROWS),
        "price": 100 + 20 * SIZE + 4 * NOISE[:, 0],
        "age": np.sin(SIZE) + 0.1 * NOISE[:, 1],
    }
)
VI = "inference={name: mean_field_vi, num_steps: 60, log_every: 5, num_draws: 10}"
NUTS = "inference={name: nuts, num_warmup: 20, num_draws: 20, num_chains: 2, max_tree_depth: 3}"
CASES = {
    "vi": ["data.drop=w", VI],
    "nuts, correlated": [
        *("data.weight=w", NUTS),
        *("likelihood.name=multivariate_gaussian", "likelihood.covariance=full"),
    ],
}


@pytest.fixture(scope="module", params=CASES)
def run(request, tmp_path_factory):
    """Return a stored run; that of VI was interrupted and resumed."""
    folder = tmp_path_factory.mktemp("columns")
    TABLE.to_csv(folder / "table.csv", index=False)
    keys = [f"data.name={folder / 'table.csv'}", "data.target=[price,age]"]
    keys += ["architecture.widths=[4]", *CASES[request.param]]
    if request.param != "vi":
        fit(folder / "run", keys)
        return load_run(folder / "run")
    undisturbed = fit(folder / "undisturbed", keys)
    fit_run(load_config(None, keys), folder / "run", callbacks=[Stop()])
    resumed = resume_run(folder / "run")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    return load_run(folder / "run")


def test_units_are_those_of_each_column(run) -> None:
    data = run.dataset()
    train = data.train
    for number, name in enumerate(("price", "age")):
        scaling = data.column(number).scaling
        values = scaling.y_mean + scaling.y_scale * data.test.y[:, number].double().numpy()
        assert set(values.round(3)) <= set(TABLE[name].round(3))
        assert train.mean(train.y[:, number]) == pytest.approx(0, abs=1e-5)
    predictive = run.posterior.predict(data.test.x)
    assert predictive.outputs.shape[2:] == (len(data.test), 2)
    columns = zip(predictive.columns, data.test.y.T, strict=True)
    y = torch.stack([own.in_own_units(z) for own, z in columns], 1)
    torch.testing.assert_close(predictive.in_own_units(data.test.y), y)
    scales = [own.scale for own in predictive.columns]
    assert scales == [column.scale for column in data.scaling.y_columns]
    # The density of all columns in their own units, by hand.
    own = predictive.likelihood.log_prob(
        predictive.outputs[0, 0],
        data.test.y,
        {name: value[0, 0] for name, value in predictive.latents.items()},
    )
    got = predictive.draw_log_prob(data.test.y)[0, 0]
    torch.testing.assert_close(got, own - float(np.log(scales).sum()))
    samples = predictive.sample().double()
    assert samples.shape == (*predictive.outputs.shape[:2], len(data.test), 2)
    assert samples[..., 0].mean() == pytest.approx(100, abs=40)


def test_scores_of_columns_and_of_all_together(run) -> None:
    data = run.dataset()
    scores = run.metrics["test"]
    part = data.test
    predictive = run.posterior.predict(part.x)
    assert scores["nll"] == pytest.approx(-part.mean(predictive.log_prob(part.y)), rel=1e-5)
    for number, name in enumerate(("price", "age")):
        own, z = predictive.columns[number], part.y[:, number]
        error = part.mean((own.mean() - own.in_own_units(z)).square()) ** 0.5
        assert scores["columns"][name]["rmse"] == pytest.approx(error, rel=1e-5)
        assert scores["columns"][name]["nll"] == pytest.approx(
            -part.mean(own.log_prob(z)), rel=1e-5
        )
    for name in ("rmse", "crps", "coverage_90", "r2"):
        columns = [own[name] for own in scores["columns"].values()]
        assert scores[name] == pytest.approx(np.mean(columns))
    values = scores_with_intervals(run.posterior, part, num_resamples=10).values
    assert values["nll"].value == pytest.approx(scores["nll"], rel=1e-6)
    assert values["rmse[age]"].value == pytest.approx(scores["columns"]["age"]["rmse"], rel=1e-6)
    assert values["crps"].value == pytest.approx(scores["crps"], rel=1e-6)
    assert set(run.metrics["baselines"]) == {"the mean of the training targets", "ridge regression"}
    assert score(run.posterior, part)["columns"].keys() == {"price", "age"}


def test_predictions_have_columns_of_each_target(run, tmp_path) -> None:
    table = run.predict(TABLE[["size"]])
    names = ["mean", "sd", "epistemic_sd", "aleatoric_sd"]
    names += [f"quantile_{level}" for level in ("0.05", "0.5", "0.95")]
    assert list(table) == [f"{target}_{name}" for target in ("price", "age") for name in names]
    error = (table["price_mean"] - TABLE["price"]).abs().mean()
    assert error < 3 * TABLE["price"].std()
    TABLE[["size"]].to_csv(tmp_path / "new.csv", index=False)
    assert main(["predict", str(run.path), f"{tmp_path}/new.csv", "-o", f"{tmp_path}/p.csv"]) == 0
    written = pd.read_csv(tmp_path / "p.csv")
    np.testing.assert_allclose(written, table, rtol=1e-6)


def test_evaluate_reads_all_targets_and_names_a_missing_one(run, tmp_path, capsys) -> None:
    TABLE.to_csv(tmp_path / "all.csv", index=False)
    TABLE.drop(columns="age").to_csv(tmp_path / "one.csv", index=False)
    command = ["evaluate", str(run.path), "--json", "--data"]
    assert main([*command, f"{tmp_path}/all.csv"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["points"] == ROWS
    assert content["columns"].keys() == {"price", "age"}
    assert main([*command, f"{tmp_path}/one.csv"]) == 2
    assert "'price, age'" in capsys.readouterr().err


def test_groups_of_arviz_have_a_variable_for_each_target(run) -> None:
    groups, dims, _ = to_groups(run.posterior, run.dataset())
    points = len(run.dataset().test)
    assert groups["log_likelihood"]["y"].shape[2:] == (points,)
    for name in ("price", "age"):
        assert groups["posterior_predictive"][name].shape[2:] == (points,)
        assert groups["observed_data"][name].shape == (points,)
        assert dims[name] == ["point"]
    assert set(groups["observed_data"]["age"].round(3)) <= set(TABLE["age"].round(3))


def test_pages_and_diagnoses_have_each_target(run, tmp_path) -> None:
    assert main(["report", str(run.path), "--quiet"]) == 0
    page = (run.path / "report.html").read_text()
    assert "Is it calibrated? (price)" in page
    assert "Is it calibrated? (age)" in page
    assert main(["diagnose", str(run.path), "-o", f"{tmp_path}/d", "--quiet"]) == 0
    content = json.loads((tmp_path / "d" / "diagnosis.json").read_text())["calibration"]
    assert content["columns"].keys() == {"price", "age"}
    assert "rmse[price]" in content["scores"]["values"]
    figures = tmp_path / "d" / "figures"
    assert {"reliability_1.png", "reliability_2.png", "bands.png"} <= {
        path.name for path in figures.iterdir()
    }


def test_fidelity_and_barriers_are_defined(run, tmp_path) -> None:
    path = str(run.path)
    assert main(["fidelity", path, path, "-o", f"{tmp_path}/f", "--quiet"]) == 0
    assert main(["barrier", path, path, "-o", f"{tmp_path}/b", "--quiet"]) == 0


def test_a_likelihood_of_one_target_and_the_prior_predictive_are_refused(tmp_path, capsys) -> None:
    TABLE.to_csv(tmp_path / "table.csv", index=False)
    keys = ["--set", f"data.name={tmp_path}/table.csv", "data.target=[price,age]"]
    assert main(["fit", *keys, "likelihood.name=gaussian"]) == 2
    assert "likelihood.name=multivariate_gaussian" in capsys.readouterr().err
    assert main(["prior", *keys]) == 2
    assert "one of them in data.target" in capsys.readouterr().err
