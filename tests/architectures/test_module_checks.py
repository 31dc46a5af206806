"""A network that is no function of one point and its trainable parameters is refused, by the
cause."""

import random
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from bnn_symm.architectures import check_function, check_structure, private_copy
from bnn_symm.errors import ConfigError

POINTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("count", torch.ones(()))
        self.constant, self.calls, self.cached, self.own_forward = torch.ones(8), 0, None, forward

    def forward(self, x):
        return self.own_forward(self, x)


def plain(net, x):
    return net.last(torch.tanh(net.first(x)) * net.constant)


def changes_input(net, x):
    x -= 1.0
    return plain(net, x)


def clamps_input(net, x):
    return plain(net, x.clamp_(-1, 1))


def writes_a_row(net, x):
    x[:, 0] = 0.0
    return plain(net, x)


def counts_in_an_attribute(net, x):
    net.calls += 1
    return plain(net, x) * net.calls


def counts_in_a_buffer(net, x):
    net.count += 1
    return plain(net, x) / net.count


def averages_parameters(net, x):
    net.count = 0.9 * net.count + 0.1 * net.first.weight.detach().mean()
    return plain(net, x) * net.count


def caches(net, x):
    if net.cached is None:
        net.cached = net.first.weight.detach().sum()
    return plain(net, x) * net.cached


def draws_in_torch(net, x):
    return plain(net, x) + torch.randn(())


def draws_in_numpy(net, x):
    return plain(net, x) + float(np.random.randn())  # noqa: NPY002


def draws_in_python(net, x):
    return plain(net, x) + random.random()


def draws_rarely(net, x):
    return plain(net, x) * (1.0 if torch.rand(()) < 0.999 else 0.0)


def reads_a_clock(net, x):
    return plain(net, x) * (time.perf_counter_ns() % 1000)


def drops_in_training(net, x):
    return nn.functional.dropout(plain(net, x), 0.1, net.training)


def looks_at_the_mode(net, x):
    return plain(net, x) * (2.0 if net.training else 1.0)


def changes_a_parameter(net, x):
    with torch.no_grad():
        net.first.weight.mul_(0.9)
    return plain(net, x)


def detaches(net, x):
    return net.last(torch.tanh(net.first(x)).detach())


def goes_through_numpy(net, x):
    return torch.from_numpy(plain(net, x).detach().numpy())


def keeps_its_graph(net, x):
    net.hidden = net.first(x)
    return net.last(net.hidden)


def centers(net, x):
    return plain(net, x - x.mean(0))


def depends_on_order(net, x):
    return plain(net, x) * torch.arange(1, len(x) + 1, dtype=x.dtype)[:, None]


def returns_double(net, x):
    return plain(net, x).double()


def ignores_parameters(net, x):
    return x[:, :2]


def divides_by_zero(net, x):
    return plain(net, x) / 0.0


def recomputes(net, x):
    hidden = checkpoint(lambda z: torch.tanh(net.first(z)), x, use_reentrant=False)
    return net.last(hidden)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (changes_input, "input in place"),
        (clamps_input, "input in place"),
        (writes_a_row, "input in place"),
        (counts_in_an_attribute, "former calls"),
        (counts_in_a_buffer, "former calls"),
        (averages_parameters, "former calls"),
        (caches, "former calls"),
        (draws_in_torch, "random numbers"),
        (draws_in_numpy, "random numbers"),
        (draws_in_python, "random numbers"),
        (draws_rarely, "random numbers"),
        (reads_a_clock, "two passes"),
        (drops_in_training, "dropout of 0.1 at .*test_module_checks.py"),
        (recomputes, "activation checkpoints"),
        (looks_at_the_mode, "evaluation mode"),
        (changes_a_parameter, "changes its parameter first.weight"),
        (detaches, "it gets no gradient"),
        (goes_through_numpy, "it gets no gradient"),
        (keeps_its_graph, "keeps a tensor that it computed as hidden"),
        (centers, "batch"),
        (depends_on_order, "batch"),
        (returns_double, "torch.float64"),
        (ignores_parameters, "do not depend on any parameter"),
        (divides_by_zero, "NaN or infinite"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_function_is_refused(forward, words) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    net = private_copy(Net(forward), "net")
    torch.set_rng_state(states[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ConfigError, match=words) as caught:
        check_function("net", net, POINTS, 2)
    assert len(str(caught.value)) <= 300
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def counts_for_nothing(net, x):
    net.calls += 1
    return plain(net, x)


def copies_its_input(net, x):
    x = x.clone()
    x -= 1.0
    return plain(net, x)


@pytest.mark.parametrize("forward", [plain, counts_for_nothing, copies_its_input])
def test_what_is_a_function_passes(forward) -> None:
    assert check_function("net", private_copy(Net(forward), "net"), POINTS, 2) == 2


def test_shapes() -> None:
    with pytest.raises(ConfigError, match=r"\(4, 2\) for 4 points, want \(4, 3\)"):
        check_function("net", private_copy(Net(plain), "net"), POINTS, 3)
    with pytest.raises(ConfigError, match=r"points of shape \(4, 5\) raised RuntimeError"):
        check_function("net", private_copy(Net(plain), "net"), torch.zeros(6, 5), 2)


def pruned() -> nn.Module:
    layer = nn.Linear(4, 2)
    prune.l1_unstructured(layer, "weight", 0.3)
    return layer


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: 3, "type int"),
        (lambda: nn.Linear, "the class Linear"),
        (lambda: nn.ReLU(), "without parameters"),
        (lambda: nn.Linear(4, 2).requires_grad_(False), "requires_grad=False"),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), "batch statistics"),
        (
            lambda: nn.Sequential(nn.Linear(4, 2), nn.InstanceNorm1d(2, track_running_stats=True)),
            "batch statistics",
        ),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.2)), "dropout of 0.2"),
        (lambda: nn.TransformerEncoderLayer(4, 2), "dropout of 0.1"),
        (lambda: nn.LSTM(4, 2, num_layers=2, dropout=0.3), "dropout of 0.3"),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.RReLU()), "random numbers"),
        (lambda: nn.utils.spectral_norm(nn.Linear(4, 2)), "former calls"),
        (lambda: parametrizations.spectral_norm(nn.Linear(4, 2)), "former calls"),
        (old_weight_norm, "parametrizations.weight_norm"),
        (pruned, "prune.remove"),
        (lambda: nn.LazyLinear(2), "no shape yet"),
        (lambda: nn.Linear(4, 2, dtype=torch.complex64), "complex"),
        (lambda: nn.Linear(4, 2, device="meta"), "meta device"),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2).double()), "one dtype"),
        (lambda: nn.DataParallel(nn.Linear(4, 2)), "DataParallel"),
    ],
)
def test_layers_and_parameters_that_are_refused(make, words) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_structure("net", make())
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    "make",
    [
        lambda: parametrizations.weight_norm(nn.Linear(4, 2)),
        lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Linear(4, 2)),
        lambda: nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.0)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
    ],
)
def test_layers_that_have_a_density(make) -> None:
    net = make()
    check_structure("net", net)
    assert check_function("net", private_copy(net, "net"), POINTS, 2) == 2


def test_rounding_that_float64_does_not_have_is_no_dependence_on_the_batch():
    def rounded(net, x):
        outputs = plain(net, x)
        return outputs if x.dtype == torch.float64 else outputs * (1 + 0.01 * len(x))

    assert check_function("net", Net(rounded), POINTS, 2) == 2
    with pytest.raises(ConfigError, match="changes with the batch"):
        check_function("net", Net(lambda net, x: plain(net, x) * len(x)), POINTS, 2)
