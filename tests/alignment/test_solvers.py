"""Solvers of the objective against brute force over whole groups, and what each promises by
itself."""

import functools
import itertools

import pytest
import torch
from torch import nn

from bnn_symm.alignment import align
from bnn_symm.alignment.objective import Objective, alignment_objective
from bnn_symm.alignment.solvers.assignment import assign, movable_groups
from bnn_symm.alignment.solvers.channels import SignGains
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.frank_wolfe import frank_wolfe
from bnn_symm.alignment.solvers.gains import Gain
from bnn_symm.alignment.solvers.relaxation import (
    halfway_to_center,
    permutation_point,
    relaxed_gains,
)
from bnn_symm.alignment.solvers.sinkhorn import balanced, sinkhorn
from bnn_symm.architectures.asymmetric.fixed_entries import fix_entries
from bnn_symm.symmetry import Component, SymmetryGroup, symmetry_group
from tests.alignment.test_objective import NETWORKS, gaussian, mlp, model_of
from tests.models.cases import normal
from tests.symmetry.test_group import every_element

# Relative differences of sums in double precision, of single-precision numbers: none that counts.
EXACT = 1e-9
SOLVERS = {"coordinate": coordinate, "frank_wolfe": frank_wolfe, "sinkhorn": sinkhorn}


def problem(net: nn.Module, seed: int, cost="w2") -> tuple[Objective, SymmetryGroup]:
    model = model_of(net)
    group = symmetry_group(model.net)
    return alignment_objective(
        gaussian(model, seed), gaussian(model, seed + 500), group.spec, cost
    ), group


# -- against all permutations

TINY = {
    "relu, 3 and 3": lambda: mlp(3, 3),
    "tanh, 2 and 2, with signs": lambda: mlp(2, 2, activation="tanh"),
}


@pytest.mark.parametrize(
    "name", ["relu, 3 and 3", pytest.param("tanh, 2 and 2, with signs", marks=pytest.mark.thorough)]
)
def test_the_optimum_of_tiny_networks_is_found(name) -> None:
    """Of 30 unrelated pairs 30 reach the optimum over all permutations; coordinate matching alone
    in 28 and 21."""
    pairs, found, alone = 30, 0, 0
    model = model_of(TINY[name]())
    group = symmetry_group(model.net)
    elements = list(every_element(group.spec))
    assert len(elements) == group.order
    for seed in range(pairs):
        reference, other = gaussian(model, seed), gaussian(model, seed + 500)
        objective = alignment_objective(reference, other, group.spec)
        best = min(objective.distance(element) for element in elements)
        result = align(reference, other, group=group)
        assert result.distance_after >= best * (1 - EXACT)
        assert result.distance_after <= result.coordinate_from_identity * (1 + EXACT)
        found += result.distance_after <= best * (1 + EXACT)
        alone += result.coordinate_from_identity <= best * (1 + EXACT)
    assert found >= 28
    assert alone < found  # or restarts and the other solvers would be idle


def every_assignment(size: int, signed: bool):
    signs = itertools.product([1, -1], repeat=size) if signed else [(1,) * size]
    return itertools.product(itertools.permutations(range(size)), signs)


def worth(gain: Gain, index, sign) -> float:
    place = range(len(index))
    signed = 0.0 if gain.signed is None else torch.as_tensor(sign) * gain.signed[place, index]
    return float((signed + gain.unsigned[place, index]).sum())


@pytest.mark.parametrize("kind", ["interchangeable", "interchangeable, with signs"])
@pytest.mark.parametrize("seed", range(5))
def test_one_assignment_is_the_best_of_all(kind, seed) -> None:
    flips = kind == "interchangeable, with signs"
    gain = Gain(
        normal(4, 4, seed=seed + 100).float(), normal(4, 4, seed=seed).float() if flips else None
    )
    index, sign = assign([Component({"units": (0, 1, 2, 3)}, kind, 24)], gain)
    best = max(worth(gain, list(order), signs) for order, signs in every_assignment(4, flips))
    assert worth(gain, index.tolist(), sign) == pytest.approx(best, rel=1e-6)
    assert flips or bool((sign == 1).all())


def test_units_of_other_cells_stay() -> None:
    gain = Gain(normal(6, 6).float())
    cells = [Component({"units": units}, "interchangeable", 2) for units in ((0, 4), (1, 5))]
    index, sign = assign(cells, gain)
    assert index[[2, 3]].tolist() == [2, 3]
    assert set(index[[0, 4]].tolist()) == {0, 4}
    assert set(index[[1, 5]].tolist()) == {1, 5}
    assert bool((sign == 1).all())


def opposite_units() -> nn.Module:
    """Two pairs of tanh units, each with fixed incoming weights of opposite sign: they swap only
    with a flip."""
    net = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Tanh(), nn.Linear(4, 3))
    mask = torch.tensor([[False, True]] * 4)
    fix_entries(net[0], mask, torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [-2.0, 0.0]]))
    net.input_shape = (2,)  # pyright: ignore[reportArgumentType]
    return net


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("solver", SOLVERS)
def test_units_that_swap_only_with_a_flip(solver, seed) -> None:
    model = model_of(opposite_units())
    group = symmetry_group(model.net)
    assert [first * second for first, second in (c.orientation for c in group.components)] == [
        -1,
        -1,
    ]
    elements = [e for e in every_element(group.spec) if group.represents(e)]
    assert len(elements) == group.order == 4
    other = gaussian(model, seed)
    for planted in elements:
        objective = alignment_objective(other.permute(planted), other, group.spec)
        found, value = SOLVERS[solver](objective, group, group.spec.identity(), "key")
        assert found.same_as(planted)
        assert value == max(objective.value(element) for element in elements)


# -- what each promises


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "name",
    [
        *("mlp", "tanh", "frn", "blocks", "grouped convolution"),
        pytest.param("attention", marks=pytest.mark.thorough),
    ],
)
def test_a_solver_stays_in_the_group_and_never_falls_below_its_start(name, solver) -> None:
    objective, group = problem(NETWORKS[name](), 1)
    for number in range(3):
        start = group.spec.identity() if number == 0 else group.random("start", number)
        found, value = SOLVERS[solver](objective, group, start, "key")
        found.check()
        group.check(found)
        assert value == objective.value(found)
        assert value > objective.value(start)
        again, same = SOLVERS[solver](objective, group, start, "key")
        assert again.same_as(found)
        assert same == value


@pytest.mark.parametrize("name", ["mlp", "tanh", "cnn"])
def test_frank_wolfe_is_never_below_a_random_start_of_many(name) -> None:
    model = model_of(NETWORKS[name]())
    group = symmetry_group(model.net)
    for seed in range(10):
        objective = alignment_objective(
            gaussian(model, seed), gaussian(model, seed + 500), group.spec
        )
        start = group.random(seed)
        assert frank_wolfe(objective, group, start, seed)[1] >= objective.value(start)


@pytest.mark.parametrize("name", ["mlp", "tanh", "frn"])
def test_no_single_swap_or_flip_improves_where_coordinate_stops(name) -> None:
    objective, group = problem(NETWORKS[name](), 3)
    found, value = coordinate(objective, group, group.spec.identity(), "key")
    for move in group.generators():
        assert objective.value(move.compose(found)) <= value + EXACT * abs(value)
    # Nor does any whole assignment of one group.
    for name_of, cells in movable_groups(group).items():
        index, sign = assign(cells, objective.gain(name_of, found))
        assert torch.equal(index, found.indices[name_of])
        assert torch.equal(sign, found.signs.get(name_of, torch.ones_like(sign)))


def test_other_keys_take_the_groups_in_another_order() -> None:
    objective, group = problem(mlp(6, 6, 6), 2)
    values = {
        round(coordinate(objective, group, group.random("far"), key)[1], 6) for key in range(12)
    }
    assert len(values) > 1  # or restarts would only repeat themselves


# -- gains that follow a permutation

# Tensors are in single precision: a gain is a sum of at most a hundred numbers of order one,
# corrected a few times.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("cost", ["w2", "precision"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gains_follow_the_permutation(name, cost) -> None:
    """Where few units have moved, many, only signs, or none."""
    objective, group = problem(NETWORKS[name](), 1, cost)
    if not any(component.kind == "entangled" for component in group.components):
        steps = [
            *itertools.islice(group.generators(), 5),
            group.spec.identity(),
            group.random("far"),
        ]
    else:
        steps = [group.random(number) for number in range(3)]
    gains, current = objective.gains(), group.random("current")
    for step in [group.spec.identity(), *steps]:
        current = step.compose(current)
        for units in group.spec.groups:
            kept, fresh = gains.gain(units, current), objective.gain(units, current)
            torch.testing.assert_close(kept.unsigned, fresh.unsigned, **CLOSE)
            assert (
                (kept.signed is None)
                == (fresh.signed is None)
                == (not group.spec.groups[units].signed)
            )
            if kept.signed is not None and fresh.signed is not None:
                torch.testing.assert_close(kept.signed, fresh.signed, **CLOSE)


# -- the relaxation


@pytest.mark.parametrize("cost", ["w2", "precision"])
@pytest.mark.parametrize("name", ["mlp", "tanh", "cnn", "frn", "resnet-20", "concatenation"])
def test_relaxed_gains_at_permutations_are_gains(name, cost) -> None:
    objective, group = problem(NETWORKS[name](), 1, cost)
    element = group.random(1)
    point = permutation_point(element, movable_groups(group))
    gains = relaxed_gains(objective, group.spec.identity(), point)
    for units, gain in gains.items():
        expected = objective.gain(units, element)
        torch.testing.assert_close(gain.unsigned, expected.unsigned, **CLOSE)
        assert (gain.signed is None) == (expected.signed is None)
        if gain.signed is not None:
            torch.testing.assert_close(gain.signed, expected.signed, **CLOSE)
        assert point.inner({units: gain}) == pytest.approx(expected.value(element, units), rel=1e-4)


@pytest.mark.parametrize("name", ["tanh", "cnn", "resnet-20", "concatenation"])
def test_gains_are_linear_along_a_step(name) -> None:
    objective, group = problem(NETWORKS[name](), 1)
    start, vertex = group.random(1), group.random(2)
    point = halfway_to_center(start, movable_groups(group))
    moved = relaxed_gains(objective, start, point)
    for units, gain in moved.items():
        gain.move(objective.gain(units, vertex), 0.3)
    point.move(vertex, 0.3)
    for units, expected in relaxed_gains(objective, start, point).items():
        torch.testing.assert_close(moved[units].unsigned, expected.unsigned, **CLOSE)
        if expected.signed is not None:
            torch.testing.assert_close(moved[units].signed, expected.signed, **CLOSE)


@pytest.mark.parametrize("name", ["mlp", "tanh", "blocks"])
def test_half_way_to_the_center_is_an_average_of_permutations(name) -> None:
    """Over all turns of a cell, and both signs where units may flip: rows and columns sum to
    one."""
    _, group = problem(NETWORKS[name](), 1)
    start = group.random(1)
    cells = movable_groups(group)
    point = halfway_to_center(start, cells)
    for units, matrix in point.unsigned.items():
        torch.testing.assert_close(matrix.sum(0), torch.ones(len(matrix)))
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)))
        assert bool((matrix >= 0).all())
        if units in point.signed:
            assert bool((point.signed[units].abs() <= matrix + 1e-6).all())
    assert point.nearest(group.spec.identity(), cells).same_as(start)


# -- Sinkhorn matching


@pytest.mark.thorough
@pytest.mark.parametrize("name", TINY)
def test_sinkhorn_from_one_start_finds_the_optimum_of_tiny_networks(name) -> None:
    """Of 30 unrelated pairs at least 27: an ascent that ends at a local optimum now and then is no
    defect."""
    model = model_of(TINY[name]())
    group = symmetry_group(model.net)
    elements, found = list(every_element(group.spec)), 0
    for seed in range(30):
        objective = alignment_objective(
            gaussian(model, seed), gaussian(model, seed + 500), group.spec
        )
        best = max(objective.value(element) for element in elements)
        value = sinkhorn(objective, group, group.spec.identity(), "key")[1]
        assert value <= best * (1 + EXACT)
        found += value >= best * (1 - EXACT)
    assert found >= 27


@pytest.mark.parametrize("name", ["mlp", "tanh", "cnn", "blocks"])
@pytest.mark.parametrize("from_identity", [True, False])
def test_sinkhorn_recovers_a_planted_permutation(name, from_identity) -> None:
    model = model_of(NETWORKS[name]())
    group = symmetry_group(model.net)
    other, planted = gaussian(model, 1), group.random("plant")
    objective = alignment_objective(other.permute(planted), other, group.spec)
    start = group.spec.identity() if from_identity else group.random("start")
    assert sinkhorn(objective, group, start, "key")[0].same_as(planted)


@pytest.mark.thorough
def test_sinkhorn_is_above_coordinate_matching_on_unrelated_networks() -> None:
    """More than 1 % above in the mean of 8 pairs, and nowhere more than 1 % below."""
    model = model_of(mlp(12, 12, 12))
    group = symmetry_group(model.net)
    ratios = []
    for seed in range(8):
        objective = alignment_objective(
            gaussian(model, seed), gaussian(model, seed + 500), group.spec
        )
        values = [
            solver(objective, group, group.spec.identity(), "key")[1]
            for solver in (sinkhorn, coordinate)
        ]
        ratios.append(values[0] / values[1])
    assert min(ratios) > 0.99
    assert sum(ratios) / len(ratios) > 1.01


def test_balancing_gives_rows_and_columns_that_sum_to_one() -> None:
    matrix = balanced(normal(8, 8).float())
    torch.testing.assert_close(matrix.sum(1), torch.ones(8))
    torch.testing.assert_close(matrix.sum(0), torch.ones(8), rtol=0, atol=1e-3)


def test_balancing_keeps_ratios_within_two_rows_and_columns() -> None:
    """Scaling rows and columns leaves m_ij m_kl / (m_il m_kj) as it is; one matrix alone has these
    and such sums."""
    logits = normal(5, 5).float()
    before, after = logits, balanced(logits).log()

    def interactions(own):
        return own[:1, :1] + own - own[:, :1] - own[:1]

    torch.testing.assert_close(interactions(after), interactions(before), rtol=1e-4, atol=1e-4)


def test_the_best_signs_of_channels_are_those_of_a_search_over_all():
    """Four layers, of which three share filters with the second."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, 5, 5, generator=generator)
    names = ["a", "b", "c", "d", "e"]
    gains = SignGains(
        constant=draw(),
        linear={name: draw() for name in names},
        pairs={("a", "b"): draw(), ("b", "c"): draw(), ("b", "d"): draw()},
    )
    values = []
    for signs in itertools.product([1, -1], repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        linear = sum(sign[name] * gains.linear[name] for name in names)
        values.append(
            gains.constant
            + linear
            + sum(sign[a] * sign[b] * factor for (a, b), factor in gains.pairs.items())
        )
    best, found = gains.best()
    torch.testing.assert_close(best, torch.stack(values).amax(0))
    value = gains.constant + sum(found[name] * gains.linear[name] for name in names)
    value += sum(found[a] * found[b] * factor for (a, b), factor in gains.pairs.items())
    torch.testing.assert_close(value, best)
