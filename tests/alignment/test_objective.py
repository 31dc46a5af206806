"""The objective of alignment against squared distances between whole weights, computed one network
at a time."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from bnn_symm.alignment.objective import Cost, alignment_objective
from bnn_symm.architectures import CNNConfig, MLPConfig, ResNetConfig, SymmetryConfig, build_network
from bnn_symm.architectures.resnet import ResNet
from bnn_symm.data import Scaling
from bnn_symm.models import BayesianModel, Categorical, Prior
from bnn_symm.posteriors import GaussianPosterior, SamplePosterior
from bnn_symm.symmetry import Permutation, SymmetryGroup, symmetry_group
from tests.models.cases import normal
from tests.symmetry.networks import NETWORKS as MODULES

COSTS: list[Cost] = ["w2", "means", "precision"]
# Tensors are kept in single precision: relative to the sum of squares, roundings of 6e-8 and a
# margin for their sum.
SINGLE = 1e-6


def mlp(*widths: int, **keywords) -> nn.Module:
    return build_network(MLPConfig(widths=widths, **keywords), input_shape=(4,), num_outputs=3)


def blocks(kappa: float = 1.0) -> nn.Module:
    """Six units in each hidden layer, of which three and three are interchangeable."""
    fixed = SymmetryConfig(kind="block_fixed", block=3, fixed_per_row=(2, 3, 0), kappa=kappa)
    return mlp(6, 6, symmetry=fixed)


def resnet() -> nn.Module:
    net = ResNet(1, 3, ResNetConfig(), stage_channels=(3, 4, 5))
    net.input_shape = (1, 8, 8)  # pyright: ignore[reportArgumentType]
    return net


def cnn(**keywords) -> nn.Module:
    return build_network(CNNConfig(widths=(4, 5), **keywords), input_shape=(1, 6, 6), num_outputs=3)


def module(name: str) -> nn.Module:
    build, shape, _ = MODULES[name]
    net = build()
    net.input_shape = shape  # pyright: ignore[reportArgumentType]
    return net


NETWORKS = {
    "mlp": lambda: mlp(5, 4, norm="layer"),
    "tanh": lambda: mlp(5, 4, activation="tanh"),
    "cnn": cnn,
    "frn": lambda: cnn(norm="frn"),
    "resnet-20": resnet,
    "blocks": blocks,
    "concatenation": lambda: module("concatenation and gate"),
    "grouped convolution": lambda: module("grouped convolution"),
    "attention": lambda: module("hand attention"),
}


def model_of(net: nn.Module) -> BayesianModel:
    return BayesianModel(net.double(), Prior(), Categorical())


def gaussian(model: BayesianModel, seed: int) -> GaussianPosterior:
    loc = 0.5 * normal(model.num_parameters, seed=seed)
    scale = (0.5 * normal(model.num_parameters, seed=seed + 1000) - 1).exp()
    return GaussianPosterior(model, Scaling.identity((1,)), loc=loc, scale=scale)


Case = tuple[SymmetryGroup, GaussianPosterior, GaussianPosterior]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request) -> Case:
    model = model_of(NETWORKS[request.param]())
    return symmetry_group(model.net), gaussian(model, 1), gaussian(model, 2)


def whole(posterior, scales: bool = False) -> Tensor:
    """All effective weights in one vector, or their standard deviations: 0 where an entry is
    fixed."""
    model = posterior.model
    if scales:
        values = model.layer_scales(model.unflatten(posterior.standard_deviation()))
    else:
        values = model.layer_values(model.unflatten(posterior.mean()))
    return torch.cat([value.flatten() for value in values.values()])


def brute_force(reference, moved, cost: Cost) -> float:
    """The squared distance that a cost names, of two posteriors as they are."""
    means = (whole(reference) - whole(moved)).square()
    if cost == "means":
        return float(means.sum())
    if cost == "w2":
        return float(means.sum() + (whole(reference, True) - whole(moved, True)).square().sum())
    sd = whole(reference, True)
    free = sd > 0
    return float((means[free] / sd[free].square()).sum())


@pytest.mark.parametrize("cost", COSTS)
def test_distance_is_that_of_the_whole_weights(case, cost) -> None:
    group, reference, other = case
    if cost == "precision" and group.fixed:
        pytest.skip("fixed entries have no standard deviation; they have a test of their own")
    objective = alignment_objective(reference, other, group.spec, cost)
    size = brute_force(reference, other, cost)
    for permutation in (group.spec.identity(), group.random(1), group.random(2)):
        expected = brute_force(reference, other.permute(permutation), cost)
        assert objective.distance(permutation) == pytest.approx(expected, abs=SINGLE * size)
        assert objective.constant - 2 * objective.value(permutation) == objective.distance(
            permutation
        )


def test_distance_of_two_layers_by_hand() -> None:
    """Independent of how permutations are applied: rows of one weight, columns of the next."""
    model = model_of(mlp(3, activation="tanh"))
    group = symmetry_group(model.net)
    reference, other = gaussian(model, 1), gaussian(model, 2)
    index, sign = torch.tensor([2, 0, 1]), torch.tensor([1, -1, -1])
    permutation = group.spec.permutation({"layers.0": index}, {"layers.0": sign})
    (m_a, m_b), (s_a, s_b) = (
        (model.unflatten(one), model.unflatten(two))
        for one, two in ((reference.loc, other.loc), (reference.scale, other.scale))
    )
    expected = 0.0
    for i in range(3):
        j, flip = int(index[i]), int(sign[i])
        for a, b, turn in ((m_a, m_b, flip), (s_a, s_b, 1)):
            expected += float(
                (a["layers.0.weight"][i] - turn * b["layers.0.weight"][j]).square().sum()
            )
            expected += float((a["layers.0.bias"][i] - turn * b["layers.0.bias"][j]).square())
            expected += float(
                (a["head.weight"][:, i] - turn * b["head.weight"][:, j]).square().sum()
            )
    for a, b in ((m_a, m_b), (s_a, s_b)):
        expected += float((a["head.bias"] - b["head.bias"]).square().sum())
    assert alignment_objective(reference, other, group.spec).distance(permutation) == pytest.approx(
        expected, rel=SINGLE
    )


@pytest.mark.parametrize("cost", COSTS)
def test_distance_to_itself_is_zero_at_the_identity_only(cost) -> None:
    model = model_of(mlp(5, 4))
    group = symmetry_group(model.net)
    posterior = gaussian(model, 1)
    objective = alignment_objective(posterior, posterior, group.spec, cost)
    size = brute_force(posterior, posterior.permute(group.random(1)), cost)
    assert objective.distance(group.spec.identity()) == pytest.approx(0.0, abs=SINGLE * size)
    assert objective.distance(group.random(1)) > 0.1 * size > 0


@pytest.mark.parametrize("cost", COSTS)
def test_distance_does_not_change_when_both_are_permuted_alike(cost) -> None:
    model = model_of(mlp(5, 4, activation="tanh"))
    group = symmetry_group(model.net)
    reference, other, both = gaussian(model, 1), gaussian(model, 2), group.random("both")
    before = alignment_objective(reference, other, group.spec, cost)
    after = alignment_objective(reference.permute(both), other.permute(both), group.spec, cost)
    for permutation in (group.spec.identity(), group.random(1)):
        conjugate = both.compose(permutation).compose(both.inverse())
        assert after.distance(conjugate) == pytest.approx(before.distance(permutation), rel=SINGLE)
    assert before.distance(both) != pytest.approx(before.distance(group.spec.identity()), rel=1e-3)


def test_costs_look_at_what_they_name() -> None:
    model = model_of(mlp(5, 4))
    group = symmetry_group(model.net)
    reference, other, permutation = gaussian(model, 1), gaussian(model, 2), group.random(1)

    def scaled(posterior: GaussianPosterior, factor: float) -> GaussianPosterior:
        return GaussianPosterior(
            model, posterior.scaling, loc=posterior.loc, scale=factor * posterior.scale
        )

    def distance(first: GaussianPosterior, second: GaussianPosterior, cost: Cost) -> float:
        return alignment_objective(first, second, group.spec, cost).distance(permutation)

    wider = scaled(reference, 2.0)
    assert distance(wider, scaled(other, 3.0), "means") == distance(reference, other, "means")
    assert distance(reference, scaled(other, 3.0), "w2") > 1.1 * distance(reference, other, "w2")
    # Precisions are the reference's: a quarter of them where its standard deviations are doubled.
    assert distance(reference, scaled(other, 3.0), "precision") == distance(
        reference, other, "precision"
    )
    assert 4 * distance(wider, other, "precision") == pytest.approx(
        distance(reference, other, "precision"), rel=SINGLE
    )


def test_draws_are_compared_by_their_moments() -> None:
    model = model_of(mlp(5, 4))
    group = symmetry_group(model.net)
    reference, other = (
        SamplePosterior.from_draws(model, normal(2, 10, model.num_parameters, seed=seed))
        for seed in (1, 2)
    )
    for cost in COSTS:
        expected = brute_force(reference, other.permute(group.random(1)), cost)
        assert alignment_objective(reference, other, group.spec, cost).distance(
            group.random(1)
        ) == pytest.approx(expected, rel=1e-5)


def test_points_have_no_standard_deviations_to_compare() -> None:
    model = model_of(mlp(5, 4))
    group = symmetry_group(model.net)
    reference, other = (
        SamplePosterior.from_draws(model, normal(1, 1, model.num_parameters, seed=s))
        for s in (1, 2)
    )
    objective = alignment_objective(reference, other, group.spec, "w2")
    assert len(objective.terms) == 1
    assert objective.distance(group.random(1)) == alignment_objective(
        reference, other, group.spec, "means"
    ).distance(group.random(1))


@pytest.mark.parametrize("name", ["tanh", "resnet-20", "concatenation"])
def test_groups_that_move_change_the_parts_of_their_tensors_alone(name) -> None:
    model = model_of(NETWORKS[name]())
    group = symmetry_group(model.net)
    objective = alignment_objective(gaussian(model, 1), gaussian(model, 2), group.spec)
    before = objective.values(group.random("before"))
    units = next(iter(group.spec.groups))
    first = group.random("before")
    moved = group.spec.transposition(units, (0, 2)).compose(first)
    assert moved.differs_from(first) == {units}
    part = objective.values(moved, {units})
    assert 0 < len(part) < len(before)
    assert (before | part) == objective.values(moved)
    assert sum(part.values()) != sum(before[name] for name in part)


# -- the gain of one assignment


def replaced(current: Permutation, name: str, index: Tensor, sign: Tensor | None) -> Permutation:
    signs = dict(current.signs) if sign is None else {**current.signs, name: sign}
    return current.spec.permutation({**current.indices, name: index}, signs)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", ["mlp", "tanh", "cnn", "frn", "resnet-20", "concatenation"])
def test_gain_is_the_difference_that_moving_units_makes(name, cost) -> None:
    model = model_of(NETWORKS[name]())
    group = symmetry_group(model.net)
    objective = alignment_objective(gaussian(model, 1), gaussian(model, 2), group.spec, cost)
    current = group.random("current")
    value, size = objective.value(current), objective.constant
    for units in list(group.spec.groups)[:4]:
        gain = objective.gain(units, current)
        index = current.indices[units]
        sign = current.signs.get(units, torch.ones_like(index))

        def worth(order: Tensor, flips: Tensor, gain=gain) -> float:
            place = torch.arange(len(order))
            signed = 0.0 if gain.signed is None else flips * gain.signed[place, order]
            return float((signed + gain.unsigned[place, order]).double().sum())

        before = worth(index, sign)
        for i, j in itertools.combinations(
            range(len(index)), 2
        ):  # old unit of place j to place i, and back
            order = index.clone()
            order[[i, j]] = index[[j, i]]
            change = (
                objective.value(
                    replaced(current, units, order, sign if units in current.signs else None)
                )
                - value
            )
            assert worth(order, sign) - before == pytest.approx(change, abs=SINGLE * size)
        if units in current.signs:
            for i in range(len(index)):
                flips = sign.clone()
                flips[i] *= -1
                change = objective.value(replaced(current, units, index, flips)) - value
                assert worth(index, flips) - before == pytest.approx(change, abs=SINGLE * size)
                assert abs(change) > 0
        else:
            assert gain.signed is None


def test_gain_of_either_sign_is_the_larger() -> None:
    model = model_of(mlp(4, activation="tanh"))
    group = symmetry_group(model.net)
    gain = alignment_objective(gaussian(model, 1), gaussian(model, 2), group.spec).gain(
        "layers.0", group.spec.identity()
    )
    assert gain.signed is not None
    assert torch.equal(gain.best(), torch.maximum(gain.unflipped(), gain.unsigned - gain.signed))


def test_gain_where_a_convolution_reads_blocks_that_stay() -> None:
    """Blocks of channels belong to input channels, so that units move within their block only."""
    net = nn.Sequential(
        nn.Conv2d(2, 6, 1, groups=2),
        nn.ReLU(),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    net.input_shape = (2, 1, 1)  # pyright: ignore[reportArgumentType]
    model = model_of(net)
    group = symmetry_group(model.net)
    assert all(component.kind == "interchangeable" for component in group.components)
    objective = alignment_objective(gaussian(model, 1), gaussian(model, 2), group.spec)
    gain, identity = objective.gain("0", group.spec.identity()), group.spec.identity()
    order = torch.tensor([1, 0, 2, 3, 5, 4])
    change = objective.value(replaced(identity, "0", order, None)) - objective.value(identity)
    both = gain.unflipped()
    assert float(both[range(6), order].sum() - both.diagonal().sum()) == pytest.approx(
        change, abs=SINGLE * objective.constant
    )


# -- fixed entries


def differences(cost: Cost, kappa: float) -> list[float]:
    """Distances in a network with blocks, whose fixed values have a standard deviation of kappa."""
    model = model_of(blocks(kappa))
    group = symmetry_group(model.net)
    reference, other = gaussian(model, 1), gaussian(model, 2)
    objective = alignment_objective(reference, other, group.spec, cost)
    expected = [brute_force(reference, other.permute(group.random(key)), cost) for key in (1, 2)]
    assert min(expected) > 0
    return [
        objective.distance(group.random(key)) - e for key, e in zip((1, 2), expected, strict=True)
    ]


@pytest.mark.parametrize(
    "cost",
    [
        "w2",
        "means",
        pytest.param(
            "precision",
        ),
    ],
)
def test_fixed_entries_add_nothing(cost) -> None:
    # Their squares are in the sum and in the constant, the same numbers, and cancel; free ones are
    # rounded as above.
    for kappa in (0.0, 1.0, 30.0):
        assert differences(cost, kappa) == pytest.approx([0.0, 0.0], abs=1e-4)
