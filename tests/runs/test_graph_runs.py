"""Runs on graphs keep the graph, and everything that reads runs reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bnn_symm.analyses.barriers import barrier_runs
from bnn_symm.errors import ConfigError, IncompatiblePosteriors, InvalidData, InvalidRun
from bnn_symm.inference.density.compiled import CompilerWarning
from bnn_symm.runs import Run, fit_run, load_config, load_run, resume_run
from bnn_symm.runs.compatibility import check_comparable
from bnn_symm.runs.directory import network_record
from bnn_symm.testing import Interruption

from .fits import same_bits

pytestmark = pytest.mark.thorough

RANDOM = np.random.default_rng(0)
NODES = 30
METHODS = {
    "map": ["inference.name=map", "inference.num_steps=12"],
    "mean_field_vi": ["inference.num_steps=12", "inference.num_draws=4"],
    "mclmc": [
        *("inference.name=mclmc", "inference.num_chains=2", "inference.num_warmup=4"),
        *("inference.num_draws=4", "inference.steps_per_draw=2"),
    ],
}


def write(path: Path, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    np.savez(
        path,
        x=RANDOM.normal(size=(NODES, 4)),
        y=np.arange(NODES) % 3,
        edges=generator.integers(0, NODES, size=(2, 40)),
        train=np.arange(18),
        validation=np.arange(18, 24),
        test=np.arange(24, 30),
    )


@pytest.fixture(autouse=True)
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "graph.npz")
    return tmp_path / "graph.npz"


def fit(path: str, method: str, *keys: str, **keywords) -> Run:
    architecture = ["architecture.name=gnn", "architecture.widths=[4,3]"]
    config = load_config(None, ["data.name=graph.npz", *architecture, *METHODS[method], *keys])
    return fit_run(config, path, **keywords)


def outputs(run: Run) -> torch.Tensor:
    return run.posterior.predict(torch.arange(NODES)[:, None]).outputs


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_has_the_same_bits_and_needs_no_data_to_predict(method, graph):
    whole = fit("whole", method)
    fit("part", method, callbacks=[Interruption(stop_after=3)])
    assert load_run("part").status == "interrupted"
    assert same_bits(resume_run("part"), whole)
    graph.unlink()
    loaded = load_run("whole")
    assert torch.equal(outputs(loaded), outputs(whole))
    assert len(loaded.predict(np.array([0, NODES - 1]))) == 2
    with pytest.raises(ConfigError, match=f"the graph has those from 0 to {NODES - 1}"):
        loaded.predict(np.array([0, NODES]))


def test_runs_have_a_barrier_before_and_after_alignment():
    runs = [fit(f"run{seed}", "map", f"seed={seed}") for seed in (0, 1)]
    assert check_comparable(runs) == []
    ways = barrier_runs(runs).to_dict()["ways"]
    assert ways.keys() == {"naive", "aligned"}
    assert np.isfinite([way["height"] for way in ways.values()]).all()


def test_runs_on_other_graphs_are_not_compared(graph):
    first = fit("first", "map")
    write(graph, seed=1)
    with pytest.raises(IncompatiblePosteriors, match="constants"):
        check_comparable([first, fit("second", "map")])
    with pytest.raises(IncompatiblePosteriors, match="initial"):
        fit("third", "map", "initial=first")


def test_a_large_graph_is_read_from_the_data_and_compared(graph, monkeypatch):
    monkeypatch.setattr(network_record, "_MAX_BYTES", 100)
    run = fit("run", "map")
    assert torch.equal(outputs(load_run("run")), outputs(run))
    write(graph, seed=1)
    with pytest.raises(InvalidRun, match=r"buffer neighborhood.*graph\.npz"):
        load_run("run")


def test_another_graph_is_no_list_of_nodes():
    run = fit("run", "map")
    with pytest.raises(InvalidData, match="its own graph"):
        run.predict("graph.npz")
    with pytest.raises(InvalidData, match="digits_graph is a graph"):
        run.predict("digits_graph")
    Path("nodes.csv").write_text("node\n3\n-1\n")
    with pytest.raises(InvalidData, match="row 2: got the node -1"):
        run.predict("nodes.csv")


def test_samplers_do_not_compile(recwarn):
    fit("run", "mclmc", "inference.compile=true")
    assert not [warning for warning in recwarn if warning.category is CompilerWarning]
