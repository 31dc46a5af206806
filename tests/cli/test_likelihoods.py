"""Every likelihood from the command line: fit, save, load, predict and evaluate."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from bnn_symm.models import Ordinal
from bnn_symm.runs import load_run

LEVELS = ["low", "medium", "high", "top"]
POINTS = 60


def targets(x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a target that fits each likelihood."""
    rate = np.exp(0.5 + 0.8 * x[:, 0])
    counts = rng.poisson(rate * rng.gamma(1, 1, size=len(x)))
    zeros = np.where(rng.random(len(x)) < 0.4, 0, rng.poisson(rate))
    levels = np.array(LEVELS)[np.arange(len(x)) % 4]  # every class in every split
    return {
        "student_t": 5 + 3 * x[:, 0] + rng.standard_t(3, size=len(x)),
        "gaussian_mixture": rng.choice([-1.0, 1.0], len(x)) * (2 + x[:, 0]),
        "negative_binomial": counts,
        "zero_inflated_poisson": zeros,
        "zero_inflated_negative_binomial": zeros,
        "ordinal": levels,
        "weibull": np.exp(4 + x[:, 0]) * rng.exponential(size=len(x)),
        "lognormal": np.exp(4 + x[:, 0] + rng.normal(size=len(x))),
    }


TIMES = ("weibull", "lognormal")
NAMES = list(targets(np.zeros((1, 2)), np.random.default_rng(0)))


@pytest.fixture
def table(tmp_path):
    """Write a file with a target for a likelihood; return the keys of a fit to it."""

    def write(name: str, *more: str) -> list[str]:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(POINTS, 2))
        frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": targets(x, rng)[name]})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        keys = [f"data.name={name}.csv", "data.target=y", f"likelihood.name={name}"]
        small = ["architecture.widths=[3]", "inference.name=map", "inference.num_steps=5"]
        return ["--set", *keys, *small, *more]

    return write


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_fit_load_predict_and_evaluate(cli, table, tmp_path, name):
    more = [f"data.levels=[{','.join(LEVELS)}]"] if name == "ordinal" else []
    status, _, err = cli("fit", "--quiet", *table(name, *more), "--out", "run")
    assert status == 0, err
    run = load_run("run")
    assert run.model.likelihood.name == name
    if name == "ordinal":
        assert run.model.likelihood == Ordinal(num_classes=4)
        assert run.preprocessing.class_labels == tuple(LEVELS)
        assert "from lowest to highest: low, medium, high, top" in err
    predictive = run.posterior.predict(run.preprocessing.encode(pd.read_csv(f"{name}.csv")))

    status, _, err = cli("predict", "run", f"{name}.csv", "-o", "out.csv", "--quiet")
    assert status == 0, err
    with open("out.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == POINTS
    if name == "ordinal":
        stored = np.array([[float(row[f"probability_{own}"]) for own in LEVELS] for row in rows])
        np.testing.assert_allclose(stored, predictive.probabilities().numpy(), atol=1e-6)
    elif name in TIMES:
        median = [float(row["median"]) for row in rows]
        np.testing.assert_allclose(median, predictive.quantiles([0.5])[0].numpy(), rtol=1e-4)
    else:
        mean = [float(row["mean"]) for row in rows]
        np.testing.assert_allclose(mean, predictive.mean().numpy(), rtol=1e-4, atol=1e-5)

    status, _, err = cli("evaluate", "run", "--data", f"{name}.csv", "--quiet")
    assert status == 0, err
    (file,) = (tmp_path / "run" / "evaluations").iterdir()
    content = json.loads(file.read_text())
    wanted = {"nll", "accuracy", "ece", "rps"} if name == "ordinal" else {"nll", "rmse", "crps"}
    wanted = {"nll", "concordance"} if name in TIMES else wanted
    scores = next(iter_scores(content))
    assert wanted <= set(scores)
    assert all(np.isfinite(scores[key]) for key in wanted)


def iter_scores(content):
    """Yield the mappings of a JSON document that have an NLL."""
    if isinstance(content, dict):
        if "nll" in content:
            yield content
        for value in content.values():
            yield from iter_scores(value)


def test_the_order_of_texts_is_that_of_the_alphabet_unless_levels_are_declared(cli, table):
    _, _, err = cli("fit", "--quiet", *table("ordinal"), "--out", "run")
    assert "from lowest to highest: high, low, medium, top; this is the order of" in err
    assert "data.levels=" in err


@pytest.mark.parametrize(
    ("name", "more", "parts"),
    [
        ("ordinal", ["data.levels=[low,medium,high]"], ["class 'top'", "data.levels"]),
        ("ordinal", ["data.levels=[low,medium,high,best]"], ["'best'", "does not have"]),
        ("ordinal", ["data.levels=[low,low,high]"], ["low is there twice"]),
        ("ordinal", ["data.task=regression"], ["expected a finite number"]),
        ("student_t", ["likelihood.degrees_of_freedom=2"], ["greater than 2"]),
        ("student_t", ["data.levels=[1,2]", "data.task=regression"], ["data.levels lists classes"]),
        ("gaussian_mixture", ["likelihood.num_components=1"], ["greater than or equal to 2"]),
        ("gaussian_mixture", ["likelihood.name=negative_binomial"], ["expected counts 0, 1, 2"]),
        ("negative_binomial", ["likelihood.dispersion=0"], ["greater than 0"]),
        ("negative_binomial", ["likelihood.noise=1"], ["belongs to gaussian, student_t"]),
        ("zero_inflated_poisson", ["data.task=regression"], ["is for count"]),
        ("zero_inflated_poisson", ["likelihood.exposure=true"], ["name their column"]),
        ("student_t", ["data.event=a"], ["event 'a' has the values"]),
        ("lognormal", ["data.task=regression"], ["is for survival"]),
    ],
)
def test_wrong_targets_and_settings_are_one_line(refused, table, name, more, parts):
    line = refused("fit", "--quiet", *table(name, *more), "--out", "run")
    for part in parts:
        assert part in line, line


def test_two_classes_have_no_order(refused):
    line = refused("fit", "--quiet", "--set", "data.name=breast_cancer", "likelihood.name=ordinal")
    assert "likelihood.name=bernoulli" in line
