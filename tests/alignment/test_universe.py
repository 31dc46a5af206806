"""Aligning many: planted permutations, independence of order, cycles, paths and sequences."""

import itertools

import pytest
import torch

from bnn_symm.alignment import (
    align,
    align_pairs,
    align_sequences,
    composed_paths,
    cycles,
    synchronize,
)
from bnn_symm.alignment.objective import moments
from bnn_symm.architectures import MLPConfig, SymmetryConfig, build_network
from bnn_symm.data import Scaling
from bnn_symm.errors import ConfigError, IncompatiblePosteriors
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior, Posterior
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from tests.models.cases import normal


def model_of(
    activation: str = "relu", widths: tuple[int, ...] = (5, 4), **symmetry
) -> BayesianModel:
    config = MLPConfig(widths=widths, activation=activation, symmetry=SymmetryConfig(**symmetry))
    return BayesianModel(
        build_network(config, input_shape=(3,), num_outputs=2).double(), Prior(), Categorical()
    )


def gaussian(model: BayesianModel, loc: torch.Tensor, scale: torch.Tensor) -> GaussianPosterior:
    return GaussianPosterior(model, Scaling.identity((3,)), loc=loc, scale=scale)


def unrelated(model: BayesianModel, number: int) -> list[Posterior]:
    size = model.num_parameters
    return [
        gaussian(model, normal(size, seed=k), (0.5 * normal(size, seed=k + 50)).exp())
        for k in range(number)
    ]


def planted(
    model: BayesianModel, number: int, noise: float = 0.2
) -> tuple[list[Posterior], list[Permutation], SymmetryGroup]:
    """Noisy copies of one posterior, each permuted; and the permutations that bring them back."""
    group = symmetry_group(model.net)
    size = model.num_parameters
    loc, scale = normal(size, seed=100), (0.3 * normal(size, seed=101)).exp()
    posteriors, back = [], []
    for k in range(number):
        away = group.random(3, "away", k)
        own = gaussian(model, loc + noise * normal(size, seed=102 + k), scale)
        posteriors.append(own.permute(away))
        back.append(away.inverse())
    return posteriors, back, group


def pair_sum(posteriors: list[Posterior], permutations: list[Permutation]) -> float:
    """The objective by its definition, pair by pair."""
    spec = permutations[0].spec
    total = 0.0
    moved = []
    for posterior, permutation in zip(posteriors, permutations, strict=True):
        own = moments(posterior, spec)
        moved.append([permutation.apply(own.mean), permutation.unsigned().apply(own.sd)])
    for first, second in itertools.combinations(moved, 2):
        for mine, theirs in zip(first, second, strict=True):
            total += sum(
                float((mine[name].double() * theirs[name].double()).sum()) for name in mine
            )
    return total


# -- jointly


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_planted_permutations_of_four_are_recovered(activation):
    posteriors, back, group = planted(model_of(activation), 4)
    found = synchronize(posteriors)
    for p, q in itertools.permutations(range(4), 2):
        assert found.between(p, q).same_as(back[p].inverse().compose(back[q]))
    assert found.distance_after < 0.1 * found.distance_before
    assert max(found.function_differences) < 1e-12
    for permutation in found.permutations:
        group.check(permutation)


@pytest.mark.parametrize("number", [3, pytest.param(4, marks=pytest.mark.thorough)])
def test_the_order_of_the_arguments_changes_nothing(number):
    """Unrelated posteriors, whose objective has many optima: the search must go the same way, to
    the bit."""
    posteriors = unrelated(model_of("tanh"), number)
    found = synchronize(posteriors, restarts=1)
    assert sum(moved > 0 for moved in found.num_moved) == number - 1
    for order in list(itertools.permutations(range(number)))[1 :: 1 if number == 3 else 5]:
        other = synchronize([posteriors[place] for place in order], restarts=1, group=found.group)
        assert other.objective_after == found.objective_after
        assert other.objective_before == found.objective_before
        for place, original in enumerate(order):
            assert other.permutations[place].same_as(found.permutations[original])
        for a, b in itertools.permutations(range(number), 2):
            assert other.between(a, b).same_as(found.between(order[a], order[b]))


@pytest.mark.thorough
def test_copies_among_the_arguments_have_no_order_either():
    first, second, third = unrelated(model_of(), 3)
    found = synchronize([first, second, first, third])
    other = synchronize([third, first, first, second])
    assert found.permutations[0].same_as(found.permutations[2])
    assert found.objective_after == other.objective_after
    assert found.between(0, 3).same_as(other.between(1, 0))
    assert found.objective_after == pytest.approx(
        pair_sum([first, second, first, third], list(found.permutations)), rel=1e-6
    )


@pytest.mark.thorough
def test_the_objective_is_the_sum_over_pairs_and_gains():
    posteriors = unrelated(model_of("tanh"), 4)
    found = synchronize(posteriors)
    identity = found.group.spec.identity()
    assert found.objective_after == pytest.approx(
        pair_sum(posteriors, list(found.permutations)), rel=1e-6
    )
    assert found.objective_before == pytest.approx(pair_sum(posteriors, [identity] * 4), rel=1e-6)
    assert found.objective_after > max(found.objective_before, found.objective_random)
    squares = sum(
        align(first, second, group=found.group).distance_before
        for first, second in itertools.combinations(posteriors, 2)
    )
    assert found.distance_before == pytest.approx(squares, rel=1e-5)


def test_no_single_posterior_could_still_be_aligned_better():
    """At the end each is aligned to the sum of the others: no swap of two units, and no flip,
    gains."""
    posteriors = unrelated(model_of("tanh", widths=(4,)), 3)
    found = synchronize(posteriors)
    for place in range(3):
        for move in found.group.generators():
            changed = list(found.permutations)
            changed[place] = move.compose(changed[place])
            assert pair_sum(posteriors, changed) <= found.objective_after + 1e-5


@pytest.mark.thorough
def test_a_small_universe_is_searched_exhaustively():
    """One hidden layer of three units, three posteriors: 36 relative arrangements, the best of
    which is found."""
    found_best = 0
    for seed in range(4):
        model = model_of(widths=(3,))
        size = model.num_parameters
        posteriors = [
            gaussian(
                model,
                normal(size, seed=10 * seed + k),
                torch.full((size,), 0.1, dtype=torch.float64),
            )
            for k in range(3)
        ]
        found = synchronize(posteriors)
        spec = found.group.spec
        elements = [
            spec.permutation({"layers.0": torch.tensor(order)})
            for order in itertools.permutations(range(3))
        ]
        best = max(
            pair_sum(posteriors, [spec.identity(), first, second])
            for first, second in itertools.product(elements, repeat=2)
        )
        assert found.objective_after <= best + 1e-5
        found_best += found.objective_after == pytest.approx(best, rel=1e-6)
    assert found_best == 4


def test_pairs_compose_through_the_universe():
    posteriors = unrelated(model_of(), 3)
    found = synchronize(posteriors)
    for p, q, r in itertools.permutations(range(3)):
        assert found.between(p, q).compose(found.between(q, r)).same_as(found.between(p, r))
    assert found.between(1, 1).is_identity
    moved = found.apply(posteriors)
    torch.testing.assert_close(
        posteriors[1].permute(found.between(0, 1)).mean(),
        moved[1].permute(found.permutations[0].inverse()).mean(),
        rtol=0,
        atol=0,
    )


def test_two_are_aligned_as_a_pair_is():
    posteriors, back, _ = planted(model_of("tanh"), 2)
    found = synchronize(posteriors)
    assert found.between(0, 1).same_as(align(posteriors[0], posteriors[1]).permutation)
    assert found.between(0, 1).same_as(back[0].inverse().compose(back[1]))


def test_copies_of_one_posterior_stay_where_they_are():
    posterior = unrelated(model_of(), 1)[0]
    found = synchronize([posterior, posterior])
    assert [permutation.is_identity for permutation in found.permutations] == [True, True]
    assert found.distance_after == pytest.approx(0.0, abs=1e-5)


def test_an_asymmetric_network_has_nothing_to_align():
    model = model_of(widths=(6, 6), kind="weight_asymmetric", fixed_per_row=(0, 3, 2))
    found = synchronize(unrelated(model, 3))
    assert found.num_movable == 0
    assert found.num_moved == (0, 0, 0)
    assert found.objective_after == found.objective_before
    assert found.group.certificate.startswith("trivial")


def test_only_blocks_move_where_blocks_are_left():
    model = model_of(widths=(6, 6), kind="block_fixed", block=2, fixed_per_row=(1, 2, 2))
    posteriors, back, group = planted(model, 3, noise=0.05)
    assert not group.is_trivial
    found = synchronize(posteriors)
    assert found.between(0, 2).same_as(back[0].inverse().compose(back[2]))
    assert found.num_movable == 12
    for permutation in found.permutations:
        group.check(permutation)


def test_a_single_posterior_and_foreign_ones_are_refused():
    (posterior,) = unrelated(model_of(), 1)
    with pytest.raises(ConfigError, match="got 1 posteriors"):
        synchronize([posterior])
    with pytest.raises(ConfigError, match="got 1 posteriors"):
        align_pairs([posterior])
    with pytest.raises(IncompatiblePosteriors, match="posterior 2 has different parameters"):
        synchronize([posterior, *unrelated(model_of(widths=(5, 3)), 1)])


# -- pairs, paths and cycles


@pytest.mark.thorough
def test_paths_and_cycles_of_planted_permutations_close():
    posteriors, back, _ = planted(model_of("tanh"), 4)
    pairs = align_pairs(posteriors)
    for (p, q), permutation in pairs.permutations.items():
        assert permutation.same_as(back[p].inverse().compose(back[q]))
    for path in composed_paths(posteriors, pairs):
        assert path.composed.same_as(path.direct)
        assert set(path.agreement.values()) == {1.0}
        assert path.distance_composed == path.distance_direct < path.distance_before
    of_four = cycles(posteriors, pairs, length=4)
    assert [cycle.members for cycle in of_four] == [(0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3)]
    assert all(cycle.permutation.is_identity for cycle in of_four)


@pytest.mark.thorough
def test_cycles_of_unrelated_posteriors_do_not_close():
    posteriors = unrelated(model_of(widths=(8, 8)), 4)
    pairs = align_pairs(posteriors)
    found = cycles(posteriors, pairs)
    assert [cycle.members for cycle in found] == list(itertools.combinations(range(4), 3))
    assert min(min(cycle.share.values()) for cycle in found) < 1
    for cycle in found:
        a, b, c = cycle.members
        # A unit of the first one comes back where the third brings it after the second.
        total = (
            pairs.permutations[a, b]
            .compose(pairs.permutations[b, c])
            .compose(pairs.permutations[c, a])
        )
        assert cycle.permutation.same_as(total)
        assert cycle.fixed_points == total.fixed_points()
        assert cycle.share == {name: count / 8 for name, count in cycle.fixed_points.items()}
        assert cycle.distance > 0 or total.is_identity


@pytest.mark.thorough
def test_a_composed_path_goes_over_the_one_between():
    posteriors = unrelated(model_of(widths=(8, 8)), 3)
    pairs = align_pairs(posteriors)
    paths = composed_paths(posteriors, pairs)
    assert len(paths) == 6
    for path in paths:
        over = posteriors[path.other].permute(pairs.permutations[path.via, path.other])
        over = over.permute(pairs.permutations[path.reference, path.via])
        composed = posteriors[path.other].permute(path.composed)
        assert torch.equal(over.mean(), composed.mean())
        reference = posteriors[path.reference]
        distance = (reference.mean() - composed.mean()).square().sum()
        distance = (
            distance
            + (reference.standard_deviation() - composed.standard_deviation()).square().sum()
        )
        assert path.distance_composed == pytest.approx(float(distance), rel=1e-4)
        assert path.distance_direct <= path.distance_before
        same = path.composed.indices["layers.0"] == path.direct.indices["layers.0"]
        assert path.agreement["layers.0"] == pytest.approx(float(same.double().mean()))
    assert any(not path.composed.same_as(path.direct) for path in paths)


@pytest.mark.thorough
def test_pairs_do_not_depend_on_the_order():
    posteriors = unrelated(model_of(), 3)
    found = align_pairs(posteriors)
    backwards = align_pairs(posteriors[::-1])
    for (p, q), permutation in found.permutations.items():
        assert backwards.permutations[2 - p, 2 - q].same_as(permutation)
        assert backwards.distances[2 - p, 2 - q] == found.distances[p, q]


def test_too_short_cycles_and_paths_are_refused():
    posteriors = unrelated(model_of(), 3)
    for length in (2, 4):
        with pytest.raises(ConfigError, match=f"cycles of length {length} and 3 posteriors"):
            cycles(posteriors, length=length)
    with pytest.raises(ConfigError, match="got 2 posteriors, expected three or more"):
        composed_paths(posteriors[:2])


# -- sequences


@pytest.mark.thorough
def test_one_permutation_serves_a_whole_sequence():
    """Every checkpoint alone is too noisy for its planted permutation; all together are not."""
    model = model_of("tanh", widths=(6, 6))
    group = symmetry_group(model.net)
    size, number, noise = model.num_parameters, 8, 1.3
    away = group.random("away")
    scale = torch.full((size,), 0.1, dtype=torch.float64)
    reference, other = [], []
    for t in range(number):
        loc = normal(size, seed=t)
        reference.append(gaussian(model, loc, scale))
        other.append(gaussian(model, loc + noise * normal(size, seed=t + 40), scale).permute(away))
    together = align_sequences(reference, other)
    assert together.permutation.same_as(away.inverse())
    alone = [
        align(a, b, group=group).permutation.same_as(away.inverse())
        for a, b in zip(reference, other, strict=True)
    ]
    assert sum(alone) < number / 2
    assert len(together.distances_before) == len(together.distances_after) == number
    assert sum(together.distances_after) < sum(together.distances_before)
    assert together.num_moved == away.num_moved
    assert together.function_difference < 1e-12


def test_a_sequence_of_one_is_a_pair():
    first, second = unrelated(model_of(), 2)
    found = align_sequences([first], [second], restarts=6)
    pair = align(first, second)
    assert found.permutation.same_as(pair.permutation)
    assert found.distances_before == (pytest.approx(pair.distance_before),)
    assert found.distances_after == (pytest.approx(pair.distance_after),)


def test_sequences_of_other_lengths_are_refused():
    first, second = unrelated(model_of(), 2)
    for one, other in (([first], [second, second]), ([], [])):
        with pytest.raises(
            ConfigError, match=f"sequences of {len(one)} and {len(other)} posteriors"
        ):
            align_sequences(one, other)
