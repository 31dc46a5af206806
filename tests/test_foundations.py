"""Randomness by key, atomic files, threads, the lazy public names, and optional extras."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

import bnn_symm
from bnn_symm import BayesianModel, Prior, SamplePosterior
from bnn_symm.data import Split
from bnn_symm.data.loaders.fetch import _download
from bnn_symm.diagnostics.scores.loo import loo
from bnn_symm.errors import MissingExtra
from bnn_symm.io.atomic import write_atomically, write_json
from bnn_symm.likelihoods import Gaussian
from bnn_symm.randomness import global_seed, key_seed, numpy_generator, torch_generator
from bnn_symm.studies.executors import dask_executor
from bnn_symm.threads import choose_threads, use_threads


def test_keys_are_the_same_in_every_process():
    code = "from bnn_symm.randomness import key_seed; print(key_seed(3, 'noise', 7))"
    # This process has another salt of its hashes.
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(out.stdout) == key_seed(3, "noise", 7)


def test_every_part_of_a_key_counts():
    keys = [(1, "a"), (1, "b"), (2, "a"), ("1", "a"), (1, "a", 0), ("1a",), (1,), (11,), (1, 1)]
    assert len({key_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= key_seed(*key) < 2**63 for key in keys)
    with pytest.raises(TypeError):
        key_seed(1.5)  # type: ignore[arg-type]


def test_generators_repeat():
    assert torch.equal(*(torch.randn(3, generator=torch_generator(0, "x")) for _ in range(2)))
    assert numpy_generator(0, "x").normal() == numpy_generator(0, "x").normal()
    torch.manual_seed(0)
    wanted = torch.rand(2)
    torch.manual_seed(0)
    with global_seed(5):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), wanted)
    assert not torch.equal(inside, wanted)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text().strip() == '{\n  "x": 1\n}'
    write_json(path, {"x": [float("nan")]})
    assert json.loads(path.read_text()) == {"x": [None]}


def test_threads_go_by_problem_size_and_come_back():
    assert choose_threads(10**5) == 1
    assert choose_threads(10**12) >= 1
    assert choose_threads(10**12, 3) == 3
    before = torch.get_num_threads()
    with use_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_public_names_are_lazy_and_complete():
    code = (
        "import sys, bnn_symm; assert not {'torch', 'pyro', 'pandas'} & set(sys.modules); "
        "bnn_symm.MeanFieldVI; import bnn_symm.runs; "
        "assert not {'scipy.stats', 'scipy.optimize', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in bnn_symm.__all__:
        assert getattr(bnn_symm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bnn_symm.nothing  # noqa: B018


def test_names_that_left_the_top_level_are_found_in_their_namespaces():
    for name in ("Gaussian", "mixing", "score", "merge", "run_study", "Config", "Predictive"):
        assert name not in bnn_symm.__all__
        assert getattr(bnn_symm, name).__name__ == name
    assert bnn_symm.foreign_run is bnn_symm.runs.external_run
    with pytest.raises(AttributeError, match="has no attribute 'Gausian'"):
        _ = bnn_symm.Gausian


def test_the_version_is_that_of_the_installed_package():
    assert bnn_symm.__version__ == metadata.version("bnn_symm")


def test_a_missing_extra_is_reported_in_one_line_that_installs_it(monkeypatch, tmp_path):
    root = Path(__file__).parent.parent
    used = {
        (extra, package)
        for path in (root / "bnn_symm").rglob("*.py")
        for extra, package in re.findall(
            r'^\s+require_extra\("(\w+)", "(\w+)", ', path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert {extra for extra, _ in used} == {"arviz", "dask", "fetch"}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, package in used:
        (requirement,) = project["optional-dependencies"][extra]
        assert requirement.startswith(package)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = BayesianModel(torch.nn.Linear(2, 1), Prior(), Gaussian(noise=0.1))
    posterior = SamplePosterior.from_draws(model, torch.randn(2, 20, 3))
    split = Split(x=torch.randn(4, 2), y=torch.randn(4))
    calls = {
        "arviz": lambda: bnn_symm.to_arviz(posterior),
        "dask": lambda: next(dask_executor.__wrapped__("tcp://127.0.0.1:1", tmp_path)),
        "fetch": lambda: _download("https://example.org", tmp_path / "file", 1),
    }
    for extra, call in calls.items():
        with pytest.raises(MissingExtra) as caught:
            call()
        message = str(caught.value)
        assert message.endswith(f'; type: pip install "bnn_symm[{extra}]"')
        assert "\n" not in message
    assert "bnn_symm[arviz]" in loo(posterior, split).notes[0]
