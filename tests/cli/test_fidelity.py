"""Test `bnn-symm fidelity`."""

import json

import numpy as np
import pandas
import pytest

from bnn_symm.runs import load_run

pytestmark = pytest.mark.thorough

TINY = ["inference.num_steps=60", "inference.num_draws=20"]
NUTS = ["inference.name=nuts", "inference.num_warmup=30", "inference.num_draws=30"]
NUTS += ["inference.max_tree_depth=3"]


@pytest.fixture
def runs(fitted):
    names = [fitted(f"vi{seed}", *TINY, f"seed={seed}") for seed in range(3)]
    return [fitted("nuts", *NUTS), *names, fitted("map", "inference.name=map", TINY[0])]


def test_methods_are_ranked_in_one_table(cli, runs, tmp_path):
    status, out, err = cli("fidelity", *runs, "-o", "out")
    assert status == 0
    assert "it has not converged" in err  # 30 draws
    assert "reference: nuts (nuts, 4 chains of 30 draws)" in out
    content = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert (content["points"], content["kind"], content["ranked_by"]) == (
        30,
        "classes",
        "total_variation",
    )
    assert content["reference"]["function"]["rhat_max"] > 1.01
    methods = content["methods"]
    assert [own["rank"] for own in methods] == [1, 2]
    values = [own["values"]["total_variation"]["value"] for own in methods]
    assert values == sorted(values)
    by_label = {own["label"]: own for own in methods}
    assert set(by_label) == {"mean_field_vi", "map"}
    several = by_label["mean_field_vi"]
    assert [own["seed"] for own in several["each"]] == [0, 1, 2]
    assert several["over_seeds"]["w1"]["n"] == 3
    assert content["floor"]["total_variation"]["value"] > 0
    assert (tmp_path / "out" / "figures" / "fidelity.png").read_bytes()[:4] == b"\x89PNG"
    _, printed, _ = cli("fidelity", *runs, "--json")
    assert json.loads(printed) == content
    assert (tmp_path / "runs" / "fidelity-1" / "fidelity.json").exists()


def test_a_run_has_no_distance_to_itself(cli, runs):
    _, printed, _ = cli("fidelity", runs[0], runs[0], "--json")
    (own,) = json.loads(printed)["methods"]
    assert own["values"]["agreement"]["value"] == 1
    assert own["values"]["w1"]["value"] == own["values"]["nll_difference"]["value"] == 0


def test_a_regression_is_compared_in_its_units(cli, fit_once):
    keys = ["data.name=gap", "architecture.widths=[4]"]
    reference, other = fit_once("a", *keys, *NUTS), fit_once("b", *keys, *TINY)
    _, printed, _ = cli("fidelity", reference, other, "--json")
    content = json.loads(printed)
    assert (content["kind"], content["ranked_by"]) == ("numbers", "w1")
    assert set(content["methods"][0]["values"]) == {"w1", "w1_relative", "nll_difference"}


def test_files_of_probabilities(cli, runs, tmp_path):
    _, printed, _ = cli("fidelity", runs[0], "vi0", "--json")
    expected = json.loads(printed)["methods"][0]["values"]
    run = load_run("nuts")
    test = run.dataset().test
    predictive = run.posterior.predict(test.x)
    p, y = predictive.probabilities().numpy(), test.y.numpy()
    np.save("p.npy", p)
    np.save("y.npy", y)
    np.savez("p.npz", probabilities=p, labels=y)
    np.savetxt("p.csv", p, delimiter=",")
    np.savetxt("y.csv", y, fmt="%d")
    pandas.DataFrame({"a": p[:, 0], "b": p[:, 1], "c": p[:, 2]}).to_csv("named.csv", index=False)
    columns = {f"probability_{i}": p[:, i] for i in range(3)}
    pandas.DataFrame({"prediction": ["a, b"] * 30, **columns, "entropy": 1.0}).to_csv(
        "predict.csv", index=False
    )
    np.savez("predict.npz", prediction=np.array(["a"] * 30), **columns)
    for file, labels in [
        ("p.npy", "y.npy"),
        ("p.npz", None),
        ("p.csv", "y.csv"),
        ("named.csv", "y.npy"),
        ("predict.csv", "y.csv"),
        ("predict.npz", "y.npy"),
    ]:
        flags = ["--labels", labels] if labels else []
        status, printed, err = cli("fidelity", "--probabilities", file, *flags, "vi0", "--json")
        assert (status, err) == (0, ""), file
        content = json.loads(printed)
        values = content["methods"][0]["values"]
        assert content["reference"]["probabilities"] == file
        assert content["floor"] is values["w1"]["value"] is None
        for name in ("agreement", "total_variation", "nll_difference"):
            assert values[name]["value"] == pytest.approx(expected[name]["value"], abs=1e-6), file


def test_what_cannot_be_compared_is_refused(refused, runs, fit_once, tmp_path):
    def other(name, *keys):
        return fit_once(name, "architecture.widths=[4]", *TINY, *keys)

    assert "name the reference and one run or more" in refused("fidelity", "nuts")
    assert "named twice" in refused("fidelity", "nuts", "vi0", "vi0")
    assert "fitted to other data" in refused("fidelity", "nuts", other("w", "data.name=wine"))
    split = other("s", "data.name=iris", "data.split_seed=1")
    assert "another split" in refused("fidelity", "nuts", split)
    assert "--labels belongs to --probabilities" in refused(
        "fidelity", "nuts", "vi0", "--labels", "y.npy"
    )
    y = load_run("vi0").dataset().test.y.numpy()
    np.save("y.npy", y)
    np.save("other.npy", (y + 1) % 3)
    p = np.full((30, 3), 1 / 3)
    for name, array in {
        "good": p,
        "logits": 5 * p - 2,
        "sums": p / 2,
        "nan": np.where(np.arange(30)[:, None] == 7, np.nan, p),
        "short": p[1:],
        "four": np.full((30, 4), 0.25),
    }.items():
        np.save(f"{name}.npy", array)
    (tmp_path / "words.csv").write_text("a,b,c\nx,y,z\n")
    (tmp_path / "broken.npz").write_text("no archive")
    np.savez("named.npz", a=p, b=y)

    def refused_file(name, labels="y.npy"):
        return refused("fidelity", "--probabilities", name, "--labels", labels, "vi0")

    assert "30 of 30 labels differ" in refused_file("good.npy", "other.npy")
    assert "if these are logits" in refused_file("logits.npy")
    assert "sum to 0.5, expected 1" in refused_file("sums.npy")
    assert "point 7 has NaN" in refused_file("nan.npy")
    assert "labels of shape (30,) for 29 points" in refused_file("short.npy")
    assert "has 3 classes, four.npy has 4 columns" in refused_file("four.npy")
    assert "words.csv cannot be read" in refused_file("words.csv")
    assert "broken.npz cannot be read" in refused_file("broken.npz")
    assert "has no array `probabilities`" in refused_file("named.npz")
    assert "no file nowhere.npy" in refused_file("nowhere.npy")
    assert "expected a name that ends in" in refused_file("vi0/run.json")
    assert "are no integers" in refused_file("good.npy", "good.npy")
    assert "has no labels" in refused("fidelity", "--probabilities", "good.npy", "vi0")


def test_other_posteriors_and_references_without_chains_are_noted(cli, runs, fitted):
    wide = fitted("wide", *TINY, "prior.scale=2")
    cold = fitted("cold", *TINY, "inference.temperature=0.5")
    _, _, err = cli("fidelity", "vi0", "vi1", wide, cold, "--json")
    assert "vi0 is no Markov chain (mean_field_vi)" in err
    assert "wide has another prior than vi0" in err
    assert "cold has temperature 0.5, vi0 has 1" in err
    assert "vi1" not in err
