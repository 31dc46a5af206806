"""What is left of the symmetry of every architecture in every kind: what it keeps, what it refuses,
how much it is."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bnn_symm.architectures import (
    CNNConfig,
    MLPConfig,
    ResNetConfig,
    SymmetryConfig,
    asymmetrize,
    build_network,
    fingerprint,
    fixed_buffers,
    load_fixed_buffers,
    weight_shapes,
)
from bnn_symm.architectures.asymmetric.fixed_entries import FixedEntries, fix_entries, fixed_layers
from bnn_symm.errors import NotRepresentable
from bnn_symm.models import BayesianModel, Categorical, Gaussian, Prior
from bnn_symm.randomness import torch_generator
from bnn_symm.symmetry import Permutation, SymmetryGroup, duplicate_rows, symmetry_group

from .networks import Attention, Transformer, log10_factorial


def normal(*shape: int, key: int | str = 0) -> Tensor:
    return torch.randn(shape, generator=torch_generator(key, "normal"), dtype=torch.float64)


# -- every architecture, every kind


class Mine(nn.Module):
    """A user's own: two branches side by side, one of them odd, and a residual block over both."""

    def __init__(self, left: int, right: int, inner: int, num_outputs: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, left), nn.Linear(6, right)
        self.relu, self.tanh, self.gelu = nn.ReLU(), nn.Tanh(), nn.GELU()
        self.inner, self.outer = nn.Linear(left + right, inner), nn.Linear(inner, left + right)
        self.head = nn.Linear(left + right, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.relu(self.left(x)), self.tanh(self.right(x))], dim=1)
        return self.head(both + self.outer(self.gelu(self.inner(both))))


@dataclass(frozen=True)
class Architecture:
    """How a network is drawn, and how many entries a row block_fixed fixes of each layer, in blocks
    of two."""

    family: str
    input_shape: tuple[int, ...]
    keys: dict[str, Any]
    block_counts: tuple[int, ...] | str
    examples: int = 3


ARCHITECTURES = {
    f"mlp {activation} {norm}": Architecture(
        "mlp", (6,), {"activation": activation, "norm": norm}, (3, 2, 2)
    )
    for activation in ("relu", "gelu", "tanh")
    for norm in ("none", "layer")
}
ARCHITECTURES |= {
    f"cnn {norm}": Architecture("cnn", (2, 6, 6), {"norm": norm}, (4, 6, 4), examples=2)
    for norm in ("none", "layer", "frn")
}
ARCHITECTURES |= {
    "resnet": Architecture("resnet", (3, 4, 4), {}, "auto", examples=1),
    "own module": Architecture("own", (6,), {}, (3, 3, 4, 4, 2)),
    "own attention": Architecture("attention", (3, 6), {}, (2, 2, 2, 2, 2, 4, 2, 2), examples=2),
}
KINDS: dict[str, dict[str, Any]] = {
    "standard": {"kind": "standard"},
    "init_matched": {"kind": "init_matched"},
    "sigma": {"kind": "sigma_asymmetric"},
    "random, kappa 1": {"kind": "weight_asymmetric", "kappa": 1.0},
    "random, kappa 0": {"kind": "weight_asymmetric", "kappa": 0.0},
    "densest, kappa 1": {"kind": "weight_asymmetric", "mask": "densest", "kappa": 1.0},
    "densest, kappa 0": {"kind": "weight_asymmetric", "mask": "densest", "kappa": 0.0},
    "filters": {"kind": "weight_asymmetric", "mask": "filters"},
    "blocks": {"kind": "block_fixed", "block": 2},
}


def drawn(
    architecture: Architecture, keys: dict[str, Any], num_outputs: int, draw: Any
) -> nn.Module:
    """A network of random widths, such that the masks of all kinds can be unique; even ones, to
    make blocks of."""
    widths = range(6, 11, 2 if keys["kind"] == "block_fixed" else 1)
    first = draw(st.sampled_from(widths))
    second = draw(st.sampled_from([width for width in widths if width <= first]))
    keys = {"seed": draw(st.integers(0, 99)), **keys}
    if keys["kind"] == "block_fixed":
        keys["fixed_per_row"] = architecture.block_counts
    if architecture.family in ("own", "attention"):
        with torch.random.fork_rng():
            torch.manual_seed(draw(st.integers(0, 99)))
            if architecture.family == "own":
                net: nn.Module = Mine(first, second, 16, num_outputs)
            else:
                net = Transformer(lambda width: Attention(width, 2), width=8)
                net.embed, net.head = nn.Linear(6, 8), nn.Linear(8, num_outputs)
                net.up, net.down = nn.Linear(8, second + 2), nn.Linear(second + 2, 8)
        net = asymmetrize(net, **keys, input_shape=architecture.input_shape)
        net.input_shape = architecture.input_shape
        return net
    symmetry = SymmetryConfig(**keys)
    config: Any = {
        "mlp": lambda: MLPConfig(widths=(first, second), symmetry=symmetry, **architecture.keys),
        "cnn": lambda: CNNConfig(widths=(first, second), symmetry=symmetry, **architecture.keys),
        "resnet": lambda: ResNetConfig(symmetry=symmetry, **architecture.keys),
    }[architecture.family]()
    return build_network(config, input_shape=architecture.input_shape, num_outputs=num_outputs)


def misplaced(model: BayesianModel, flat: Tensor, permutation: Permutation) -> set[str]:
    """By definition: tensors where, at generic free values, permuted weights have other values at
    fixed entries."""
    fixed = {name: (layer.mask, layer.fixed) for name, layer in fixed_layers(model.net)}
    matrices = {
        name: value for name, value in fixed_buffers(model.net).items() if name.endswith("matrix")
    }
    permuted = permutation.apply({**model.layer_values(model.unflatten(flat)), **matrices})
    found = {
        name
        for name, (mask, values) in fixed.items()
        if not torch.equal(permuted[name][~mask], values[~mask])
    }
    return found | {
        name for name, value in matrices.items() if not torch.equal(permuted[name], value)
    }


def some_element(group: SymmetryGroup, *key: int | str) -> Permutation:
    """One that moves something, where there is any."""
    found = (group.random(*key, number) for number in range(100))
    return next(p for p in found if group.is_trivial or not p.is_identity)


def outside(
    group: SymmetryGroup, model: BayesianModel, flat: Tensor, *key: int | str
) -> Permutation:
    """A permutation of the spec that is not in the group."""
    found = (group.spec.random(*key, "outside", number) for number in range(100))
    return next(p for p in found if misplaced(model, flat, p))


def log_density(model: BayesianModel, flat: Tensor, x: Tensor, y: Tensor) -> float:
    return float(model.log_prior(flat) + model.log_likelihood(flat, x, y).sum())


def difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).detach().abs().max() / first.detach().abs().max())


CASES = [
    # Of residual networks, whose group takes longest, one kind of mask is fast, and of the densest
    # masks a single architecture.
    pytest.param(
        name,
        kind,
        marks=[pytest.mark.thorough]
        if (name == "resnet" and kind != "filters")
        or (kind.startswith("densest") and name != "mlp relu none")
        else [],
    )
    for name in ARCHITECTURES
    for kind in KINDS
    if (name, kind) != ("own attention", "sigma")
]  # whose gelu is a function, which FiGLU cannot take the place of


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_group_is_what_keeps_the_model_and_nothing_else_is_let_in(name, kind):
    architecture, keys = ARCHITECTURES[name], KINDS[kind]

    @settings(
        max_examples=architecture.examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # what is drawn is small already
    )
    @given(data=st.data())
    def check(data):
        categorical = data.draw(st.booleans())
        net = drawn(architecture, keys, 3 if categorical else 1, data.draw).double()
        prior = Prior(name=data.draw(st.sampled_from(["normal", "laplace"])), scale="fan_in")
        model = BayesianModel(net, prior, Categorical() if categorical else Gaussian())
        group = symmetry_group(net, input_shape=architecture.input_shape)
        key = data.draw(st.integers(0, 999))
        flats = model.initial() + 0.3 * normal(
            3, model.num_parameters, key=key
        )  # norms and latents off their means
        x = normal(5, *architecture.input_shape, key="x")
        y = torch.tensor([0, 2, 1, 1, 0]) if categorical else normal(5, key="y")

        element = some_element(group, key)
        permuted = model.permute(flats, element)
        for flat, image in zip(flats, permuted, strict=True):
            assert torch.equal(model.permute(flat, element), image)  # draw by draw
            assert torch.equal(
                model.permute(flat, element, project=True), image
            )  # nothing to put back
            assert difference(model.outputs(flat, x), model.outputs(image, x)) <= 1e-10
            before, after = log_density(model, flat, x, y), log_density(model, image, x, y)
            assert abs(before - after) <= 1e-10 * max(1.0, abs(before))
        assert torch.equal(permuted, flats) == group.is_trivial
        assert group.represents(element)
        assert not misplaced(model, flats[0], element)

        if not fixed_buffers(net):
            assert group.log10_order == pytest.approx(group.spec.log10_order, rel=1e-12)
            return
        other = outside(group, model, flats[0], key)
        moved = misplaced(model, flats[0], other)
        assert not group.represents(other)
        for refuse in (lambda: model.permute(flats, other), lambda: group.check(other)):
            with pytest.raises(
                NotRepresentable, match="the permutation moves fixed entries of "
            ) as caught:
                refuse()
            assert any(f"fixed entries of {tensor}:" in str(caught.value) for tensor in moved)
        projected = model.permute(flats, other, project=True)
        changes = []
        for flat, image in zip(flats, projected, strict=True):
            assert torch.equal(model.permute(flat, other, project=True), image)
            changes.append(difference(model.outputs(flat, x), model.outputs(image, x)))
        assert max(changes) > 1e-6  # of one draw all relus of a layer may be off

    check()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", ["random, kappa 0", "random, kappa 1", "densest, kappa 0", "densest, kappa 1", "sigma"]
)
def test_no_permutation_of_an_asymmetric_mlp_is_left(kind, seed):
    config = MLPConfig(widths=(12, 10), symmetry=SymmetryConfig(**KINDS[kind], seed=seed))
    group = symmetry_group(build_network(config, input_shape=(8,), num_outputs=3))
    assert group.is_trivial
    assert group.log10_order == 0
    assert group.certificate.startswith(
        "trivial: proved by color refinement, which distinguishes all 22 hidden units"
    )


def test_layers_without_fixed_entries_keep_their_symmetry():
    """Of three hidden layers the last two are free, so their weights distinguish no units."""
    symmetry = SymmetryConfig(kind="weight_asymmetric", fixed_per_row=(2, 0, 0, 0))
    net = build_network(
        MLPConfig(widths=(5, 4, 3), symmetry=symmetry), input_shape=(6,), num_outputs=2
    )
    group = symmetry_group(net)
    assert [dict(component.units) for component in group.components] == [
        {"layers.1": (0, 1, 2, 3)},
        {"layers.2": (0, 1, 2)},
    ]
    assert group.order == math.factorial(4) * math.factorial(3)
    assert group.certificate.startswith(
        "not trivial: 7 of 12 hidden units can move, in 2 independent components"
    )


def test_gates_count_as_fixed():
    config = MLPConfig(widths=(4,), symmetry=SymmetryConfig(kind="sigma_asymmetric"))
    net = build_network(config, input_shape=(3,), num_outputs=2).double()
    group = symmetry_group(net)
    assert set(group.fixed) == {"activations.0.matrix"}
    assert not group.fixed["activations.0.matrix"].free.any()
    model = BayesianModel(net, Prior(), Categorical())
    swap = group.spec.permutation({"layers.0": torch.tensor([1, 0, 2, 3])})
    with pytest.raises(NotRepresentable, match=r"moves fixed entries of activations\.0\.matrix:"):
        model.permute(model.initial(), swap)
    with torch.no_grad():  # a gate that treats its units alike lets them change places again
        net.activations[0].matrix.copy_(torch.eye(4) + 1)
    assert symmetry_group(net).order == math.factorial(4)
    model = BayesianModel(net, Prior(), Categorical())
    x, permuted = normal(5, 3), model.permute(model.initial(), swap)
    assert difference(model.outputs(model.initial(), x), model.outputs(permuted, x)) <= 1e-10


# -- blocks


def fixed_counts(net: nn.Module) -> dict[str, list[int]]:
    """Name of a weight -> fixed entries of each row."""
    return {name: (~layer.mask).flatten(1).sum(1).tolist() for name, layer in fixed_layers(net)}


def number_of_parameters(net: nn.Module) -> int:
    return sum(value.numel() for value in net.parameters())


def pair(
    config: Any, input_shape: tuple[int, ...], num_outputs: int = 2, **keys: Any
) -> tuple[nn.Module, nn.Module]:
    """The same network with blocks, and without."""
    with_blocks = SymmetryConfig(kind="block_fixed", **keys)
    without = SymmetryConfig(
        **{"kind": "weight_asymmetric", **{k: v for k, v in keys.items() if k != "block"}}
    )
    return tuple(  # pyright: ignore[reportReturnType]
        build_network(config(symmetry), input_shape=input_shape, num_outputs=num_outputs)
        for symmetry in (with_blocks, without)
    )


BLOCKS: dict[str, tuple[Any, tuple[int, ...], dict[str, Any]]] = {
    "mlp": (lambda s: MLPConfig(widths=(12, 8), symmetry=s), (7,), {"fixed_per_row": (3, 4, 4)}),
    "mlp with norms": (
        lambda s: MLPConfig(widths=(12, 8), norm="layer", activation="gelu", symmetry=s),
        (7,),
        {"fixed_per_row": (3, 4, 4)},
    ),
    "tanh": (
        lambda s: MLPConfig(widths=(12, 8), activation="tanh", symmetry=s),
        (7,),
        {"fixed_per_row": (3, 4, 4), "kappa": 1.0},
    ),
    "cnn": (
        lambda s: CNNConfig(widths=(4, 8), symmetry=s),
        (2, 8, 8),
        {"fixed_per_row": (6, 8, 8)},
    ),
    "cnn with frn": (
        lambda s: CNNConfig(widths=(4, 8), norm="frn", symmetry=s),
        (2, 8, 8),
        {"fixed_per_row": (6, 8, 8)},
    ),
    "resnet": (lambda s: ResNetConfig(symmetry=s), (3, 4, 4), {}),
}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        *((name, 2) for name in list(BLOCKS)[:5]),
        *((name, 4) for name in list(BLOCKS)[:5]),
        *(pytest.param(name, 2, marks=pytest.mark.thorough) for name in list(BLOCKS)[5:]),
    ],
)
def test_blocks_leave_their_own_permutations_and_no_others(name, block):
    config, input_shape, keys = BLOCKS[name]
    net, without = pair(config, input_shape, **keys, block=block)
    group = symmetry_group(net)
    sizes = [one.size for one in group.spec.groups.values()]
    assert len(sizes) == {"resnet": 12}.get(name, 2)
    assert group.order == math.prod(math.factorial(block) ** (size // block) for size in sizes)
    assert group.log10_order == pytest.approx(
        sum(size // block * log10_factorial(block) for size in sizes), rel=1e-12
    )
    found = {tuple(units) for component in group.components for units in component.units.items()}
    assert found == {
        (one.name, tuple(range(start, start + block)))
        for one in group.spec.groups.values()
        for start in range(0, one.size, block)
    }
    assert {component.kind for component in group.components} == {"interchangeable"}
    assert symmetry_group(without).is_trivial
    # The control: as much is fixed, row by row, and as much is free.
    assert fixed_counts(net) == fixed_counts(without)
    assert (
        number_of_parameters(net)
        == number_of_parameters(without)
        < sum(map(math.prod, weight_shapes(net).values()))
    )


@pytest.mark.parametrize(
    "kappa", [(0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0)]
)
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_units_of_odd_blocks_flip_where_only_zeros_are_fixed(norm, kappa):
    net, without = pair(
        lambda s: MLPConfig(widths=(12, 8), activation="tanh", norm=norm, symmetry=s),
        (7,),
        fixed_per_row=(3, 4, 2),
        kappa=kappa,
        block=2,
    )
    for one, block in ((net, 2), (without, 1)):
        expected = 1
        made = {"layers.0": one.layers[0], "layers.1": one.layers[1]}
        reads = {"layers.0": one.layers[1], "layers.1": one.head}
        for name in made:
            # What a norm sees of a unit does not flip with it, only the norm's own scale and offset
            # do.
            rows = (
                torch.zeros(len(made[name].fixed))
                if norm == "layer"
                else made[name].fixed.abs().sum(1)
            )
            held = (rows + reads[name].fixed.abs().sum(0)) != 0
            expected *= 2 ** int((~held).sum()) * math.factorial(block) ** (len(held) // block)
        assert symmetry_group(one).order == expected


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_all_units_before_a_norm_flip_unless_what_is_fixed_forbids_it(kappa):
    _, net = pair(
        lambda s: MLPConfig(widths=(12, 8), activation="relu", norm="layer", symmetry=s),
        (7,),
        fixed_per_row=(3, 4, 2),
        kappa=kappa,
        block=2,
    )
    group, x = symmetry_group(net), normal(5, 7).float()
    before = net(x).detach()
    with torch.no_grad():
        for tensor in (net.layers[0].weight, net.layers[0].bias, net.norms[0].weight):
            tensor.neg_()
    kept = torch.equal(net(x), before)
    assert kept == (kappa == 0)
    assert group.is_trivial
    assert (group.num_unsearched_flips > 0) == kept
    assert ("some flips" in group.certificate) == kept


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_one_unit_are_the_asymmetric_network(name):
    config, input_shape, keys = BLOCKS[name]
    net, without = pair(config, input_shape, **keys, block=1)
    assert fingerprint(net) == fingerprint(without)
    assert fingerprint(net) != fingerprint(pair(config, input_shape, **keys, block=2)[0])


def test_blocks_of_a_users_module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = Mine(6, 4, 8, 2)
    net = asymmetrize(
        plain,
        kind="block_fixed",
        block=2,
        fixed_per_row=(3, 3, 4, 4, 4),
        kappa=1.0,
        input_shape=(6,),
    )
    group = symmetry_group(net, input_shape=(6,))
    assert {one.name: one.size for one in group.spec.groups.values()} == {
        "left": 6,
        "right": 4,
        "inner": 8,
    }
    assert group.order == 2 ** ((6 + 4 + 8) // 2)


# -- planted symmetries


def copy_unit(net: nn.Module, source: int, target: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Masks and fixed values of two layers with the first one's unit `target` fixed as `source`
    is."""
    first, second = net.layers
    masks = first.mask.clone(), second.mask.clone()
    values = first.fixed.clone(), second.fixed.clone()
    for made, read in (masks, values):
        made[target] = made[source]
        read[:, target] = read[:, source]
    return (*masks, *values)


def check_planted(net: nn.Module, source: int, target: int) -> None:
    low, high = sorted((source, target))
    group = symmetry_group(net)
    assert group.order == 2
    assert [dict(component.units) for component in group.components] == [{"layers.0": (low, high)}]
    assert group.certificate.startswith(
        "not trivial: 2 of 18 hidden units can move, in 1 independent component"
    )
    (swap,) = group.generators()
    order = torch.arange(10)
    order[[low, high]] = order[[high, low]]
    assert swap.same_as(group.spec.permutation({"layers.0": order}))
    assert duplicate_rows(group.fixed) == {"layers.0.weight": [[low, high]]}
    model = BayesianModel(net.double(), Prior(), Categorical())
    x, y = normal(5, 8), torch.tensor([0, 2, 1, 1, 0])
    flat = normal(model.num_parameters, key="flat")
    permuted = model.permute(flat, swap)
    assert not torch.equal(permuted, flat)
    assert difference(model.outputs(flat, x), model.outputs(permuted, x)) <= 1e-10
    assert log_density(model, flat, x, y) == pytest.approx(
        log_density(model, permuted, x, y), rel=1e-10
    )


def small(kind: str = "weight_asymmetric", kappa: float = 1.0, seed: int = 0) -> nn.Module:
    symmetry = SymmetryConfig(kind=kind, fixed_per_row=3, kappa=kappa, seed=seed)
    return build_network(
        MLPConfig(widths=(10, 8), symmetry=symmetry), input_shape=(8,), num_outputs=3
    )


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize(("source", "target"), [(0, 1), (7, 3)])
def test_a_planted_duplicate_is_found_and_no_other(source, target, kappa):
    made = small(kappa=kappa)
    assert symmetry_group(made).is_trivial
    assert duplicate_rows(symmetry_group(made).fixed) == {}
    net = small("standard")
    first, second, first_values, second_values = copy_unit(made, source, target)
    assert len(second.unique(dim=0)) == len(second)  # else more than the swap is left
    fix_entries(net.layers[0], first, first_values)
    fix_entries(net.layers[1], second, second_values)
    fix_entries(net.head, made.head.mask, made.head.fixed)
    check_planted(net, source, target)


def test_a_duplicate_is_found_among_loaded_buffers():
    """Where the two units are read through as many free entries, which a saved run's masks must
    have too."""
    net = small(seed=1)
    count = net.layers[1].mask.sum(0)
    source, target = next(
        (i, j) for i in range(10) for j in range(10) if i < j and count[i] == count[j]
    )
    first, second, first_values, second_values = copy_unit(net, source, target)
    assert len(second.unique(dim=0)) == len(second)
    changed = {"layers.0.mask": first, "layers.0.fixed": first_values}
    changed |= {"layers.1.mask": second, "layers.1.fixed": second_values}
    assert symmetry_group(net).is_trivial
    load_fixed_buffers(net, {**fixed_buffers(net), **changed})
    check_planted(net, source, target)


def test_equal_rows_alone_are_named_but_no_symmetry():
    """Units with equal masks but other values or readers are distinguished, and listed."""
    made = small()
    for change in ("values", "readers"):
        net = small("standard")
        first, second, first_values, second_values = copy_unit(made, 2, 5)
        if change == "values":
            first_values = (
                made.layers[0].fixed.masked_fill(first, 0)
                + (~first).double() * torch.arange(10.0)[:, None]
            )
        else:
            second, second_values = made.layers[1].mask, made.layers[1].fixed
        fix_entries(net.layers[0], first, first_values)
        fix_entries(net.layers[1], second, second_values)
        group = symmetry_group(net)
        assert duplicate_rows(group.fixed) == {"layers.0.weight": [[2, 5]]}
        assert group.is_trivial


# -- the networks of the literature


def linear_mode_connectivity(kind: str) -> nn.Module:
    config = MLPConfig(
        widths=(512, 512, 512), norm="layer", activation="gelu", symmetry=SymmetryConfig(kind=kind)
    )
    return build_network(config, input_shape=(784,), num_outputs=10)


@pytest.mark.thorough
def test_the_mlp_of_linear_mode_connectivity():
    net = linear_mode_connectivity("weight_asymmetric")
    assert number_of_parameters(net) == 834_570
    assert sum(map(math.prod, weight_shapes(net).values())) == 935_434
    group = symmetry_group(net)
    assert group.certificate.startswith("trivial")
    assert (group.order, group.log10_order) == (1, 0)
    assert isinstance(net.head, FixedEntries)

    standard = linear_mode_connectivity("standard")
    assert number_of_parameters(standard) == 935_434
    full = symmetry_group(standard)
    assert full.log10_order == pytest.approx(3 * log10_factorial(512), rel=1e-12)
    assert full.order == math.factorial(512) ** 3
    assert full.certificate.startswith("full: nothing is fixed")
