"""Aligning draws: planted modes, the null of the prior, transpositions; and scales taken out of
relu units."""

import itertools

import arviz
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnn_symm.alignment import (
    Agreement,
    align_samples,
    canonical_samples,
    canonicalize,
    prior_draws,
    transpositions,
)
from bnn_symm.alignment.draws import DrawBatch
from bnn_symm.alignment.objective import Objective
from bnn_symm.alignment.solvers.coordinate import coordinate
from bnn_symm.alignment.solvers.gains import Term
from bnn_symm.architectures import CNNConfig, MLPConfig, SymmetryConfig, build_network
from bnn_symm.architectures.asymmetric.fixed_entries import fix_entries
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior, PriorOverride
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.symmetry import Permutation, SymmetryGroup, rescale, symmetry_group
from tests.models.cases import normal


def model_of(
    activation: str = "relu",
    widths: tuple[int, ...] = (5, 4),
    prior: Prior | None = None,
    **symmetry,
) -> BayesianModel:
    config = MLPConfig(widths=widths, activation=activation, symmetry=SymmetryConfig(**symmetry))
    net = build_network(config, input_shape=(3,), num_outputs=2).double()
    return BayesianModel(net, prior or Prior(), Categorical())


def one_unit_wide(width: int = 8) -> BayesianModel:
    net = build_network(MLPConfig(widths=(width,)), input_shape=(1,), num_outputs=1).double()
    return BayesianModel(net, Prior(), Gaussian(noise=0.5))


def mode(model: BayesianModel, chains: int, draws: int, noise: float) -> SamplePosterior:
    """Draws about one point."""
    center = normal(model.num_parameters, seed=1)
    return SamplePosterior.from_draws(
        model, center + noise * normal(chains, draws, model.num_parameters, seed=2)
    )


def moved(posterior: SamplePosterior, permutations: list) -> SamplePosterior:
    """Permuted draws, in memory."""
    return SamplePosterior.from_draws(
        posterior.model,
        posterior.permute_chains(permutations).draws().unflatten(0, posterior.shape[:2]),
    )


def dispersion(draws: Tensor) -> float:
    return float((draws - draws.mean(0)).square().sum(1).mean())


# -- chains


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_planted_permutations_of_chains_are_undone(activation):
    model = model_of(activation)
    posterior = mode(model, 4, 10, noise=0.2)
    group = symmetry_group(model.net)
    away = group.random("away")
    planted = moved(
        posterior, [group.spec.identity(), away, group.spec.identity(), group.spec.identity()]
    )
    found = align_samples(planted, per="chain", null=False)
    # In the frame of most chains, the planted one is brought back and no other moves.
    assert found.agreement.moved.tolist() == [False, True, False, False]
    assert found.permutations[1].same_as(away.inverse())
    assert torch.equal(found.posterior.draws(), posterior.draws())
    assert {name: counts.tolist() for name, counts in found.agreement.transpositions.items()} == {
        name: [0, count, 0, 0] for name, count in transpositions(away).items()
    }
    assert found.agreement.dispersion_after == pytest.approx(
        dispersion(posterior.draws()), rel=1e-5
    )
    assert found.agreement.dispersion_before == pytest.approx(dispersion(planted.draws()), rel=1e-5)
    assert found.agreement.between_chains_after < 0.1 * found.agreement.between_chains_before
    assert found.null is None
    assert found.function_difference < 1e-12
    if activation == "tanh":
        flips = {name: int((sign < 0).sum()) for name, sign in away.signs.items()}
        assert {name: int(counts[1]) for name, counts in found.agreement.flips.items()} == flips


@pytest.mark.thorough
def test_chains_are_aligned_whatever_their_order():
    model = model_of("tanh", widths=(5,))
    posterior = SamplePosterior.from_draws(model, normal(3, 6, model.num_parameters))
    found = align_samples(posterior, per="chain", null=False)
    for order in itertools.permutations(range(3)):
        draws = posterior.draws().unflatten(0, (3, 6))[list(order)]
        other = align_samples(SamplePosterior.from_draws(model, draws), per="chain", null=False)
        assert other.agreement.dispersion_after == pytest.approx(
            found.agreement.dispersion_after, rel=1e-12
        )
        for place, original in enumerate(order):
            mine, theirs = other.permutations[place], found.permutations[original]
            assert isinstance(mine, Permutation)
            assert isinstance(theirs, Permutation)
            assert mine.same_as(theirs)


@pytest.mark.thorough
def test_an_ensemble_is_chains_of_one_draw():
    model = model_of()
    group = symmetry_group(model.net)
    posterior = mode(model, 6, 1, noise=0.1)
    planted = moved(posterior, [group.random("away", chain) for chain in range(6)])
    for per in ("chain", "draw"):
        found = align_samples(planted, per=per, null=False)
        assert found.agreement.dispersion_after == pytest.approx(
            dispersion(posterior.draws()), rel=1e-5
        )
        assert found.agreement.num_moved == 5


# -- draws


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_planted_permutations_of_draws_are_undone(activation):
    """Every draw is in a different mode, so their mean is uninformative at first."""
    model = model_of(activation)
    posterior = mode(model, 2, 15, noise=0.2)
    group = symmetry_group(model.net)
    away = [[group.random("away", chain, draw) for draw in range(15)] for chain in range(2)]
    planted = moved(posterior, away)
    before = planted.draws().clone()
    found = align_samples(planted, per="draw", null=False)
    assert torch.equal(planted.draws(), before)
    assert found.agreement.dispersion_after == pytest.approx(
        dispersion(posterior.draws()), rel=1e-5
    )
    aligned = found.posterior.draws()
    assert dispersion(aligned) == pytest.approx(found.agreement.dispersion_after, rel=1e-5)
    # All are the same element away from where they were.
    frame = found.permutations[0][0].compose(away[0][0])
    for own, planted_own in zip(found.permutations, away, strict=True):
        for permutation, planted_permutation in zip(own, planted_own, strict=True):
            assert permutation.compose(planted_permutation).same_as(frame)
    assert found.agreement.moved.shape == (2, 15)
    assert align_samples(
        planted, per="chain", null=False
    ).agreement.dispersion_after > 5 * dispersion(aligned)


def test_a_draw_that_jumps_is_told_from_its_chain():
    model = model_of(widths=(6,))
    group = symmetry_group(model.net)
    posterior = mode(model, 2, 8, noise=0.1)
    swap = group.spec.permutation({"layers.0": torch.tensor([1, 2, 0, 3, 5, 4])})
    identity = group.spec.identity()
    planted = moved(posterior, [[identity] * 8, [identity] * 5 + [swap] * 3])
    found = align_samples(planted, per="draw", null=False)
    assert found.agreement.num_moved == 3
    assert found.agreement.moved[1].tolist() == [False] * 5 + [True] * 3
    assert found.agreement.transpositions["layers.0"].sum(1).tolist() == [
        0,
        9,
    ]  # a 3-cycle and a swap each


@pytest.mark.thorough
def test_aligning_draws_never_raises_their_dispersion():
    """With restarts or without, for draws that have no mode in common at all."""
    model = model_of("tanh")
    posterior = SamplePosterior.from_draws(model, normal(2, 10, model.num_parameters))
    for restarts in (0, 2):
        found = align_samples(posterior, per="draw", null=False, restarts=restarts).agreement
        assert found.dispersion_after < found.dispersion_before
    per_chain = align_samples(posterior, per="chain", null=False).agreement
    assert found.dispersion_after < per_chain.dispersion_after < per_chain.dispersion_before


# -- the null


def rhat(draws: Tensor) -> np.ndarray:
    """Of every coordinate, (chain, draw, parameter)."""
    data = arviz.convert_to_dataset({"w": draws.numpy()})
    return arviz.rhat(data)["w"].values


@pytest.mark.thorough
def test_aligning_draws_of_the_prior_one_by_one_manufactures_agreement():
    """No data, no mode: means leave zero, the spread shrinks and R-hat is that of a perfect
    sampler."""
    model = one_unit_wide()
    draws = prior_draws(model, 4, 100, seed=3)
    found = align_samples(draws, per="draw", null=False)
    before, after = draws.draws(), found.posterior.draws()
    weights = (
        3 * 8
    )  # of the units: bias and weight in, weight out; the last coordinate is the output's own bias
    assert float(before.mean(0)[:weights].abs().mean()) < 3 / 400**0.5
    assert float(after.mean(0)[:weights].abs().mean()) > 0.4
    assert float(before.std(0)[:weights].mean()) == pytest.approx(1, abs=0.05)
    assert float(after.std(0)[:weights].mean()) < 0.8
    assert rhat(after.unflatten(0, (4, 100)))[:weights].max() < 1.03
    # Aligned per chain, nothing of the kind: one permutation cannot choose draws.
    per_chain = align_samples(draws, per="chain", null=False)
    assert float(per_chain.posterior.draws().mean(0)[:weights].abs().mean()) < 0.1


@pytest.mark.thorough
def test_the_null_stands_beside_the_result_and_is_the_same_procedure():
    model = one_unit_wide(4)
    posterior = mode(model, 2, 10, noise=0.1)
    found = align_samples(posterior, per="draw", seed=7)
    null = align_samples(prior_draws(model, 2, 10, seed=7), per="draw", seed=7, null=False)
    assert isinstance(found.null, Agreement)
    assert found.null.dispersion_after == null.agreement.dispersion_after
    assert found.null.num_moved == null.agreement.num_moved
    shrinks = found.null.dispersion_after / found.null.dispersion_before
    assert shrinks < found.agreement.dispersion_after / found.agreement.dispersion_before


def test_draws_of_the_prior_have_its_moments():
    prior = Prior(
        name="laplace", scale=0.5, overrides={"*.bias": PriorOverride(name="normal", scale=2.0)}
    )
    net = build_network(MLPConfig(widths=(3,)), input_shape=(2,), num_outputs=1).double()
    model = BayesianModel(net, prior, Gaussian(log_noise_mean=-1.5, log_noise_sd=0.6))
    number = 4000
    state = torch.get_rng_state()
    posterior = prior_draws(model, 2, number // 2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert posterior.shape == (2, number // 2, model.num_parameters)
    values = model.unflatten(posterior.draws())
    sd = {
        "layers.0.weight": 0.5 * 2**0.5,
        "layers.0.bias": 2.0,
        "head.weight": 0.5 * 2**0.5,
        "head.bias": 2.0,
    }
    for name, wanted in sd.items():
        assert float(values[name].std()) == pytest.approx(wanted, rel=0.06)
        assert float(values[name].mean()) == pytest.approx(0, abs=5 * wanted / number**0.5)
    noise = values["likelihood.log_noise"]
    assert float(noise.mean()) == pytest.approx(-1.5, abs=5 * 0.6 / number**0.5)
    assert float(noise.std()) == pytest.approx(0.6, rel=0.06)
    kurtosis = float((values["layers.0.weight"] / sd["layers.0.weight"]).pow(4).mean())
    assert kurtosis == pytest.approx(6, rel=0.25)  # a Laplace's; a normal's is 3
    assert torch.equal(posterior.draws(), prior_draws(model, 2, number // 2, seed=1).draws())
    assert not torch.equal(posterior.draws(), prior_draws(model, 2, number // 2, seed=2).draws())


# -- transpositions and the batched solver


@pytest.mark.parametrize(
    ("order", "swaps"),
    [
        ([0, 1, 2, 3, 4], 0),
        ([1, 0, 2, 3, 4], 1),
        ([1, 0, 3, 2, 4], 2),
        ([1, 2, 0, 3, 4], 2),
        ([1, 2, 3, 4, 0], 4),
    ],
)
def test_transpositions_are_units_less_cycles(order, swaps):
    spec = symmetry_group(model_of().net).spec
    assert transpositions(spec.permutation({"layers.0": torch.tensor(order)})) == {
        "layers.0": swaps,
        "layers.1": 0,
    }


NETS = {
    "mlp": lambda: build_network(MLPConfig(widths=(5, 4)), input_shape=(3,), num_outputs=2),
    "tanh": lambda: build_network(
        MLPConfig(widths=(5, 4), activation="tanh"), input_shape=(3,), num_outputs=2
    ),
    "cnn": lambda: build_network(CNNConfig(widths=(3, 4)), input_shape=(1, 6, 6), num_outputs=2),
    "blocks": lambda: build_network(
        MLPConfig(
            widths=(6, 6),
            symmetry=SymmetryConfig(kind="block_fixed", block=2, fixed_per_row=(1, 2, 2)),
        ),
        input_shape=(3,),
        num_outputs=2,
    ),
}


def prepared(
    name: str, draws: int
) -> tuple[SymmetryGroup, dict[str, Tensor], list[Permutation], dict[str, Tensor]]:
    """A network's group, draws of whole weights, an element for each, and a reference."""
    net = NETS[name]()
    group = symmetry_group(net)
    model = BayesianModel(net, Prior(), Categorical())
    flat = normal(draws + 1, model.num_parameters).float()
    whole = {
        n: v for n, v in model.layer_values(model.unflatten(flat)).items() if n in group.spec.axes
    }
    start = [group.random("start", draw) for draw in range(draws)]
    return group, {n: v[1:] for n, v in whole.items()}, start, {n: v[0] for n, v in whole.items()}


@pytest.mark.parametrize("name", NETS)
def test_draws_are_where_their_permutations_put_them(name):
    group, tensors, start, reference = prepared(name, 5)
    kept = {n: v.clone() for n, v in tensors.items()}
    batch = DrawBatch(tensors, start)
    for matched in (False, True):
        if matched:
            assert batch.match(reference, group) > 0
        for draw, permutation in enumerate(batch.permutations()):
            group.check(permutation)
            wanted = permutation.apply({n: v[draw] for n, v in kept.items()})
            for n, value in wanted.items():
                assert torch.equal(batch.tensors[n][draw], value)
    assert all(torch.equal(tensors[n], kept[n]) for n in kept)


@pytest.mark.parametrize("name", NETS)
def test_many_draws_reach_what_one_by_one_cannot_improve(name):
    group, tensors, start, reference = prepared(name, 6)
    batch = DrawBatch(tensors, start)
    assert batch.match(reference, group) > 0
    for draw, permutation in enumerate(batch.permutations()):
        own = {n: v[draw] for n, v in tensors.items()}
        objective = Objective(group.spec, (Term(reference, own, True),), 0.0)
        assert objective.value(permutation) >= objective.value(start[draw])
        _, new_value = coordinate(objective, group, permutation, "after")
        assert new_value == pytest.approx(objective.value(permutation), rel=1e-5)
    assert batch.match(reference, group) == 0


class Attention(nn.Module):
    """One layer of attention with two heads of two, whose units move with their head."""

    input_shape = (3, 2)

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2, 4) for _ in range(3))
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).reshape(*x.shape[:2], 2, 2).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out(mixed).mean(1)


@pytest.mark.thorough
def test_units_that_move_together_are_matched_draw_by_draw():
    model = BayesianModel(Attention().double(), Prior(), Categorical())
    group = symmetry_group(model.net)
    assert any(component.kind == "entangled" for component in group.components)
    posterior = mode(model, 1, 6, noise=0.05)
    planted = moved(posterior, [[group.random("away", draw) for draw in range(6)]])
    found = align_samples(planted, per="draw", null=False)
    assert found.agreement.dispersion_after == pytest.approx(
        dispersion(posterior.draws()), rel=1e-4
    )


def test_an_asymmetric_network_has_nothing_to_align():
    model = model_of(widths=(6, 6), kind="weight_asymmetric", fixed_per_row=(0, 3, 2))
    posterior = SamplePosterior.from_draws(model, normal(2, 5, model.num_parameters))
    for per in ("chain", "draw"):
        found = align_samples(posterior, per=per)
        assert found.agreement.num_moved == 0
        assert found.agreement.dispersion_after == found.agreement.dispersion_before
        assert found.null is not None
        assert found.null.num_moved == 0


# -- scales


def scaled(model: BayesianModel, flat: Tensor, seed: int) -> Tensor:
    """The same function, every relu unit at another scale."""
    spec = symmetry_group(model.net).spec
    factors = {name: normal(own.size, seed=seed).exp() for name, own in spec.groups.items()}
    return model.flatten({**model.unflatten(flat), **rescale(spec, model.unflatten(flat), factors)})


def test_all_scales_of_a_function_have_one_canonical_point():
    model = model_of()
    flat = normal(model.num_parameters, seed=4)
    x = normal(20, 3)
    balanced = canonicalize(model, flat)
    torch.testing.assert_close(
        model.outputs(balanced, x), model.outputs(flat, x), rtol=1e-12, atol=1e-12
    )
    assert not torch.allclose(balanced, flat, rtol=0.1)
    assert float(balanced.square().sum()) < float(flat.square().sum())
    for seed in range(3):
        other = scaled(model, flat, seed)
        assert not torch.allclose(other, flat, rtol=0.1)
        torch.testing.assert_close(canonicalize(model, other), balanced, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(canonicalize(model, balanced), balanced, rtol=1e-10, atol=0)


def test_what_makes_a_unit_is_as_large_as_what_reads_it():
    model = model_of()
    values = model.unflatten(canonicalize(model, normal(3, model.num_parameters, seed=4)))
    for made, read in (("layers.0", "layers.1"), ("layers.1", "head")):
        into = values[f"{made}.weight"].square().sum(2) + values[f"{made}.bias"].square()
        torch.testing.assert_close(
            into, values[f"{read}.weight"].square().sum(1), rtol=1e-9, atol=0
        )


def test_a_batch_is_balanced_draw_by_draw():
    model = model_of()
    flat = normal(2, 3, model.num_parameters)
    together = canonicalize(model, flat)
    assert together.shape == flat.shape
    torch.testing.assert_close(
        together[1, 2], canonicalize(model, flat[1, 2]), rtol=1e-9, atol=1e-12
    )


def test_a_convolutional_network_is_balanced():
    net = build_network(CNNConfig(widths=(3, 4)), input_shape=(1, 6, 6), num_outputs=2).double()
    model = BayesianModel(net, Prior(), Categorical())
    flat = normal(model.num_parameters)
    balanced = canonicalize(model, flat)
    x = normal(5, 1, 6, 6)
    torch.testing.assert_close(
        model.outputs(balanced, x), model.outputs(flat, x), rtol=1e-11, atol=1e-11
    )
    torch.testing.assert_close(
        canonicalize(model, scaled(model, flat, 1)), balanced, rtol=1e-8, atol=1e-10
    )


def test_networks_without_scales_stay_as_they_are():
    for model in (model_of("tanh"), model_of("gelu")):
        flat = normal(2, model.num_parameters)
        assert torch.equal(canonicalize(model, flat), flat)


def test_units_held_by_fixed_values_and_dead_units_stay():
    net = build_network(MLPConfig(widths=(5, 4)), input_shape=(3,), num_outputs=2).double()
    mask, fixed = torch.ones(5, 3, dtype=torch.bool), torch.zeros(5, 3)
    mask[0, 1] = mask[2, 2] = mask[3, 0] = False
    fixed[0, 1], fixed[2, 2] = (
        0.7,
        -1.2,
    )  # units 0 and 2 are held; unit 3 has a zero fixed, which no scale changes
    fix_entries(net.get_submodule("layers.0"), mask, fixed)
    model = BayesianModel(net, Prior(), Categorical())
    values = model.unflatten(normal(model.num_parameters))
    values["layers.1.weight"][1] = 0  # unit 1 of the second layer: nothing goes in
    values["layers.1.bias"][1] = 0
    flat = model.flatten(values)
    whole, balanced = (
        model.layer_values(model.unflatten(at)) for at in (flat, canonicalize(model, flat))
    )
    held = torch.tensor([True, False, True, False, False])
    change = balanced["layers.0.weight"] / whole["layers.0.weight"]
    assert bool((change[held] == 1).all())
    assert bool((change[1] != 1).all())
    assert balanced["layers.0.weight"][3, 0] == 0
    assert bool((change[3, 1:] != 1).all())
    assert torch.equal(balanced["head.weight"][:, 1], whole["head.weight"][:, 1])
    x = normal(9, 3)
    outputs = model.outputs(canonicalize(model, flat), x)
    torch.testing.assert_close(outputs, model.outputs(flat, x), rtol=1e-11, atol=1e-11)


@pytest.mark.thorough
def test_draws_that_differ_by_scale_and_order_only_agree_once_balanced():
    model = model_of()
    group = symmetry_group(model.net)
    posterior = mode(model, 3, 1, noise=0.0)
    draws = torch.stack([scaled(model, own, seed) for seed, own in enumerate(posterior.draws())])
    planted = moved(
        SamplePosterior.from_draws(model, draws[:, None]),
        [group.random("away", chain) for chain in range(3)],
    )
    plain = align_samples(planted, per="chain", null=False)
    balanced = align_samples(planted, per="chain", balance=True)
    assert balanced.balanced
    assert not plain.balanced
    assert plain.agreement.dispersion_after > 1
    assert balanced.agreement.dispersion_after == pytest.approx(0, abs=1e-5)
    torch.testing.assert_close(
        balanced.posterior.draws(), balanced.posterior.draws()[:1].expand(3, -1)
    )
    assert balanced.null is not None
    assert balanced.null.dispersion_after > 1
    assert canonical_samples(planted).shape == (3, 1, model.num_parameters)
