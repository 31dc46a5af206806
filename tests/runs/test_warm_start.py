"""Methods that run one after another in one run, bitwise identical after any interruption."""

import json
import os
import signal
import warnings

import jaxtyping
import pandas
import pytest
import torch

from bnn_symm.errors import ConfigError, FitDiverged
from bnn_symm.inference import Callback
from bnn_symm.runs import fit_run, load_config, load_run, resume_run
from bnn_symm.runs.configuration.prepare import prepare
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.studies.keys import fit_key
from bnn_symm.testing import exact_posterior

from .fits import GAP, fit, flags, history, lines, run_elsewhere, same_bits, start, wait_until

pytestmark = pytest.mark.thorough

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    import arviz

OFTEN = "checkpoint.every=0.02"
STAGES = (
    "warm_start=[{name: map, num_steps: 30}, {name: mean_field_vi, num_steps: 30, num_draws: 20}]"
)
NUTS = (
    "inference={name: nuts, max_tree_depth: 2, num_warmup: 10, num_draws: 20, num_chains: 2, "
    "compile: false}"
)
KEYS = [*GAP, STAGES, NUTS, OFTEN]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("runs") / "undisturbed", KEYS)


class StopIn(Callback):
    """Stop a stage after a number of its rows."""

    def __init__(self, stage, rows):
        self.stage, self.rows, self.seen = stage, rows, []

    def on_history(self, row):
        self.seen.append(row["stage"])

    def should_stop(self):
        return self.seen.count(self.stage) >= self.rows


def test_map_then_vi_then_nuts_end_at_the_exact_posterior_of_linear_regression(tmp_path):
    """Means are within four standard errors; the earlier stages are at their optima."""
    keys = [
        *(
            "data={name: diabetes, validation_fraction: 0.1}",
            "architecture.widths=[]",
            "dtype=float64",
        ),
        "likelihood={name: gaussian, noise: 0.7}",
        "warm_start=[{name: map, num_steps: 500, learning_rate: 0.05}, {name: mean_field_vi, "
        "num_steps: 200}]",
        "inference={name: nuts, num_warmup: 60, num_draws: 60, compile: false}",
    ]
    jaxtyping.config.update("jaxtyping_disable", True)  # hundreds of trajectories of eleven numbers
    try:
        run = fit(tmp_path / "run", keys)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    exact = exact_posterior(run.dataset())
    draws = run.posterior.draws().double().unflatten(0, (4, 60)).numpy()
    for i in range(draws.shape[-1]):
        own = draws[..., i]
        assert arviz.ess(own) >= 100  # so that four standard errors of it mean something
        assert abs(own.mean() - float(exact.mean[i])) <= 4 * arviz.mcse(own)
    found = [torch.from_numpy(_loc(run.path / "warm_start" / str(number))) for number in (1, 2)]
    for loc in found:  # a Gaussian's mode and the mean of its mean-field optimum are its mean
        assert float(((loc - exact.mean) / exact.sd).abs().max()) < 0.01


def _loc(folder):
    import h5netcdf
    import numpy as np

    with h5netcdf.File(folder / "posterior.nc", "r") as file:
        if "variational" in file.groups:
            return np.asarray(file["variational"]["loc"][...])
        group = file["posterior"]
        values = [np.asarray(group[name][0, 0]).ravel() for name in ("head.weight", "head.bias")]
        return np.concatenate(values)


@pytest.mark.parametrize(
    ("stage", "rows"), [(1, 4), (2, 1), pytest.param(3, 1, marks=pytest.mark.thorough)]
)
def test_a_stopped_stage_is_resumed_bitwise_identically(tmp_path, undisturbed, stage, rows):
    path = tmp_path / "run"
    stopped = fit_run(load_config(None, KEYS), path, callbacks=[StopIn(stage, rows)])
    assert stopped.status == "interrupted"
    rows = stopped.directory.read_history()
    assert {row["stage"] for row in rows} == {stage}
    method = ("map", "mean_field_vi", "nuts")[stage - 1]
    assert stopped.posterior.info["method"] == method
    stages = []

    class Interruption(Callback):
        def on_history(self, row):
            stages.append(row["stage"])

    resumed = resume_run(path, callbacks=[Interruption()])
    assert min(stages) == stage  # the stages before were not run again
    assert resumed.status == "complete"
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    assert resumed.metrics == undisturbed.metrics
    files = [
        {str(file.relative_to(run.path)) for file in run.path.rglob("*")}
        for run in (resumed, undisturbed)
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("short", "long", "log", "rows"),
    [
        (
            "mean_field_vi, num_steps: 30",
            "mean_field_vi, num_steps: 400",
            "warm_start/2/history.jsonl",
            20,
        ),
        ("num_draws: 20, num_chains", "num_draws: 600, num_chains", "history.jsonl", 6),
    ],
    ids=["second", "last"],
)
def test_a_killed_stage_is_resumed_bitwise_identically(
    tmp_path, undisturbed, short, long, log, rows
):
    path = tmp_path / "run"
    longer = [key.replace(short, long) for key in KEYS]
    process = start(["fit", *flags(longer), "--out", str(path)], tmp_path / "log")
    wait_until(lambda: lines(path / log) > rows or not process.is_alive(), seconds=120)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert load_run(path).status == "interrupted"
    before = {file: file.stat().st_mtime_ns for file in path.glob("warm_start/*/posterior.nc")}
    assert len(before) == (1 if "warm_start" in log else 2)
    run_elsewhere(["fit", "--resume", str(path)], tmp_path / "resume.log")
    run_elsewhere(["fit", *flags(longer), "--out", str(tmp_path / "other")], tmp_path / "other.log")
    resumed, other = load_run(path), load_run(tmp_path / "other")
    assert same_bits(resumed, other)
    assert history(resumed) == history(other)
    assert all(
        file.stat().st_mtime_ns == written for file, written in before.items()
    )  # they were not run again
    assert resumed.posterior.shape != undisturbed.posterior.shape or not same_bits(
        resumed, undisturbed
    )


@pytest.mark.parametrize("when", ["before the last file of a stage", "after it"])
def test_killed_between_two_stages(tmp_path, undisturbed, monkeypatch, when):
    def killed(self, *_):
        raise KeyboardInterrupt

    name = "finish_history" if when.startswith("before") else "remove_working_files"
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, name, killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", KEYS)
    assert (tmp_path / "run" / "warm_start" / "1" / "history.parquet").exists() == when.startswith(
        "after"
    )
    run = load_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert run.posterior.info["method"] == "map"
    resumed = resume_run(tmp_path / "run")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)


def test_the_cost_of_all_stages_is_counted_and_every_row_has_its_stage(undisturbed):
    record = json.loads((undisturbed.path / "run.json").read_text())
    assert [stage["method"] for stage in record["warm_start"]] == ["map", "mean_field_vi"]
    assert [stage["gradient_evaluations"] for stage in record["warm_start"]] == [30, 30]
    rows = pandas.read_parquet(undisturbed.path / "history.parquet")
    assert sorted(set(rows["stage"])) == [1, 2, 3]
    last = rows[rows["stage"] == 3].groupby("chain").last()
    own = last["gradient_evaluations"] - 60  # of one chain, after what was before
    assert (own > 0).all()
    assert record["gradient_evaluations"] == 60 + own.sum()
    assert (
        rows["seconds"].is_monotonic_increasing
        or rows.groupby("chain")["seconds"].is_monotonic_increasing.all()
    )
    assert record["seconds"] >= sum(stage["seconds"] for stage in record["warm_start"])
    assert undisturbed.posterior.info["gradient_evaluations"] == record["gradient_evaluations"]
    assert {row["stage"] for row in undisturbed.posterior.history} == {3}
    assert all(
        "learning_rate" not in row for row in undisturbed.posterior.history
    )  # of the other stages alone


# Trajectories so short that a draw is where its chain began.
STILL = (
    "inference={name: hmc, num_chains: 3, num_warmup: 0, num_draws: 1, max_num_steps: 1, "
    "initial_step_size: 1.0e-6, adapt_step_size: false, compile: false}"
)


def test_every_chain_begins_at_a_member_of_its_own(tmp_path):
    members = "num_members: 3, num_steps: 20, chain_method: sequential"
    ensemble = f"warm_start=[{{name: deep_ensemble, {members}}}]"
    run = fit(tmp_path / "run", [*GAP, "dtype=float64", ensemble, STILL])
    before = RunDirectory(run.path / "warm_start" / "1")
    from bnn_symm.posteriors import load_posterior

    members = load_posterior(before.posterior, run.model, run.preprocessing.scaling).draws()
    assert float(torch.pdist(members).min()) > 0.1
    torch.testing.assert_close(run.posterior.draws(), members, rtol=0, atol=1e-3)


def test_vi_begins_at_the_first_member_and_not_between_networks(tmp_path):
    members = "num_members: 2, num_steps: 20, chain_method: sequential"
    ensemble = f"warm_start=[{{name: deep_ensemble, {members}}}]"
    vi = "inference={name: mean_field_vi, num_steps: 1, learning_rate: 1.0e-9, initial_scale: 0.3}"
    run = fit(tmp_path / "run", [*GAP, "dtype=float64", ensemble, vi])
    from bnn_symm.posteriors import load_posterior

    before = RunDirectory(run.path / "warm_start" / "1")
    first = load_posterior(before.posterior, run.model, run.preprocessing.scaling).draws()[0]
    torch.testing.assert_close(run.posterior.loc, first, rtol=0, atol=1e-6)
    torch.testing.assert_close(run.posterior.scale, torch.full_like(first, 0.3), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "map",
            r"warm_start: got 'map', expected a list of methods, such as \[\{name: map, ",
        ),
        ("[3]", "warm_start.0: got 3, expected a list of methods"),
        ("[mapp]", "unknown warm_start.0.name 'mapp'; did you mean 'map'?"),
        (
            "[map, {name: hmc, num_step: 3}]",
            "unknown key warm_start.1.num_step for warm_start.1.name=hmc",
        ),
        (
            "[{name: map, num_steps: 0}]",
            "warm_start.0.num_steps: got 0; input should be greater than or equal to 1",
        ),
    ],
)
def test_what_can_be_typed_wrong(value, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"warm_start={value}"])


def test_a_name_alone_is_a_method_with_its_defaults():
    assert load_config(None, ["warm_start=[map]"]) == load_config(
        None, ["warm_start=[{name: map}]"]
    )


def test_a_stage_that_diverges_is_named(tmp_path):
    keys = [
        *GAP,
        "warm_start=[{name: map, num_steps: 50, learning_rate: 1.0e+30, log_every: 1}]",
        NUTS,
    ]
    with pytest.raises(FitDiverged, match=r"^warm_start\.0 \(map\): the objective .* became nan"):
        fit(tmp_path / "run", keys)
    assert load_run(tmp_path / "run").status == "failed"


def test_studies_tell_warm_starts_apart():
    """Names are defaults of their own settings class, which a changed key would omit."""
    base = [*GAP, NUTS]
    starts = ["[]", "[{name: map, num_steps: 5}]", "[{name: mean_field_vi, num_steps: 5}]"]
    keys = [fit_key(prepare(load_config(None, [*base, f"warm_start={own}"]))) for own in starts]
    assert len(set(keys)) == 3
