"""Constants of a user-defined network are restored with the run, or the run is refused."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from bnn_symm.errors import InvalidRun
from bnn_symm.runs.configuration.config import parse_config
from bnn_symm.runs.directory import network_record
from bnn_symm.runs.directory.network_record import NetworkRecord, constants
from bnn_symm.runs.run import build_model

SOURCE = """
import os
import numpy as np
import torch
from torch import nn

SHIFT = [0.5]

def fresh(*shape):
    values = np.frombuffer(os.urandom(8 * int(np.prod(shape))), dtype=np.uint64) / 2.0**64
    return torch.tensor(values.reshape(shape), dtype=torch.float32)

class Net(nn.Module):
    def __init__(self, num_outputs, kind):
        super().__init__()
        self.head = nn.Linear(4, num_outputs)
        if kind == "buffer":
            self.register_buffer("features", fresh(3, 4))
        elif kind == "frozen":
            self.features = nn.Parameter(fresh(3, 4), requires_grad=False)
        elif kind == "plain":
            self.features = fresh(3, 4)
        else:
            self.kept = [fresh(3, 4)] if kind == "list" else [torch.ones(3, 4) * SHIFT[0]]

    def forward(self, x):
        features = self.kept[0] if hasattr(self, "kept") else self.features
        return self.head(torch.tanh(x @ features))

def build(num_outputs, kind):
    return Net(num_outputs, kind)
"""
X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "constantnets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("constantnets", None)


def model_of(kind: str):
    architecture = {"name": "module", "factory": "constantnets:build", "keywords": {"kind": kind}}
    config = parse_config({"architecture": architecture, "likelihood": {"name": "gaussian"}})
    return build_model(config, (3,), 1, None, X)


def stored(record: NetworkRecord, path: Path) -> NetworkRecord:
    path.write_bytes(record.to_bytes())
    return NetworkRecord.read(path)


@pytest.mark.parametrize("kind", ["buffer", "frozen", "plain"])
def test_constants_that_a_factory_draws_are_put_back(kind, tmp_path) -> None:
    first, second = model_of(kind), model_of(kind)
    flat = first.initial()
    assert not torch.equal(first.outputs(flat, X), second.outputs(flat, X))
    record = stored(NetworkRecord.of(first, X), tmp_path / "network.safetensors")
    record.restore(second, tmp_path, "constantnets:build")
    assert torch.equal(first.outputs(flat, X), second.outputs(flat, X))
    assert record.fingerprint == NetworkRecord.of(second, X).fingerprint
    assert record.fingerprint != NetworkRecord.of(model_of(kind), X).fingerprint


@pytest.mark.parametrize("kind", ["list", "global"])
def test_what_is_no_constant_of_the_network_is_found_by_its_outputs(kind, tmp_path) -> None:
    record = stored(NetworkRecord.of(model_of(kind), X), tmp_path / "network.safetensors")
    sys.modules["constantnets"].SHIFT[0] = 0.75
    with pytest.raises(InvalidRun, match="outputs of the network at the probe points"):
        record.restore(model_of(kind), tmp_path, "constantnets:build")


def test_large_constants_are_kept_as_a_hash(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(network_record, "_MAX_BYTES", 8)
    model = model_of("frozen")
    record = stored(NetworkRecord.of(model, X), tmp_path / "network.safetensors")
    assert (list(record.constants), list(record.hashes)) == ([], ["features"])
    record.restore(model, tmp_path, "constantnets:build")
    with pytest.raises(InvalidRun, match="features of the network was changed"):
        record.restore(model_of("frozen"), tmp_path, "constantnets:build")


def test_other_constants_are_refused_by_name(tmp_path) -> None:
    record = NetworkRecord.of(model_of("buffer"), X)
    with pytest.raises(InvalidRun, match="buffer features of the network is missing"):
        record.restore(model_of("list"), tmp_path, "constantnets:build")
    with pytest.raises(InvalidRun, match="buffer features of the network is new"):
        NetworkRecord.of(model_of("list"), X).restore(
            model_of("buffer"), tmp_path, "constantnets:build"
        )
    turned = dataclasses.replace(record, constants={"features": torch.ones(4, 3)})
    with pytest.raises(InvalidRun, match=r"has shape \(3, 4\), at the fit it had \(4, 3\)"):
        turned.restore(model_of("buffer"), tmp_path, "constantnets:build")


def test_missing_and_damaged_files(tmp_path) -> None:
    path = tmp_path / "network.safetensors"
    with pytest.raises(InvalidRun, match=r"has no network\.safetensors"):
        NetworkRecord.read(path)
    content = NetworkRecord.of(model_of("buffer"), X).to_bytes()
    for damaged in (b"", content[:40], content[:-5], content.replace(b"points", b"pointz")):
        path.write_bytes(damaged)
        with pytest.raises(InvalidRun, match=r"network\.safetensors"):
            NetworkRecord.read(path)


def test_the_record_does_not_touch_the_model() -> None:
    model = model_of("buffer")
    before, flat = (
        {name: value.clone() for name, value in constants(model.net).items()},
        model.initial(),
    )
    NetworkRecord.of(model, X)
    assert all(torch.equal(value, before[name]) for name, value in constants(model.net).items())
    assert torch.equal(model.initial(), flat)
