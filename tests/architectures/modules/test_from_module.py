import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bnn_symm.architectures import ModuleConfig, build_network
from bnn_symm.errors import ConfigError

SOURCE = """
import torch
from torch import nn

LIMIT = 3

def good(input_shape, num_outputs, width=5):
    first = nn.Linear(input_shape[0], width)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(width, num_outputs))

def plain(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

def anything(**keywords):
    return good(**keywords)

class Net(nn.Module):
    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.linear = nn.Linear(input_shape[0], num_outputs)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, x):
        self.calls += 1
        return self.linear(x)

def lazy(num_outputs):
    return nn.LazyLinear(num_outputs)

def fails():
    raise RuntimeError("no weights today")

def no_module():
    return 3

def no_parameters():
    return nn.ReLU()

def wrong_size(num_outputs):
    return nn.Linear(4, num_outputs + 1)

def wrong_input(num_outputs):
    return nn.Linear(9, num_outputs)

def batch_norm(num_outputs):
    return nn.Sequential(nn.Linear(4, num_outputs), nn.BatchNorm1d(num_outputs))

def instance_norm(num_outputs):
    norm = nn.InstanceNorm1d(num_outputs, track_running_stats=True)
    return nn.Sequential(nn.Linear(4, num_outputs), norm)

def dropout(num_outputs, rate=0.1):
    return nn.Sequential(nn.Linear(4, num_outputs), nn.Dropout(rate))

class Base(nn.Module):
    def __init__(self, num_outputs):
        super().__init__()
        self.linear = nn.Linear(4, num_outputs)

class Pair(Base):
    def forward(self, x):
        return self.linear(x), x

class Labels(Base):
    def forward(self, x):
        return self.linear(x).round().long()

class Centered(Base):
    def forward(self, x):
        return self.linear(x - x.mean(0))

class Noisy(Base):
    def forward(self, x):
        return self.linear(x) + torch.randn(())

class Modal(Base):
    def forward(self, x):
        return self.linear(x) * (2 if self.training else 1)

class Undefined(Base):
    def forward(self, x):
        return self.linear(x).sqrt()

class OnlyPairs(Base):
    def forward(self, x):
        if len(x) != 2:
            raise ValueError("two points, please")
        return self.linear(x)
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "usernets.py").write_text(SOURCE)
    (tmp_path / "brokennets.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "needynets.py").write_text("import package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("usernets", "brokennets", "needynets"):
        sys.modules.pop(name, None)


def build(factory: str, seed: int = 0, **keywords: object) -> torch.nn.Module:
    config = ModuleConfig(factory=factory, keywords=keywords)
    return build_network(config, input_shape=(4,), num_outputs=3, seed=seed)


@pytest.mark.parametrize(
    ("factory", "keywords"),
    [
        ("usernets:good", {}),
        ("usernets:good", {"width": 9}),
        ("usernets:plain", {"width": 2}),
        ("usernets:anything", {"width": 2}),
        ("usernets:Net", {}),
        ("usernets:lazy", {}),
        ("usernets:dropout", {"rate": 0.0}),
    ],
)
def test_a_factory_gets_what_it_takes(factory: str, keywords: dict) -> None:
    path = list(sys.path)
    net = build(factory, **keywords)
    assert net(torch.zeros(6, 4)).shape == (6, 3)
    assert net.training
    assert sys.path == path


def test_initial_values_are_the_factorys_own_and_repeat() -> None:
    state = torch.get_rng_state()
    first, again, other = (build("usernets:good", seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["1.weight"], other["1.weight"])
    assert first["1.bias"].abs().min() > 0  # torch's own draw for a bias; ours would be zero


def test_the_checks_leave_buffers_alone() -> None:
    assert float(build("usernets:Net").get_buffer("calls")) == 0


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("usernets", r"got architecture.factory='usernets', want package.module:factory"),
        ("usernets.good", r"want package.module:factory"),
        ("user nets:good", r"want package.module:factory"),
        (".usernets:good", r"want package.module:factory"),
        (
            "nowhere_nets:good",
            r"no module 'nowhere_nets' in .* or among the installed packages; change to",
        ),
        ("usernets.inner:good", r"no module 'usernets.inner'"),
        ("brokennets:good", r"importing brokennets raised ZeroDivisionError: division by zero"),
        (
            "needynets:good",
            r"importing needynets raised ModuleNotFoundError: .*package_that_is_not_there",
        ),
        ("usernets:goood", r"usernets has no 'goood'; did you mean 'good'\?"),
        ("usernets:LIMIT", r"of type int, want a function or class"),
        ("usernets:fails", r"usernets:fails raised RuntimeError: no weights today"),
        ("usernets:plain", r"missing a required argument: 'width'; set what is missing"),
        ("usernets:no_module", r"got an object of type int, expected a torch.nn.Module"),
        ("usernets:no_parameters", r"without parameters"),
        ("usernets:wrong_size", r"got outputs of shape \(4, 4\) for 4 points, want \(4, 3\)"),
        ("usernets:wrong_input", r"on points of shape \(4, 4\) raised RuntimeError"),
        ("usernets:Pair", r"got an output of type tuple"),
        ("usernets:Labels", r"got an output of type torch.int64"),
        (
            "usernets:batch_norm",
            r"has BatchNorm1d in '1': .*depend on its batch; .*freeze_.*convert_",
        ),
        ("usernets:instance_norm", r"InstanceNorm1d.*use LayerNorm/GroupNorm"),
        ("usernets:dropout", r"has Dropout in '1': dropout of 0.1 is not supported"),
        ("usernets:Centered", r"changes with the batch it is in.*use LayerNorm/GroupNorm"),
        ("usernets:Noisy", r"two passes on the same points differ"),
        ("usernets:Modal", r"outputs differ between training and evaluation mode"),
        ("usernets:Undefined", r"NaN or infinite"),
        (
            "usernets:OnlyPairs",
            r"raised ValueError: two points, please; want a pass for any number",
        ),
    ],
)
def test_errors_of_factories_and_modules(factory: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(factory)


def test_an_unknown_keyword_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"has 'widht', which .* does not take; did you mean 'width'\?"
    ):
        build("usernets:good", widht=3)
    with pytest.raises(ConfigError, match=r"does not take; it takes none"):
        build("usernets:no_module", width=3)
