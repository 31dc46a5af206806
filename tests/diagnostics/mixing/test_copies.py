"""Chains that are copies of one another, and what views and verdicts make of them."""

import dataclasses

import numpy as np
import pytest
import torch

from bnn_symm.architectures import MLPConfig, build_network
from bnn_symm.data import Split
from bnn_symm.diagnostics import mixing, verdicts
from bnn_symm.diagnostics.mixing.copies import copied_chains
from bnn_symm.models import BayesianModel, Gaussian, Prior
from bnn_symm.posteriors import SamplePosterior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import permutation_spec

DRAWS = 200


def model_of(widths=(5, 4), activation="tanh", dtype=torch.float64):
    net = build_network(
        MLPConfig(widths=widths, activation=activation), input_shape=(2,), num_outputs=1
    )
    return BayesianModel(net.to(dtype), Prior(), Gaussian())


MODEL = model_of()


def independent(chains=4, draws=DRAWS, *, key="chains", model=MODEL, dtype=torch.float64):
    generator = torch_generator(0, key)
    return torch.randn(
        chains, draws, model.num_parameters, generator=generator, dtype=torch.float64
    ).to(dtype)


def posterior_of(values, model=MODEL):
    return SamplePosterior.from_draws(model, values)


def permuted(values, seed=1):
    permutation = permutation_spec(MODEL.net).random(seed)
    return torch.cat(list(posterior_of(values).permute(permutation).iter_draws())).reshape(
        values.shape
    )


def walk(chains=4, draws=DRAWS, step=0.05):
    return (step * independent(chains, draws, key="walk")).cumsum(1)


def with_last(values, last):
    """The chains with the last one replaced."""
    return torch.cat([values[:-1], last[None]])


def test_independent_chains_have_nothing_in_common():
    for values in (
        independent(),
        independent(dtype=torch.float32).double(),
        walk(),
        walk(step=1e-4),
    ):
        found = copied_chains(posterior_of(values))
        assert not found
        assert found.num_distinct == found.num_chains == 4


@pytest.mark.parametrize("acceptance", [0.2, 0.6, 0.9])
def test_rejected_proposals_are_no_fault(acceptance):
    values = walk(draws=1000)
    random = np.random.default_rng(0)
    for chain in range(4):
        moves = random.uniform(size=1000) < acceptance
        moves[0] = True
        last = np.maximum.accumulate(np.where(moves, np.arange(1000), 0))
        values[chain] = values[chain, last]
    assert not copied_chains(posterior_of(values))


BASE = independent()
CASES = {
    # name: (chains, kind, lag, share of the last pair, distinct chains)
    "four times one": (BASE[:1].expand(4, -1, -1).clone(), "equal", 0, 1.0, 1),
    "one pair": (with_last(BASE, BASE[0]), "equal", 0, 1.0, 3),
    "in single precision": (with_last(BASE, BASE[0].float().double()), "equal", 0, 1.0, 3),
    "nearly equal": (with_last(BASE, BASE[0] + 1e-9 * BASE[1]), "equal", 0, 1.0, 3),
    "permuted units": (with_last(BASE, permuted(BASE)[0]), "permuted", 0, 1.0, 3),
    "permuted in single precision": (
        with_last(BASE, permuted(BASE)[0].float().double()),
        "permuted",
        0,
        1.0,
        3,
    ),
    "permuted from the middle on": (
        with_last(BASE, torch.cat([BASE[0, :20], permuted(BASE)[0, 20:]])),
        "permuted",
        0,
        1.0,
        3,
    ),
    "shifted by three": (
        with_last(BASE, torch.cat([BASE[3, :3], BASE[0, :-3]])),
        "equal",
        3,
        1 - 3 / DRAWS,
        3,
    ),
    "common first half": (
        with_last(BASE, torch.cat([BASE[0, :100], BASE[3, 100:]])),
        "equal",
        0,
        0.5,
        3,
    ),
    "common last tenth": (
        with_last(BASE, torch.cat([BASE[3, 20:], BASE[2, -20:]])),
        "equal",
        0,
        0.1,
        3,
    ),
    "reversed": (with_last(BASE, BASE[0].flip(0)), "equal", None, 1.0, 3),
    "shuffled": (
        with_last(BASE, BASE[0, torch.randperm(DRAWS, generator=torch_generator(0))]),
        "equal",
        None,
        1.0,
        3,
    ),
    "coupled": (
        with_last(BASE, BASE[0] + 0.9 ** torch.arange(DRAWS)[:, None] * BASE[3]),
        "equal",
        0,
        None,
        3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_copies_are_detected(name):
    values, kind, lag, share, distinct = CASES[name]
    found = copied_chains(posterior_of(values))
    assert found.num_distinct == distinct
    pair = found.pairs[-1]
    assert (pair.second, pair.kind, pair.lag) == (3, kind, lag)
    if share is not None:
        assert pair.share == pytest.approx(share)
    assert not found.repeats
    assert str(pair.first) in found.sentences[0]


@pytest.mark.parametrize(
    ("values", "kind", "share"),
    [
        (with_last(BASE, torch.cat([BASE[3, :100], BASE[3, :100]])), "returns", 0.5),
        (with_last(BASE, BASE[3, torch.arange(DRAWS) % 50]), "returns", 0.75),
        (with_last(BASE, torch.cat([BASE[3, :150], BASE[3, 150].expand(50, -1)])), "stuck", 0.25),
    ],
    ids=["duplicated halves", "four quarters", "stuck at the end"],
)
def test_a_chain_that_repeats_itself(values, kind, share):
    found = copied_chains(posterior_of(values))
    assert not found.pairs
    (repeat,) = found.repeats
    assert (repeat.chain, repeat.kind) == (3, kind)
    assert repeat.share == pytest.approx(share)
    assert not copied_chains(posterior_of(values), repeats=False)


def test_members_of_an_ensemble():
    members = independent(5, 1)
    assert not copied_chains(posterior_of(members))
    members[3] = members[1]
    found = copied_chains(posterior_of(members))
    assert [(pair.first, pair.second) for pair in found.pairs] == [(1, 3)]
    assert found.num_distinct == 4
    assert "members" in found.sentences[0]


def test_one_parameter_in_single_precision_is_equal_by_chance_only():
    net = torch.nn.Linear(1, 1, bias=False)
    model = BayesianModel(net, Prior(), Gaussian(noise=0.5))
    values = independent(4, 2000, model=model, dtype=torch.float32)
    assert not copied_chains(posterior_of(values, model))
    values[3] = values[0]
    assert copied_chains(posterior_of(values, model)).num_distinct == 3


def test_draws_that_are_not_finite_are_copies_of_nothing():
    values = independent().clone()
    values[1:3, 50:] = torch.nan
    values[3, :100] = torch.inf
    found = copied_chains(posterior_of(values))
    assert not found.pairs


# -- views and verdicts


def part():
    generator = torch_generator(0, "part")
    x = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    return Split(x=x, y=torch.randn(10, generator=generator, dtype=torch.float64))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["permuted units", "common first half"])
def test_views_of_copies_are_not_passed(name):
    found = mixing(posterior_of(CASES[name][0]), part(), per_draw=False)
    views = {key: view.status for key, view in found.views.items() if key != "chainwise"}
    assert not set(views.values()) & {"pass", "too few draws"}
    verdict = verdicts(found)
    assert verdict.usable is False
    assert "copies.num_distinct" in [one.measure for one in verdict.evidence]
    assert all(not one.is_inside for one in verdict.evidence)


@pytest.mark.thorough
def test_without_copies_the_same_views_pass():
    found = mixing(posterior_of(independent(draws=1000)), part(), per_draw=False)
    assert found.function.status == "pass"
    assert verdicts(found).usable is True


@pytest.mark.thorough
def test_repeats_within_a_chain_take_the_pass_of_every_view():
    values = independent(draws=1000)
    values[0, 500:] = values[0, :500].clone()
    found = mixing(posterior_of(values), part(), per_draw=False)
    assert found.chainwise.status == "no evidence"
    verdict = verdicts(found)
    assert verdict.usable is False
    assert [one.measure for one in verdict.evidence] == ["copies.repeats.share"]
    assert [one.measure for one in verdicts(dataclasses.replace(found, frozen=(0,))).evidence] == [
        "frozen_chains"
    ]
