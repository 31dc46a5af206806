"""Test `--sequence` of `bnn-symm align` and `barrier`."""

import json

import pytest

pytestmark = pytest.mark.thorough

KEYS = [
    "data.name=iris",
    "architecture.widths=[4]",
    "inference.name=map",
    "inference.num_steps=40",
    "checkpoint.keep=[5]",
]


def test_an_aligned_run_needs_no_permutation(cli, fit_once, refused, tmp_path):
    first, second = fit_once("a", *KEYS), fit_once("b", *KEYS, "seed=1")
    status, out, err = cli("align", first, second, "--sequence", "-o", "aligned")
    assert (status, err) == (0, "")
    assert "one permutation, of all points together" in out
    content = json.loads((tmp_path / "aligned" / "alignment.json").read_text())
    assert content["steps"] == [5, 40]
    (alignment,) = content["alignments"]
    assert sum(alignment["distances_after"]) <= sum(alignment["distances_before"])
    assert alignment["point"] is None
    status, out, err = cli("barrier", first, "aligned/b", "--sequence", "-o", "ab")
    assert (status, err) == (0, "")
    assert "first's" in out
    content = json.loads((tmp_path / "ab" / "barrier.json").read_text())
    rows = {(row["point"], row["permutation"]): row for row in content["barriers"]}
    for point in (0, 1):
        assert rows[point, "joint"]["height"] <= rows[point, "none"]["height"] + 1e-6
    assert (tmp_path / "ab" / "figures" / "sequence.png").read_bytes()[:4] == b"\x89PNG"
    assert "--point last chooses a point of --sequence" in refused(
        "align", first, second, "--point", "last", "-o", "c"
    )
    assert "leave out --solver" in refused(
        "align", first, second, "--sequence", "--solver", "sinkhorn", "-o", "c"
    )
    assert "--no-align does not apply" in refused(
        "barrier", first, second, "--sequence", "--no-align"
    )


PRUNED = [*KEYS[:2], "inference.name=iterative_pruning", "inference.num_steps=30"]


def test_a_network_is_trained_with_masks_of_others(cli, fit_once, refused, tmp_path):
    runs = [
        fit_once(f"p{seed}", *PRUNED, "inference.num_levels=2", f"seed={seed}") for seed in range(3)
    ]
    status, out, err = cli("masks", *runs, "-o", "masks")
    assert (status, err) == (0, "")
    assert out.count("masks of ") == 2
    content = json.loads((tmp_path / "masks" / "masks.json").read_text())
    rows = {(row["source"], row["level"], row["mask"]): row for row in content["masks"]}
    assert len(rows) == len(content["masks"]) == 2 * 2 * 4
    assert {source for source, *_ in rows} == set(content["sources"]) != {content["target"]}
    assert all(row["overlap"] == 1 for row in rows.values() if row["mask"] == "own")
    assert (tmp_path / "masks" / "figures" / "masks.png").read_bytes()[:4] == b"\x89PNG"
    assert "expected levels from 1 to 2" in refused("masks", *runs, "--levels", "3", "-o", "b")
    assert "is never overwritten" in refused("masks", *runs, "-o", "masks")
    dense = fit_once("a", *KEYS)
    assert "was fitted by map and has no masks" in refused("masks", runs[0], dense, "-o", "b")
    assert not (tmp_path / "b").exists()
