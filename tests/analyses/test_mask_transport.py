"""Masks of iterative pruning, transported to a permuted copy of the network and to another seed."""

import pytest
import torch

from bnn_symm.analyses.mask_transport import permuted_mask, random_mask, transport_masks
from bnn_symm.analyses.sequence_barriers import barrier_sequences
from bnn_symm.analyses.sequences import align_run_sequences
from bnn_symm.errors import ConfigError
from bnn_symm.inference.optimization.iterative_pruning import prunable_weights, weights_left
from bnn_symm.runs import load_run
from bnn_symm.runs.compatibility import save_derived_run
from bnn_symm.symmetry import symmetry_group
from tests.runs.fits import fit

pytestmark = pytest.mark.thorough

KEYS = [
    "data.name=iris",
    "architecture.widths=[6]",
    "inference.name=iterative_pruning",
    "inference.num_steps=30",
    "inference.num_levels=2",
]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a run, a permuted copy of it, and the permutation."""
    folder = tmp_path_factory.mktemp("pruned")
    run = fit(folder / "run", KEYS)
    away = symmetry_group(run.model.net).random(1)
    states = {step: own.permute(away) for step, own in run.checkpoints().items()}
    path = folder / "copy"
    save_derived_run(path, run, run.posterior.permute(away), {"by": "test"}, states)
    return run, load_run(path), away


def test_levels_are_the_points_of_a_run(planted):
    run, copy, away = planted
    levels = list(run.checkpoints().values())
    weights = prunable_weights(run.model)
    assert [int(weights_left(own)[weights].sum()) for own in levels] == [42, 34, 27]
    (alignment,) = align_run_sequences(run, [copy])
    assert alignment.permutation.same_as(away.inverse())
    result = barrier_sequences([run, copy])
    assert [round(42 * own.weights_left) for own in result.points] == [42, 34, 27]


def test_a_planted_mask_is_transported_exactly(planted):
    run, copy, away = planted
    own = weights_left(run.posterior)
    moved = permuted_mask(run.model, own, away)
    assert torch.equal(moved, weights_left(copy.posterior))
    assert not torch.equal(moved, own)
    for row in transport_masks(run, [copy], levels=[2]):
        if row.mask == "transported":
            assert row.overlap == 1
        if row.mask in ("own", "transported"):
            scores = row.nll, row.error
            own_scores = scores if row.mask == "own" else own_scores
            assert scores == own_scores  # the level is a function of its mask
        if row.mask in ("untransported", "random"):
            assert row.overlap < 1
        assert row.weights_left == pytest.approx(27 / 42)


def test_random_masks_have_as_many_weights_in_each_tensor(planted):
    run, _, _ = planted
    mask = weights_left(run.posterior)
    other = random_mask(run.model, mask, seed=0)
    assert not torch.equal(mask, other)
    for name, own in run.model.unflatten(other).items():
        assert int(own.sum()) == int(run.model.unflatten(mask)[name].sum())


def test_runs_without_masks_are_refused(planted, tmp_path):
    run, copy, _ = planted
    dense = fit(tmp_path / "dense", [*KEYS[:2], "inference.name=map", "inference.num_steps=5"])
    other = fit(tmp_path / "other", [*KEYS, "inference.fraction=0.5"])
    for source, target, levels, message in (
        (run, dense, (), "was fitted by map and has no masks"),
        (run, other, (), "have different settings"),
        (run, copy, (), "derived from another run"),
        (copy, run, (3,), "levels from 1 to 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            transport_masks(target, [source], levels=levels)
    with pytest.raises(ConfigError, match="keeps the states at the ends of its 3 levels"):
        fit(tmp_path / "kept", [*KEYS, "checkpoint.keep=[1]"])
