"""What code of users does besides calling layers: in-place writes, conversions, values that leave
torch, errors."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_symm.errors import SymmetryError
from bnn_symm.symmetry import permutation_spec, symmetry_group
from bnn_symm.symmetry.tracing.tracer import RULES

from .small_networks import Net, linear, parameter

FULL, FLIPS = math.factorial(4), 2**4


def two(forward: Callable[..., Tensor], **own: nn.Module | Tensor) -> nn.Module:
    return Net(forward, a=linear(3, 4), b=linear(4, 2), **own)


def into_out(s: Net, x: Tensor) -> Tensor:
    h = torch.empty(x.shape[0], 4)
    torch.tanh(s.a(x), out=h)
    return s.b(h)


def copied(s: Net, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 4)
    h.copy_(s.a(x))
    return s.b(h.tanh())


def in_place(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    h.tanh_()
    h += 1
    return s.b(F.relu(h, inplace=True))


def through_a_view(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    h[:, :2].mul_(2)
    return s.b(h)


def into_a_constant(s: Net, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 4)
    h[:, :].add_(s.a(x))
    return s.b(h)


def unit_by_unit(s: Net, x: Tensor) -> Tensor:
    return s.b(torch.stack([torch.tanh(unit) for unit in s.a(x).t()], 1))


def leaves_torch(s: Net, x: Tensor) -> Tensor:
    return s.b(torch.tanh(s.a(x) * float(s.a(x).detach().numpy().sum())))


def branches(s: Net, x: Tensor) -> Tensor:
    h = s.a(x)
    return s.b(h.tanh() if bool(h.sum() > 0) else h)


def converts(s: Net, x: Tensor) -> Tensor:
    return s.b(torch.tanh(s.a(x.float())).to(torch.float32))


@pytest.mark.parametrize(
    ("forward", "order", "held"),
    [
        (into_out, FULL * FLIPS, 0),
        (copied, FULL * FLIPS, 0),
        (in_place, FULL, 0),
        (converts, FULL * FLIPS, 0),
        (branches, FULL, 0),
        (unit_by_unit, 1, 4),
        (leaves_torch, 1, 4),
        (lambda s, x: s.b(torch.tanh(s.a(x) + torch.zeros(4))), FULL * FLIPS, 0),
        (lambda s, x: s.b(torch.where(s.a(x) > 0, s.a(x), torch.zeros(4))), FULL, 0),
        (lambda s, x: s.b(torch.tanh(s.a(x)) * torch.tensor([1.0, 2.0, 3.0, 4.0])), 1, 4),
        (lambda s, x: s.b(torch.tanh(x @ s.a.weight.t())), FULL * FLIPS, 0),
        (
            lambda s, x: s.b(torch.tanh(s.a(x))) + F.linear(torch.tanh(s.a(-x)), s.b.weight),
            FULL * FLIPS,
            0,
        ),
    ],
)
def test_the_group_of_unusual_code(forward, order, held):
    group = symmetry_group(two(forward), input_shape=(3,))
    assert (group.order, group.spec.num_frozen_units) == (order, held)
    assert (group.spec.frozen_at is not None) == (held > 0)


def test_a_number_read_from_a_parameter_pins_it():
    spec = permutation_spec(
        two(lambda s, x: s.b(torch.tanh(s.a(x))) * s.g.item(), g=parameter(1)), (3,)
    )
    assert (list(spec.groups), spec.num_frozen_units) == (["a"], 1)


def test_a_mask_of_ones_own_is_fixed_and_its_weight_flips():
    """The mask leaves no order of the units on either side, and every flip."""
    net = two(
        lambda s, x: s.b(torch.tanh(F.linear(torch.tanh(s.a(x)), s.w * s.m))),
        w=parameter(4, 4),
        m=torch.tril(torch.ones(4, 4)),
    )
    group = symmetry_group(net, input_shape=(3,))
    assert (group.order, group.spec.num_unsearched_flips) == (2**8, 0)


def test_operations_on_constants_need_no_rule():
    """The result is a constant, which distinguishes units without a proof."""
    net = two(lambda s, x: s.b(torch.tanh(s.a(x)) + torch.fft.fft(s.k).real), k=torch.randn(4))
    assert "fft_fft" not in RULES
    spec = permutation_spec(net, (3,))
    assert (dict(spec.groups), spec.num_frozen_units) == ({}, 4)


@pytest.mark.parametrize("forward", [through_a_view, into_a_constant])
def test_units_in_memory_that_was_written_through_another_tensor_stay(forward):
    spec = permutation_spec(two(forward), (3,))
    assert dict(spec.groups) == {}
    assert spec.num_frozen_units >= 4


def test_an_operation_of_a_torch_module_is_named_with_that_module():
    net = nn.Sequential(linear(3, 8), nn.Sequential(nn.LPPool1d(1, 2)), linear(4, 2))
    with pytest.raises(SymmetryError, match=r"'lp_pool1d' in module '1\.0' \(LPP") as caught:
        permutation_spec(net, (3,))
    assert ".py" not in str(caught.value)
    assert len(str(caught.value)) <= 350


def test_an_operation_of_a_torch_module_is_named_with_the_line_that_calls_it():
    def forward(s: Net, x: Tensor) -> Tensor:
        return s.inner(x)

    wrapped = Net(forward, inner=nn.Sequential(linear(3, 8), nn.LPPool1d(1, 2), linear(4, 2)))
    with pytest.raises(
        SymmetryError,
        match=r"test_code_of_users\.py:\d+ .*s\.inner\(x\).* in module 'inner\.1' \(LPPool1d\)",
    ):
        permutation_spec(wrapped, (3,))


def test_an_error_of_the_network_is_one_line_with_its_place():
    net = two(lambda s, x: s.b(torch.tanh(s.a(x)).view(-1, 7)))
    with pytest.raises(
        SymmetryError, match=r"the network raises RuntimeError at .*test_code_of_users\.py:\d+ "
    ) as caught:
        permutation_spec(net, (3,))
    assert "\n" not in str(caught.value)


def test_several_outputs_are_refused():
    with pytest.raises(SymmetryError, match="the network returns a tuple"):
        permutation_spec(two(lambda s, x: (s.a(x), x)), (3,))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize(
    ("wrap", "flips"),
    [
        (nn.utils.parametrizations.weight_norm, 4),
        (nn.utils.weight_norm, 4),
        (lambda layer: nn.utils.parametrizations.weight_norm(layer, dim=None), 0),
    ],
)
def test_weight_norm_as_parametrization_and_as_hook(wrap, flips):
    net = nn.Sequential(wrap(linear(3, 4)), nn.Tanh(), linear(4, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    group = symmetry_group(net, input_shape=(3,))
    assert (group.order, group.spec.num_unsearched_flips) == (FULL * FLIPS, flips)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm_has_the_symmetries_of_its_vectors(wrap):
    """In evaluation mode the weight is divided by u W v, whose fixed u distinguishes units."""
    net = nn.Sequential(wrap(linear(3, 4)), nn.Tanh(), linear(4, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert symmetry_group(net, input_shape=(3,)).is_trivial
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


def recurrent(s: Net, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 3)
    for _ in range(2):
        h = torch.tanh(s.cell(torch.cat([x, h], 1)))
    return s.b(h)


def iterated(s: Net, x: Tensor) -> Tensor:
    y = torch.zeros(len(x), 3)
    for _ in range(2):
        y = torch.sigmoid(s.out(torch.relu(s.cell(torch.cat((x, y), 1)))))
    return s.b(y)


def accumulated(s: Net, x: Tensor) -> Tensor:
    h = x.new_zeros(len(x), 3)
    h += torch.relu(s.a(x))
    h += torch.relu(s.a(-x))
    return s.b(h)


def half(h: Tensor) -> Tensor:
    m = torch.ones_like(h)
    m[:] = 0.5
    return m


ORDER = math.factorial(3)


@pytest.mark.parametrize(
    ("forward", "order", "held"),
    [
        (recurrent, ORDER * 2**3, 0),
        (iterated, math.factorial(6) * ORDER, 0),
        # Three columns of the weight meet zeros alone, and the slice ends at no unit.
        (
            lambda s, x: s.b(torch.tanh(s.a(torch.cat([x, torch.zeros(len(x), 3)], 1)[:, :2]))),
            6 * 8,
            0,
        ),
        (lambda s, x: s.d(torch.tanh(s.c(torch.cat([x, torch.zeros(len(x), 3)], 1)))), 120 * 32, 0),
        (lambda s, x: s.b(torch.tanh(s.a(x)) + F.pad(x, (0, 1))), 2, 0),
        (lambda s, x: s.b(torch.tanh(s.a(x)) + F.pad(x[:, :1], (1, 1))), 2, 2),
        (lambda s, x: s.b(torch.tanh(s.a(x)) + F.pad(x, (0, 1), value=1.0)), 1, 0),
        (lambda s, x: s.b(torch.relu(s.a(x)) * torch.ones_like(s.a(x)).fill_(0.5)), ORDER, 0),
        (lambda s, x: s.b(torch.relu(s.a(x)) * half(s.a(x))), ORDER, 0),
        (accumulated, ORDER, 0),
    ],
)
def test_parts_that_are_constant_beside_inputs(forward, order, held):
    net = Net(
        forward,
        a=linear(2, 3),
        b=linear(3, 2),
        cell=linear(5, 6 if forward is iterated else 3),
        out=linear(6, 3),
        c=linear(5, 5),
        d=linear(5, 1),
    )
    group = symmetry_group(net, input_shape=(2,))
    assert (group.order, group.spec.num_frozen_units) == (order, held)


def test_zeros_appended_to_channels_may_be_exchanged():
    def shortcut(s: Net, x: Tensor) -> Tensor:
        h = torch.relu(s.first(x))
        return torch.relu(s.second(h) + F.pad(h, (0, 0, 0, 0, 0, 2))).mean((2, 3)) @ s.w

    net = Net(
        shortcut, first=nn.Conv2d(1, 2, 3), second=nn.Conv2d(2, 4, 1), w=parameter(4, 1)
    ).double()
    assert symmetry_group(net, input_shape=(1, 5, 5)).order == 2 * 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: torch.vmap(lambda w: torch.relu(x @ w.T))(s.w).mean(0),
        lambda s, x: torch.vmap(lambda z: s.b(torch.relu(s.a(z))))(x),
    ],
)
def test_transforms_of_functions_are_refused(forward):
    net = two(forward, w=parameter(2, 4, 3))
    for hold in (False, True):
        with pytest.raises(SymmetryError, match=r"transform of torch\.func"):
            symmetry_group(net, input_shape=(3,), hold=hold)


def test_a_parameter_that_is_read_unobserved_is_refused():
    def forward(s: Net, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            weight = s.a.weight * 2
        return s.b(torch.tanh(F.linear(x, weight)))

    with pytest.raises(SymmetryError, match=r"parameter 'a\.weight' through operations"):
        symmetry_group(two(forward), input_shape=(3,))


@pytest.mark.parametrize(
    ("function", "order"),
    [
        (lambda h: F.threshold(h, 0.1, 0.0), FULL),
        (torch.tan, FULL * FLIPS),
        (torch.frac, FULL * FLIPS),
        (torch.sinc, FULL * FLIPS),
        (lambda h: torch.lgamma(h.exp()), FULL),
        (lambda h: torch.logit(torch.sigmoid(h)), FULL),
    ],
)
def test_functions_of_single_entries(function, order):
    net = two(lambda s, x: s.b(function(s.a(x))))
    assert symmetry_group(net, input_shape=(3,)).order == order


def test_channels_in_groups_of_groups_are_kept_and_counted():
    """Groups of 4 and then of 2 would need blocks of blocks."""
    net = nn.Sequential(
        nn.Conv1d(2, 8, 1),
        nn.ReLU(),
        nn.Conv1d(8, 8, 1, groups=4),
        nn.ReLU(),
        nn.Conv1d(8, 4, 1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 1),
    )
    group = symmetry_group(net, input_shape=(2, 1))
    assert group.spec.num_frozen_units > 0
    assert group.order < math.factorial(4)


@pytest.mark.parametrize(
    "mask",
    [
        lambda x, h: (x[:, :1] > 0).expand(h.shape).to(h.dtype),
        lambda x, h: x[:, :1].repeat(1, 4),
        lambda x, h: x[:, :1] * torch.ones(4),
    ],
)
def test_units_that_meet_copies_of_one_input_are_not_proved_to_stay(mask):
    net = two(lambda s, x: s.b(torch.relu(s.a(x)) * mask(x, s.a(x))))
    spec = symmetry_group(net, input_shape=(3,)).spec
    assert spec.num_frozen_units == 4
