"""Test `bnn-symm align`, `barrier` and `merge`."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from bnn_symm import load_run
from bnn_symm.randomness import numpy_generator

TINY = [
    "data.name=iris",
    "architecture.widths=[5]",
    "inference.num_steps=60",
    "inference.num_draws=10",
]


@pytest.fixture
def fitted(fit_once):
    """Fit a tiny run with `fitted(name, *keys)`."""
    return lambda name, *keys: fit_once(name, *TINY, *keys)


@pytest.fixture
def pair(fitted):
    return fitted("a"), fitted("b", "seed=1")


def test_barrier_of_two(cli, pair, tmp_path):
    status, out, err = cli("barrier", *pair, "-o", "ab", "--draws", 8)
    assert (status, err) == (0, "")
    assert "naive" in out
    assert "aligned" in out
    assert "figure: ab/figures/barrier.png" in out
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    assert {"height", "standard_error", "path", "naive", "alignment", "test", "train"} <= set(
        content
    )
    assert content["path"] == "wasserstein"
    assert content["height"] == content["test"]["height"] >= 0
    assert content["height"] == max(
        nll
        - (1 - tau) * content["test"]["marginal_nll"][0]
        - tau * content["test"]["marginal_nll"][-1]
        for tau, nll in zip(content["test"]["tau"], content["test"]["marginal_nll"], strict=True)
    )
    assert (
        content["alignment"]["distance_after"] <= content["alignment"]["coordinate_from_identity"]
    )
    assert (tmp_path / "ab" / "figures" / "barrier.png").read_bytes()[:4] == b"\x89PNG"
    _, printed, _ = cli("barrier", *pair, "-o", "again", "--draws", 8, "--json")
    assert json.loads(printed)["height"] == content["height"]
    _, printed, _ = cli("barrier", *pair, "--no-align", "--draws", 8, "--json")
    naive = json.loads(printed)
    assert naive["height"] == content["naive"]["test"]["height"]
    assert "alignment" not in naive
    assert (tmp_path / "runs" / "barrier-1" / "barrier.json").exists()


@pytest.mark.thorough
def test_temperatures_along_a_barrier(cli, pair, fitted, refused, tmp_path):
    status, out, err = cli("barrier", *pair, "-o", "ab", "--draws", 4, "--temperature-scaling")
    assert (status, err) == (0, "")
    assert "confidence, naive" in out
    assert (tmp_path / "ab" / "figures" / "barrier.png").read_bytes()[:4] == b"\x89PNG"
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    for own in (content, content["naive"]):
        scaled = own["temperature_scaled"]
        assert set(scaled) == {"height", "standard_error", "points", "test", "train"}
        assert len(scaled["test"]["temperature"]) == len(scaled["test"]["tau"])
        assert own["confidence"] == own["test"]["height"] - scaled["height"]
    flag = "--temperature-scaling"
    assert "is for two runs, got 3" in refused("barrier", *pair, "a", flag)
    assert "has none" in refused("barrier", *[fitted("n", "data.name=gap")] * 2, flag)
    keys = "data.validation_fraction=0"
    assert "validation_fraction=0.1" in refused("barrier", *[fitted("v", keys)] * 2, flag)


@pytest.mark.thorough
def test_layers_and_shares_of_a_barrier(cli, pair, fitted, refused, tmp_path):
    options = ("--layers", "--decompose", "--draws", 4)
    status, out, err = cli("barrier", *pair, "-o", "ab", *options)
    assert (status, err) == (0, "")
    assert "removed in this order" in out
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    for own in (content, content["naive"]):
        assert [row["layer"] for row in own["layers"]] == ["layers.0", "head"]
    shares = content["decomposition"]["shares"]
    assert list(shares) == ["permutation", "confidence", "spread", "remainder"]
    total = sum(share["value"] for share in shares.values())
    assert total == pytest.approx(content["naive"]["test"]["height"], abs=1e-6)
    for name in ("barrier", "layers", "decomposition"):
        assert (tmp_path / "ab" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    runs = *pair, fitted("c", "seed=2")
    status, out, err = cli("barrier", *runs, "-o", "abc", "--decompose", "--draws", 4)
    assert (status, err) == (0, "")
    content = json.loads((tmp_path / "abc" / "barrier.json").read_text())["decomposition"]
    assert (content["num_runs"], len(content["pairs"])) == (3, 3)
    assert (tmp_path / "abc" / "figures" / "decomposition.png").exists()
    assert "is for two runs, got 3" in refused("barrier", *runs, "--layers")
    assert "straight paths" in refused("barrier", *pair, "--layers", "--path", "bezier")
    for keys in (("--no-align",), ("--path", "line"), ("--path", "bezier")):
        assert "--decompose measures before and after" in refused(
            "barrier", *pair, "--decompose", *keys
        )


@pytest.mark.thorough
def test_a_run_and_itself_have_no_barrier(cli, fitted):
    _, printed, _ = cli("barrier", fitted("a"), "a", "--draws", 8, "--json")
    content = json.loads(printed)
    assert content["height"] == pytest.approx(0, abs=1e-7)
    assert content["alignment"]["num_moved"] == 0


@pytest.mark.thorough
def test_barrier_along_lines_and_curves(cli, pair, tmp_path):
    status, out, err = cli("barrier", *pair, "--path", "line", "-o", "line")
    assert (status, err) == (0, "")
    assert "straight line path, 1 draw)" in out
    assert "monotone from the initial value" in out
    content = json.loads((tmp_path / "line" / "barrier.json").read_text())
    assert [row["run"] for row in content["from_initial"]] == ["a", "b"]
    for own in (content["naive"]["shape"], content["shape"], *content["from_initial"]):
        assert len(own["test"]["loss"]) == len(own["train"]["alpha"]) == 25
    # The line is one thing, at 25 places of one and at 11 and more of the other.
    assert content["shape"]["test"]["loss"][0] == pytest.approx(
        content["test"]["marginal_nll"][0], rel=1e-6
    )
    assert content["height"] == content["test"]["height"]
    for name in ("barrier", "lines"):
        assert (tmp_path / "line" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    _, printed, _ = cli(
        "barrier", *pair, "--path", "bezier", "--curve-steps", 30, "--draws", 8, "--json"
    )
    curve = json.loads(printed)
    _, printed, _ = cli("barrier", *pair, "--draws", 8, "--json")
    straight = json.loads(printed)
    assert (curve["path"], straight["path"]) == ("bezier", "wasserstein")
    for end in (0, -1):
        assert curve["test"]["marginal_nll"][end] == straight["test"]["marginal_nll"][end]
    assert curve["train"]["expected_nll"][5] < straight["train"]["expected_nll"][5]


def test_the_line_from_the_initial_value_of_one_run(cli, fitted, tmp_path):
    status, out, _ = cli("barrier", fitted("a"), "--path", "line", "-o", "line")
    assert status == 0
    assert "initial value to a" in out
    content = json.loads((tmp_path / "line" / "barrier.json").read_text())
    (row,) = content["from_initial"]
    assert content["percent_monotone"]["train"] == (100 if row["train"]["is_monotone"] else 0)
    loss = row["train"]["loss"]
    assert row["train"]["is_monotone"] == bool(np.diff(loss).max() <= 1e-6 * max(loss))
    assert row["train"]["loss"][-1] < row["train"]["loss"][0]
    assert (tmp_path / "line" / "figures" / "lines.png").exists()


def test_unsuitable_paths_are_refused(pair, refused):
    assert "use --path line for one" in refused("barrier", "a")
    assert "--path bezier connects two runs, got 3" in refused(
        "barrier", *pair, "a", "--path", "bezier"
    )
    assert "--curve-steps 5: expected 1 or more, together with --path bezier" in refused(
        "barrier", *pair, "--curve-steps", 5
    )


@pytest.mark.thorough
def test_barrier_of_three(cli, pair, fitted, tmp_path):
    status, out, _ = cli("barrier", *pair, fitted("c", "seed=2"), "-o", "abc", "--draws", 8)
    assert status == 0
    assert "plane through 3 posteriors" in out
    content = json.loads((tmp_path / "abc" / "barrier.json").read_text())
    assert len(content["pairs"]) == len(content["naive"]["pairs"]) == 3
    assert len(content["simplex"]["weights"]) == len(content["simplex"]["marginal_nll"])
    assert content["height"] == content["simplex"]["height"]
    assert content["alignment"]["objective_after"] >= content["alignment"]["objective_before"]
    for name in ("pairs", "simplex"):
        assert (tmp_path / "abc" / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.thorough
def test_scales_are_aligned_after_permutations(cli, pair, tmp_path):
    scales = ("--symmetries", "permutation,scale")
    status, out, err = cli("barrier", *pair, "-o", "ab", "--draws", 8, *scales)
    assert (status, err) == (0, "")
    assert "+ scale" in out
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    assert list(content["ways"]) == ["naive", "aligned", "+ scale"]
    assert content["height"] == content["ways"]["+ scale"]["height"]
    scaled = content["continuous"]["+ scale"]
    assert scaled["distance_after"] < scaled["distance_permutation"]
    status, out, err = cli("align", *pair, "-o", "aligned", *scales)
    assert (status, err) == (0, "")
    before, after = (
        json.loads((tmp_path / d / "metrics.json").read_text()) for d in ("b", "aligned/b")
    )
    assert after["test"]["nll"] == pytest.approx(before["test"]["nll"], rel=1e-5)
    # Scales change the prior density, and so the ELBO.
    assert after["elbo"] != pytest.approx(before["elbo"], abs=1e-3)
    status, _, err = cli("barrier", *pair, "a", *scales)
    assert status == 2
    assert "two runs" in err
    status, _, err = cli("align", *pair, "-o", "other", "--symmetries", "permutation,flip")
    assert status == 2
    assert "permutation,scale,rotation" in err


@pytest.mark.thorough
def test_an_aligned_run_has_unchanged_predictions(cli, pair, tmp_path):
    status, out, err = cli("align", *pair, "-o", "aligned", "--singular-vectors")
    assert (status, err) == (0, "")
    assert "units moved" in out
    before, after = (
        json.loads((tmp_path / d / "metrics.json").read_text()) for d in ("b", "aligned/b")
    )
    assert after["test"]["nll"] == pytest.approx(before["test"]["nll"], rel=1e-5)
    assert after["elbo"] == pytest.approx(before["elbo"], abs=6 * before["elbo_standard_error"])
    content = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    vectors = content["alignments"][0]["singular_vectors"]
    assert all(name in out for name in vectors)
    assert sum(own["after"]["distance"] for own in vectors.values()) < sum(
        own["before"]["distance"] for own in vectors.values()
    )
    record = json.loads((tmp_path / "aligned" / "b" / "run.json").read_text())
    assert (record["status"], record["derived"]["by"]) == ("complete", "align")
    assert cli("evaluate", "aligned/b", "--quiet")[0] == 0
    _, printed, _ = cli("barrier", "a", "aligned/b", "--no-align", "--draws", 8, "--json")
    _, direct, _ = cli("barrier", "a", "b", "--draws", 8, "--json")
    assert json.loads(printed)["height"] == pytest.approx(json.loads(direct)["height"], abs=1e-5)
    assert (tmp_path / "aligned" / "figures" / "alignment.png").exists()
    content = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    (alignment,) = content["alignments"]
    assert alignment["distance_after"] <= alignment["distance_before"]
    assert sorted(alignment["permutation"]["layers.0"]) == list(range(5))


@pytest.fixture
def halves(fitted, tmp_path):
    """Runs on two disjoint halves of one set, not standardized, so that their weights mean the
    same."""
    frame = load_iris(as_frame=True).frame.sample(frac=1.0, random_state=0)
    names = []
    for name, half in (("left", frame.iloc[:75]), ("right", frame.iloc[75:])):
        half.to_csv(tmp_path / f"{name}.csv", index=False)
        keys = [
            f"data.name={name}.csv",
            "data.target=target",
            "data.task=classification",
            "data.standardize=false",
        ]
        names.append(fitted(name, *keys))
    return names


def test_a_product_of_the_same_data_twice_is_refused(pair, refused):
    assert "--rule product is for runs on disjoint data" in refused(
        "merge", *pair, "-o", "merged", "--rule", "product"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("rule", ["barycentre", "product"])
def test_merge(cli, request, rule, tmp_path):
    runs = request.getfixturevalue("pair" if rule == "barycentre" else "halves")
    status, out, err = cli("merge", *runs, "-o", "merged", "--rule", rule)
    assert status == 0, err
    content = json.loads((tmp_path / "merged" / "merge.json").read_text())
    assert content["test"]["merged"]["nll"] > 0
    assert (tmp_path / "merged" / "figures" / "merge.png").read_bytes()[:4] == b"\x89PNG"
    metrics = json.loads((tmp_path / "merged" / "metrics.json").read_text())
    assert (metrics["elbo"] is None) == (rule == "product")
    assert cli("fit", "--resume", "merged")[0] == 2
    assert all(word in out for word in ("merged", "naive", "ensemble", "parts"))
    record = json.loads((tmp_path / "merged" / "run.json").read_text())
    assert record["derived"]["rule"] == rule
    assert (
        cli("predict", "merged", "missing.csv", "-o", "p.csv")[0] == 2
    )  # it opens; the input is what is missing
    assert cli("evaluate", "merged", "--quiet")[0] == 0


def test_a_merge_averages_the_scores_of_each_target_column(cli, fitted, tmp_path):
    rows = numpy_generator(0, "two targets").normal(size=(60, 3)).round(3)
    lines = ["a,b,c", *(",".join(str(value) for value in row) for row in rows)]
    path = tmp_path / "two.csv"
    path.write_text("\n".join(lines))
    keys = [f"data.name={path}", "data.target=[b, c]", "architecture.widths=[3]"]
    runs = [fitted(name, *keys, f"seed={seed}") for seed, name in enumerate(["c", "d"])]
    assert cli("merge", *runs, "-o", "merged")[0] == 0
    test = json.loads((tmp_path / "merged" / "merge.json").read_text())["test"]
    own = [json.loads((tmp_path / run / "metrics.json").read_text())["test"] for run in runs]
    average = np.mean([scores["columns"]["b"]["rmse"] for scores in own])
    assert test["parts"]["columns"]["b"]["rmse"] == pytest.approx(average)


@pytest.mark.thorough
def test_an_asymmetric_network_has_nothing_to_align(cli, fitted):
    keys = [
        "architecture.widths=[6]",
        "architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [2, 3]}",
    ]
    status, out, _ = cli("align", fitted("a", *keys), fitted("b", "seed=1", *keys), "-o", "aligned")
    assert status == 0
    assert "there is nothing to align: trivial: proved" in out


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["architecture.widths=[6]"], "has architecture.widths [6], a has [5]"),
        (["architecture.activation=tanh"], "has architecture.activation tanh, a has relu"),
        (["data.name=wine"], "has inputs of shape"),
        (
            ["architecture.symmetry={kind: weight_asymmetric, fixed_per_row: [2, 2]}"],
            "has architecture.symmetry.kind",
        ),
    ],
)
def test_incompatible_runs_are_refused(fitted, refused, keys, message):
    fitted("a")
    fitted("b", *keys)
    for command in (
        ["barrier", "a", "b"],
        ["align", "a", "b", "-o", "x"],
        ["merge", "a", "b", "-o", "x"],
    ):
        assert message in refused(*command)


@pytest.mark.thorough
def test_other_masks_are_refused_with_both_fingerprints(fitted, refused, tmp_path):
    symmetry = "architecture.symmetry={{kind: weight_asymmetric, fixed_per_row: [2, 3], seed: {}}}"
    fitted("a", "architecture.widths=[6]", symmetry.format(0))
    fitted("b", "architecture.widths=[6]", symmetry.format(1))
    message = refused("barrier", "a", "b")
    for run in ("a", "b"):
        fingerprint = json.loads((tmp_path / run / "run.json").read_text())["mask_fingerprint"]
        assert fingerprint[:12] in message


@pytest.mark.thorough
def test_other_data_is_a_warning(cli, fitted):
    status, _, err = cli(
        "barrier", fitted("a"), fitted("b", "data.split_seed=1"), "--draws", 4, "--quiet"
    )
    assert status == 0
    assert "b was trained on another split of the data" in err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["barrier", "a"], "name two runs"),
        (["barrier", "a", "missing"], "no run at missing"),
        (["barrier", "a", "a", "--draws", "0"], "--draws 0: expected 1 or more"),
        (["barrier", "a", "a", "-o", "a"], "a exists and is never overwritten"),
        (["align", "a", "a", "a", "-o", "x"], "two of the runs are named a"),
        (["merge", "a", "-o", "x"], "name two runs"),
        (["merge", "a", "a", "-o", "a"], "a exists and is never overwritten"),
    ],
)
def test_wrong_input(fitted, refused, command, message):
    fitted("a")
    assert message in refused(*command)


@pytest.mark.thorough
def test_points_and_samples(cli, fitted):
    keys = ["inference={name: map, num_steps: 60}"]
    _, printed, _ = cli("barrier", fitted("a", *keys), fitted("b", "seed=1", *keys), "--json")
    assert json.loads(printed)["path"] == "straight line"
    nuts = [
        "inference={name: hmc, num_warmup: 5, num_draws: 6, num_chains: 2, max_num_steps: 5, "
        "chain_method: sequential}"
    ]
    runs = fitted("c", *nuts), fitted("d", "seed=1", *nuts)
    for coupling in ("moment", "assignment", "independent"):
        _, printed, _ = cli("barrier", *runs, "--coupling", coupling, "--json")
        assert json.loads(printed)["path"] == coupling


@pytest.mark.thorough
def test_the_share_of_the_initialization_needs_a_fit_from_the_same_start(
    cli, pair, fitted, refused, tmp_path
):
    control = fitted("c", "seed=1", "initial_seed=0")
    starts = [load_run(tmp_path / name).model.initial() for name in (pair[0], control, pair[1])]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    options = ("--decompose", "--draws", 4)
    status, _, err = cli("barrier", *pair, "-o", "ab", *options, "--same-start", control)
    assert (status, err) == (0, "")
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    assert list(content["decomposition"]["shares"])[-2:] == ["initialization", "remainder"]
    assert content["control"] == str(control)

    def message(control, *keys) -> str:
        return refused("barrier", *pair, "--same-start", control, *keys)

    assert "for two runs with --decompose" in message(control)
    assert "initial values of the seed 1, not 0" in message(pair[1], "--decompose")
    assert "has the seed of a, 0" in message(pair[0], "--decompose")
    other = fitted("d", "seed=1", "initial_seed=0", "inference.num_steps=9")
    assert "differs from b in inference" in message(other, "--decompose")
    for keys in ("inference.name=hmc", "inference.name=deep_ensemble", "initial=a"):
        assert "initial_seed=0 has no effect" in refused("fit", "--set", "initial_seed=0", keys)
