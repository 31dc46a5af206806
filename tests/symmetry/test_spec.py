"""The algebra of signed permutations, on specs with every kind of segment."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnn_symm.errors import IncompatiblePosteriors
from bnn_symm.symmetry import PermutationSpec, permutation_spec

from .networks import NETWORKS

NAMES = (
    "hand attention",
    "grouped convolution",
    "odd layers flip",
    "plain convolutions",
    "concatenation and gate",
)


@pytest.fixture(scope="module", params=NAMES)
def spec_and_values(request):
    torch.manual_seed(0)
    build, input_shape, _ = NETWORKS[request.param]
    net = build()
    spec = permutation_spec(net, input_shape)
    values = {
        name: torch.randn(3, *value.shape) for name, value in net.named_parameters()
    }  # three draws each
    return spec, values


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_inverse_undoes(spec_and_values):
    spec, values = spec_and_values
    permutation = spec.random(1)
    permutation.check()
    assert not permutation.is_identity
    assert not equal(permutation.apply(values), values)
    assert equal(permutation.inverse().apply(permutation.apply(values)), values)
    assert permutation.inverse().compose(permutation).is_identity
    assert permutation.compose(permutation.inverse()).same_as(spec.identity())


def test_composition_is_one_after_the_other(spec_and_values):
    spec, values = spec_and_values
    first, second, third = (spec.random(key) for key in (1, 2, 3))
    both = second.compose(first)
    both.check()
    assert equal(both.apply(values), second.apply(first.apply(values)))
    assert third.compose(second.compose(first)).same_as(third.compose(second).compose(first))


def test_draws_are_permuted_one_by_one(spec_and_values):
    spec, values = spec_and_values
    permutation = spec.random(4)
    together = permutation.apply(values)
    for draw in range(3):
        alone = permutation.apply({name: value[draw] for name, value in values.items()})
        assert equal(alone, {name: value[draw] for name, value in together.items()})


def test_identity_fixes_everything(spec_and_values):
    spec, values = spec_and_values
    identity = spec.identity()
    assert equal(identity.apply(values), values)
    assert identity.fixed_points() == {name: group.size for name, group in spec.groups.items()}
    assert identity.num_moved == 0


def test_every_element_comes_up():
    torch.manual_seed(0)
    spec = permutation_spec(
        torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    )
    seen = {
        (*p.indices["0"].tolist(), *p.signs["0"].tolist())
        for p in (spec.random(key) for key in range(600))
    }
    # 48 elements; each is missed by 600 draws with probability 3e-6.
    assert len(seen) == 48


@given(
    order=st.permutations(range(4)),
    signs=st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_the_definition(tanh_spec: PermutationSpec, order: list[int], signs: list[int]):
    permutation = tanh_spec.permutation({"0": torch.tensor(order)}, {"0": torch.tensor(signs)})
    value = torch.arange(1.0, 5.0)
    moved = permutation.apply({"0.bias": value})["0.bias"]
    assert moved.tolist() == [sign * value[old] for sign, old in zip(signs, order, strict=True)]
    assert permutation.fixed_points()["0"] == sum(
        old == new and sign == 1 for new, (old, sign) in enumerate(zip(order, signs, strict=True))
    )


@pytest.fixture(scope="module")
def tanh_spec() -> PermutationSpec:
    return permutation_spec(
        torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    )


@pytest.mark.parametrize(
    ("indices", "signs", "message"),
    [
        ({"1": [0, 1, 2, 3]}, {}, "no group '1'; the groups are 0"),
        ({"0": [0, 0, 2, 3]}, {}, "group '0': the order is not a permutation of its 4 units"),
        ({"0": [0, 1, 2]}, {}, "group '0': the order is not a permutation of its 4 units"),
        ({}, {"0": [1, 1, 0, 1]}, "expected 4 signs, each"),
    ],
)
def test_what_is_no_permutation_is_refused(tanh_spec, indices, signs, message):
    with pytest.raises(IncompatiblePosteriors, match=message):
        tanh_spec.permutation(
            {name: torch.tensor(value) for name, value in indices.items()},
            {name: torch.tensor(value) for name, value in signs.items()},
        )


def test_units_stay_in_their_block():
    torch.manual_seed(0)
    build, input_shape, _ = NETWORKS["grouped convolution"]
    spec = permutation_spec(build(), input_shape)
    (child,) = [
        name for name, group in spec.groups.items() if group.blocks == 2 and group.size == 8
    ]
    with pytest.raises(
        IncompatiblePosteriors, match="units leave their block of 4, which moves with"
    ):
        spec.permutation({child: torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])})
    with pytest.raises(IncompatiblePosteriors, match="may not change sign"):
        spec.permutation({}, {child: -torch.ones(8, dtype=torch.long)})
