"""The defect is nothing where a swap is a symmetry, grows with what is fixed, and looks where it is
smallest."""

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
)
from bnn_symm.data import DataConfig, Dataset, Split, load_dataset
from bnn_symm.diagnostics import SymmetryDefect, symmetry_defect
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import PermutationSpec, permutation_spec
from tests.symmetry.networks import Attention, Transformer, convolutions

# The package has a function of the module's name.
defect_module = sys.modules["bnn_symm.diagnostics.elbo.symmetry_defect"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataConfig(name="digits", limit=120))


def model_of(
    dataset: Dataset, widths: tuple[int, ...] = (16, 12), activation: Any = "relu", **keys: Any
):
    config = MLPConfig(widths=widths, activation=activation, symmetry=SymmetryConfig(**keys))
    net = build_network(config, input_shape=dataset.input_shape, num_outputs=dataset.num_outputs)
    return BayesianModel(
        net, Prior(), Categorical() if dataset.task == "classification" else Gaussian()
    )


def defect_of(dataset: Dataset, **keys: Any) -> SymmetryDefect:
    model = model_of(dataset, **keys)
    found = symmetry_defect(model, dataset.train, model.initial())
    assert found is not None
    return found


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "standard"},
        {"kind": "standard", "activation": "tanh"},
        {"kind": "init_matched", "kappa": 3.0},
        {"kind": "parameter_matched"},
    ],
)
def test_every_swap_of_a_network_with_nothing_fixed_is_a_symmetry(digits, keys):
    found = defect_of(digits, **keys)
    assert 0 <= found.best <= found.median <= 1e-9
    assert found.reference > 1
    assert found.relative <= 1e-9


def test_a_learned_noise_is_part_of_the_density_and_stays():
    diabetes = load_dataset(DataConfig(name="diabetes", limit=60))
    found = defect_of(diabetes, widths=(6,), kind="standard")
    assert found.median <= 1e-9 < found.reference
    assert defect_of(diabetes, widths=(6,), kind="weight_asymmetric").best > 1e-3


@pytest.mark.thorough
def test_within_blocks_swaps_are_symmetries_and_across_they_are_not(digits):
    blocks = {"kind": "block_fixed", "block": 2, "fixed_per_row": (8, 4, 4)}
    found = defect_of(digits, **blocks)
    assert found.best <= 1e-9
    i, j = found.units
    assert i // 2 == j // 2
    assert found.median > 1  # of most pairs the units are of two blocks
    without = defect_of(digits, kind="weight_asymmetric", fixed_per_row=(8, 4, 4))
    assert without.best > 1


@pytest.mark.thorough
@pytest.mark.parametrize("keys", [{"kind": "weight_asymmetric"}, {"kind": "sigma_asymmetric"}])
def test_asymmetric_networks_have_a_defect(digits, keys):
    found = defect_of(digits, **keys)
    assert 0.1 < found.best < found.median
    assert found.relative == found.best / found.reference > 0.01
    assert found.group in ("layers.0", "layers.1")


@pytest.mark.thorough
def test_it_grows_with_the_size_of_what_is_fixed(digits):
    """At kappa = 0 no permutation is a symmetry, and yet the best swap changes little: that is what
    it is for."""
    found = [
        defect_of(digits, kind="weight_asymmetric", kappa=kappa) for kappa in (0.0, 0.1, 1.0, 3.0)
    ]
    for value in ("best", "median"):
        values = [getattr(one, value) for one in found]
        assert 0 < values[0] < values[1] < values[2] < values[3]
    assert found[0].relative < found[2].relative
    assert 10 * found[0].best < found[2].best


@pytest.mark.thorough
def test_few_entries_fixed_at_zero_change_less_than_many(digits):
    few = defect_of(digits, kind="weight_asymmetric", mask="densest", kappa=0.0)
    many = defect_of(digits, kind="weight_asymmetric", fixed_per_row=(32, 8, 6), kappa=0.0)
    assert 0 < few.best < many.best
    assert few.median < many.median


@pytest.mark.parametrize("widths", [(), (1,), (1, 1)])
def test_without_two_units_there_is_none(digits, widths):
    model = model_of(digits, widths=widths)
    assert symmetry_defect(model, digits.train, model.initial()) is None


@pytest.mark.thorough
def test_it_says_what_it_looked_at(digits):
    model = model_of(digits, kind="weight_asymmetric", kappa=1.0)
    flat = model.initial()
    before = flat.clone()
    parameters = [value.clone() for value in model.net.parameters()]
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    found = symmetry_defect(model, digits.train, flat, num_swaps=20, seed=3)
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(flat, before)
    assert all(torch.equal(a, b) for a, b in zip(model.net.parameters(), parameters, strict=True))
    assert model.dtype == torch.float32
    assert found is not None
    assert found.num_points == len(digits.train) == 108
    assert 10 <= found.num_swaps <= 20
    again = symmetry_defect(
        model, digits.train, flat, num_swaps=20, seed=3, spec=permutation_spec(model.net)
    )
    assert again == found
    more = symmetry_defect(model, digits.train, flat, num_swaps=2000, seed=3)
    assert more is not None
    assert more.num_swaps == 16 * 15 // 2 + 12 * 11 // 2  # all pairs, none twice
    assert more.best <= found.best


@pytest.mark.thorough
def test_the_best_swap_is_what_it_is_said_to_be(digits):
    """The change, recomputed from the definition: sum over points and the prior of absolute
    changes."""
    model = model_of(digits, kind="weight_asymmetric", kappa=1.0)
    flat = model.initial()
    found = symmetry_defect(model, digits.train, flat)
    assert found is not None
    model.net.double()
    part, flat = digits.train.to(dtype=torch.float64), flat.double()
    swap = permutation_spec(model.net).transposition(found.group, found.units)
    swapped = model.permute(flat, swap, project=True)
    change = (
        (model.log_likelihood(swapped, part.x, part.y) - model.log_likelihood(flat, part.x, part.y))
        .abs()
        .sum()
    )
    change = change + (model.log_prior(swapped) - model.log_prior(flat)).abs()
    assert float(change) == pytest.approx(found.best, rel=1e-9)


def test_at_most_500_points():
    many = load_dataset(DataConfig(name="digits", limit=700))
    model = model_of(many, widths=(3,))
    found = symmetry_defect(model, many.train, model.initial(), num_swaps=2)
    assert found is not None
    assert found.num_points == 500


def test_relative_to_nothing_is_not_a_number():
    one = SymmetryDefect(
        best=0.0, median=0.0, reference=0.0, group="0", units=(0, 1), num_swaps=1, num_points=1
    )
    assert math.isnan(one.relative)


# -- which swaps are tried


def projected_distance(
    model: BayesianModel, spec: PermutationSpec, flat: Tensor, group: str, i: int, j: int
) -> float:
    """Squared distance between the swapped weights and what projecting makes of them."""
    swap = spec.transposition(group, (i, j))
    swapped = swap.apply(model.layer_values(model.unflatten(flat)))
    projected = model.layer_values(model.unflatten(model.permute(flat, swap, project=True)))
    return sum(float((swapped[name] - projected[name]).square().sum()) for name in swapped)


CONFIGS = {
    "mlp": (MLPConfig(widths=(6, 5)), (7,), None),
    "mlp with zeros": (MLPConfig(widths=(6, 5)), (7,), 0.0),
    "cnn": (CNNConfig(widths=(4, 5), norm="frn"), (2, 6, 6), None),
    # Of the residual stream the convolutions have both axes, so only the units within blocks are
    # counted exactly.
    "resnet": (ResNetConfig(), (3, 4, 4), None),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONFIGS)
def test_the_cost_of_a_pair_is_the_distance_of_its_projection(name):
    config, input_shape, kappa = CONFIGS[name]
    symmetry = SymmetryConfig(kind="weight_asymmetric", kappa="auto" if kappa is None else kappa)
    config = type(config)(**{**vars(config), "symmetry": symmetry})
    net = build_network(config, input_shape=input_shape, num_outputs=3).double()
    model = BayesianModel(net, Prior(), Categorical())
    noise = torch.randn(
        model.num_parameters, generator=torch_generator("noise"), dtype=torch.float64
    )
    flat = model.initial() + 0.3 * noise
    spec = permutation_spec(net)
    groups = ["stages.0.1.conv1", "stages.1.0.conv1"] if name == "resnet" else list(spec.groups)
    for group in groups:
        cost = defect_module._projection_cost(model, spec, flat, group)
        size = spec.groups[group].size
        assert cost.shape == (size, size)
        pairs = [(i, j) for i in range(min(size, 6)) for j in range(i)]
        for i, j in pairs:
            wanted = projected_distance(model, spec, flat, group, i, j)
            assert wanted > 0
            assert float(cost[i, j]) == pytest.approx(wanted, rel=1e-9)
            assert float(cost[j, i]) == pytest.approx(wanted, rel=1e-9)
        assert cost.diagonal().abs().max() < 1e-9


def test_the_nearest_pairs_are_among_those_tried(digits):
    model = model_of(digits, kind="weight_asymmetric", kappa=1.0)
    model.net.double()
    spec, flat = permutation_spec(model.net), model.initial()
    cost = defect_module._projection_cost(model, spec, flat, "layers.0")
    pairs = defect_module._pairs(model, spec, flat, "layers.0", 10, 0)
    assert len(set(pairs)) == len(pairs) <= 10
    every = sorted((float(cost[i, j]), i, j) for i in range(16) for j in range(i + 1, 16))
    assert {(i, j) for _, i, j in every[:5]} <= set(pairs)


# -- swaps


def test_heads_change_places_with_their_units():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(lambda width: Attention(width, 3), width=6).double()
    spec = permutation_spec(net, (4, 3))
    (heads,) = [
        name
        for name, group in spec.groups.items()
        if any(g.parent == name for g in spec.groups.values())
    ]
    children = [name for name, group in spec.groups.items() if group.parent == heads]
    assert len(children) == 2
    swap = spec.transposition(heads, (0, 2))
    swap.check()
    assert swap.indices[heads].tolist() == [2, 1, 0]
    for child in children:
        assert swap.indices[child].tolist() == [4, 5, 2, 3, 0, 1]  # within a head the order stays
    stays = (
        {name: group.size for name, group in spec.groups.items()}
        | {heads: 1}
        | dict.fromkeys(children, 2)
    )
    assert swap.fixed_points() == stays
    assert swap.compose(swap).is_identity
    model = BayesianModel(net, Prior(), Categorical())
    x = torch.randn(5, 4, 3, generator=torch_generator("x"), dtype=torch.float64)
    flat = model.initial()
    moved = model.permute(flat, swap)
    assert not torch.equal(moved, flat)
    assert (model.outputs(moved, x) - model.outputs(flat, x)).abs().max() < 1e-12
    inner = spec.transposition(children[0], (0, 1))
    inner.check()
    assert inner.num_moved == 2


def test_units_of_two_blocks_are_not_swapped():
    """Of a grouped convolution the channels change places within their block, and blocks as a
    whole."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = convolutions(2, 4, 8).double()
    spec = permutation_spec(net, (2, 6, 6))
    model = BayesianModel(net, Prior(), Categorical())
    for name, group in spec.groups.items():
        block = group.size // group.blocks
        pairs = defect_module._pairs(model, spec, model.initial(), name, 1000, 0)
        assert len(pairs) == group.blocks * block * (block - 1) // 2
        for pair in pairs:
            swap = spec.transposition(name, pair)
            swap.check()
            assert pair[0] // block == pair[1] // block


@pytest.mark.thorough
def test_a_users_module_with_attention():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: nn.Module = Transformer(lambda width: Attention(width, 2), width=6)
    x = torch.randn(20, 4, 3, generator=torch_generator("x"))
    y = torch.randint(2, (20,), generator=torch_generator("y"))
    part = Split(x=x, y=y)
    for asymmetric in (False, True):
        if asymmetric:
            net = asymmetrize(net, fixed_per_row=(0, 2, 2, 2, 2, 2, 2, 2), kappa=1.0, seed=1)
        model = BayesianModel(net, Prior(), Categorical())
        found = symmetry_defect(model, part, model.initial())
        assert found is not None
        assert found.best > 1e-3 if asymmetric else found.median <= 1e-9
