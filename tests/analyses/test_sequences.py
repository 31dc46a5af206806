"""Sequences of states of a run and of permuted copies of it, whose permutations are known."""

import pytest
import torch

from bnn_symm.analyses.barriers import BarrierOptions
from bnn_symm.analyses.sequence_barriers import barrier_sequences
from bnn_symm.analyses.sequence_results import RULES
from bnn_symm.analyses.sequences import align_run_sequences, sequence_of
from bnn_symm.errors import ConfigError
from bnn_symm.runs import load_run
from bnn_symm.runs.compatibility import save_derived_run
from bnn_symm.symmetry import symmetry_group
from tests.runs.fits import fit

pytestmark = pytest.mark.thorough

KEYS = ["data.name=iris", "architecture.widths=[5]", "inference.num_steps=40"]
POINT = ["inference.name=map", "checkpoint.keep=[20]"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a run, two permuted copies of it with their permutations, and the folder."""
    folder = tmp_path_factory.mktemp("planted")
    run = fit(folder / "run", [*KEYS, *POINT])
    group, copies = symmetry_group(run.model.net), []
    for seed in (1, 2):
        away = group.random(seed)
        states = {step: own.permute(away) for step, own in run.checkpoints().items()}
        path = folder / f"copy{seed}"
        save_derived_run(path, run, run.posterior.permute(away), {"by": "test"}, states)
        copies.append((load_run(path), away))
    return run, copies, folder


def test_one_permutation_brings_back_all_points(planted):
    run, copies, _ = planted
    for point in ("joint", "first", "last", "20"):
        found = align_run_sequences(run, [copy for copy, _ in copies], point=point)
        for own, (_, away) in zip(found, copies, strict=True):
            assert own.permutation.same_as(away.inverse())
            assert own.distances_after == pytest.approx((0, 0), abs=1e-3)
            assert min(own.distances_before) > 1
    assert sequence_of(run).steps == (20, 40)


def test_copies_have_no_barriers_and_their_cycle_is_the_identity(planted):
    run, copies, _ = planted
    result = barrier_sequences([run, *(copy for copy, _ in copies)])
    assert len(result.pairs) == 3
    for row in result.barriers:
        assert row.height == pytest.approx(0, abs=1e-6) or row.permutation == "none"
    assert result.mean(1, "none").mean > 0.01
    assert all(
        result.mean_agreement(t, rule) == 1 for t in range(2) for rule in RULES if rule != "none"
    )
    assert {(own.agreement, round(own.composed, 6)) for own in result.paths} == {(1, 0)}
    assert {(own.fixed, round(own.height, 6)) for own in result.cycles} == {(1, 0)}
    assert len(result.paths) == 6
    assert len(result.cycles) == 2
    assert result.points[0].nll > result.points[-1].nll
    content = result.to_dict()
    assert content["height"] == pytest.approx(0, abs=1e-6)
    assert len(content["barriers"]) == 3 * 2 * len(RULES)


def test_states_of_derived_runs_are_signed(planted):
    run, copies, _ = planted
    states = copies[0][0].checkpoints()
    assert list(states) == list(run.checkpoints())
    assert not torch.equal(states[20].mean(), run.checkpoints()[20].mean())
    assert (copies[0][0].path / "checkpoints/step-000000020.nc").exists()
    assert "checkpoints/step-000000020.nc" in copies[0][0].record["files"]


def test_members_of_an_ensemble_are_sequences(planted):
    keys = ["inference.name=deep_ensemble", "inference.num_members=2", "checkpoint.keep=[3]"]
    method = [*keys, "inference.chain_method=sequential"]
    run = fit(planted[2] / "ensemble", [*KEYS, *method])
    result = barrier_sequences([run], BarrierOptions(num_draws=1))
    assert [name.removeprefix(str(run.path)) for name in result.runs] == ["[0]", "[1]"]
    assert (len(result.points), result.paths, result.cycles) == (2, [], [])
    (row,) = result.rows(1, "last")
    assert row.agreement == 1
    assert result.to_dict()["standard_error"] > 0
    with pytest.raises(ConfigError, match="has 2 members"):
        align_run_sequences(run, [run])


def test_what_is_no_sequence_is_refused(planted):
    run, copies, folder = planted
    other = fit(folder / "other", [*KEYS, "inference.name=map", "checkpoint.keep=[3]"])
    none = fit(folder / "none", [*KEYS, "inference.name=map"])
    for runs, options, message in (
        ([run, other], {}, "kept states of steps 3, .*run of 20"),
        ([run, none], {}, "has kept no states"),
        ([run], {}, "is one sequence"),
        ([run, run], {"repair": True}, "repair.* does not apply to sequences"),
        ([run, run], {"matching": "precision"}, "matched by w2 or means"),
    ):
        with pytest.raises(ConfigError, match=message):
            barrier_sequences(runs, BarrierOptions(**options))
    with pytest.raises(ConfigError, match="one of the steps 20, 40"):
        align_run_sequences(run, [copies[0][0]], point="7")
