"""A fit that fails: the reason in one line, and the files that remain."""

import math
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bnn_symm.cli import main
from bnn_symm.errors import (
    BnnSymmError,
    ConfigError,
    FitDiverged,
    IncompatiblePosteriors,
    InvalidRun,
)
from bnn_symm.inference import Callback
from bnn_symm.inference.optimization.map import MAP
from bnn_symm.posteriors import save_posterior
from bnn_symm.runs import fit_run, load_config, load_run, resume_run

from .fits import GAP, fit, history, overrides, same_bits

pytestmark = pytest.mark.thorough

HUGE = "inference.learning_rate=1e30"


@pytest.mark.parametrize("method", ["local", "weight", "map", "deep_ensemble"])
def test_divergence(tmp_path, capsys, method):
    path = tmp_path / "run"
    words = [word for key in [*overrides(method), HUGE] for word in ("--set", key)]
    assert main(["fit", *words, "--out", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"bnn-symm: error: the objective of chain \d became", err)
    assert (
        "at step 1; the state at step 0 was kept; try a lower inference.learning_rate (now 1e+30)"
        in err
    )
    assert err.count("\n") == 1
    run = load_run(path)
    assert run.status == "failed"
    assert torch.isfinite(run.posterior.draws()).all()
    with pytest.raises(
        InvalidRun, match="diverged, and would diverge again; start a new run with other settings"
    ):
        resume_run(path)


@pytest.mark.parametrize("method", ["map", "nuts"])
def test_divergence_before_the_first_step(tmp_path, method):
    with pytest.raises(FitDiverged) as error:
        fit(tmp_path / "run", [*overrides(method), "likelihood.noise=1e-30"])
    assert "at step 0; no step was taken yet" in str(
        error.value
    ) or "not finite where chain 0 starts" in str(error.value)
    assert load_run(tmp_path / "run").status == "failed"


@pytest.mark.slow
def test_divergence_in_a_process_of_its_own(tmp_path):
    with pytest.raises(FitDiverged, match="at step 1"):
        fit(tmp_path / "run", [*overrides("deep_ensemble", "parallel"), HUGE])
    assert load_run(tmp_path / "run").posterior.shape[2] == 14


def test_the_last_good_state_is_kept(tmp_path):
    """The objective is NaN from step 30 on: the state of the last row before it is saved."""

    class Late(MAP):
        def _run(self, fit):
            likelihood = fit.model.log_likelihood
            calls = []

            def broken(flat, x, y):
                calls.append(1)
                value = likelihood(flat, x, y)
                return value * (math.nan if len(calls) > 30 else 1.0)

            object.__setattr__(fit.model, "log_likelihood", broken)
            return super()._run(fit)

    import dataclasses

    keys = [
        *GAP,
        "data.validation_fraction=0",
        "inference={name: map, num_steps: 60, log_every: 7}",
    ]
    config = load_config(None, keys)
    method = Late(num_steps=60, log_every=7)
    with pytest.raises(FitDiverged, match="at step 30; the state at step 28 was kept"):
        fit_run(dataclasses.replace(config, inference=method), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert [row["step"] for row in history(run)] == [7, 14, 21, 28]

    class Stop(Callback):
        step = 0

        def on_history(self, row):
            self.step = row["step"]

        def should_stop(self):
            return self.step >= 28

    healthy = fit_run(config, tmp_path / "healthy", callbacks=[Stop()])
    assert torch.equal(run.posterior.draws(), healthy.posterior.draws())


def test_an_error_in_a_callback_keeps_its_kind_and_frees_the_run(tmp_path):
    class Broken(Callback):
        def on_history(self, row):
            raise ZeroDivisionError("mine")

    keys = overrides("map")
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit_run(load_config(None, keys), tmp_path / "run", callbacks=[Broken()])
    run = load_run(tmp_path / "run")
    assert (run.status, run.record["error"]) == ("failed", "mine")
    resumed = resume_run(tmp_path / "run")
    assert "error" not in resumed.record
    assert same_bits(resumed, fit(tmp_path / "undisturbed", keys))


# -- a full disk

# Every write beyond this many bytes of a file fails, as it does on a full disk: a parent of the
# test cannot mount one.
_LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from bnn_symm.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("method", "length", "limit"),
    [
        ("map", "num_steps=60", 3000),  # while the history grows
        # The state of both chains, 10 kB, is written. At the draws, 25 kB in one file; where a slow
        # machine wrote them in several, at the posterior.
        pytest.param("nuts", "num_draws=100", 12_000, marks=pytest.mark.slow),
        pytest.param("local", "num_steps=60", 9000, marks=pytest.mark.slow),  # at the posterior
    ],
)
def test_full_disk(tmp_path, method, length, limit):
    path = tmp_path / "run"
    keys = [*overrides(method), f"inference.{length}"]
    words = [word for key in keys for word in ("--set", key)]
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), "fit", *words, "--out", str(path)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr == (
        f"bnn-symm: error: {path} could not be written (File too large); earlier files are "
        f"preserved; free disk space and resume with: bnn-symm fit --resume {path}\n"
    )
    left = load_run(path)
    assert left.status in ("failed", "interrupted")
    assert left.posterior.shape[2] == 14
    if method == "nuts":
        assert (path / "checkpoint" / "chain-0000.safetensors").exists()
    resumed = resume_run(path)
    undisturbed = fit(tmp_path / "undisturbed", keys)
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)


@pytest.mark.parametrize(
    "name",
    [
        "posterior.nc",
        pytest.param("metrics.json", marks=pytest.mark.thorough),
        pytest.param("history.parquet", marks=pytest.mark.thorough),
    ],
)
def test_full_disk_at_the_end(tmp_path, monkeypatch, name):
    """Each of the last files fails in turn; nothing that was fitted is lost."""
    import bnn_symm.io.atomic

    replace = bnn_symm.io.atomic.os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    keys = overrides("nuts")
    with monkeypatch.context() as patch:
        patch.setattr(bnn_symm.io.atomic.os, "replace", full)
        with pytest.raises(BnnSymmError, match=r"No space left on device.*resume_run"):
            fit(tmp_path / "run", keys)
    run = load_run(tmp_path / "run")
    assert run.status == "failed"
    assert run.posterior.shape[:2] == (2, 20)
    assert not list(run.path.glob(".*"))
    resumed, undisturbed = resume_run(tmp_path / "run"), fit(tmp_path / "undisturbed", keys)
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)


def test_a_run_that_is_deleted_while_it_is_written(tmp_path):
    class Delete(Callback):
        def on_history(self, row):
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.raises(
        BnnSymmError, match=r"run could not be written .No such file or directory"
    ) as error:
        fit_run(
            load_config(None, [*overrides("map"), "checkpoint.every=1 steps"]),
            tmp_path / "run",
            callbacks=[Delete()],
        )
    assert "\n" not in str(error.value)


def test_a_resume_needs_the_data_that_were_fitted(tmp_path):
    import pandas

    table = pandas.DataFrame({"a": [0.1 * i for i in range(40)], "y": [0.3 * i for i in range(40)]})
    table.to_csv(tmp_path / "d.csv", index=False)

    class Stop(Callback):
        def should_stop(self):
            return True

    keys = [
        f"data.name={tmp_path}/d.csv",
        "data.target=y",
        "inference.name=map",
        "architecture.widths=[]",
    ]
    fit_run(load_config(None, keys), tmp_path / "run", callbacks=[Stop()])
    table.assign(a=1.0 + table["a"]).to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(
        InvalidRun, match="cannot be resumed bitwise identically: sha256 was"
    ) as error:
        resume_run(tmp_path / "run")
    assert len(str(error.value)) < 500
    assert not (tmp_path / "run" / "lock.json").exists()


def test_a_complete_run_is_not_resumed(tmp_path):
    run = fit(tmp_path / "run", overrides("map"))
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(InvalidRun, match="is complete; there is nothing to resume"):
        resume_run(run.path)
    assert (run.path / "run.json").read_bytes() == before


# -- starting from another run


@pytest.fixture(scope="module")
def mode(tmp_path_factory):
    return fit(
        tmp_path_factory.mktemp("mode") / "run", [*overrides("map"), "inference.num_steps=60"]
    )


def test_variational_inference_starts_from_a_mode(tmp_path, mode):
    keys = [
        *overrides("local"),
        "inference.num_steps=1",
        "inference.learning_rate=1e-12",
        f"initial={mode.path}",
    ]
    run = fit(tmp_path / "run", keys)
    torch.testing.assert_close(run.posterior.loc, mode.posterior.mean())
    assert run.config.initial == str(mode.path)


def test_chains_start_from_a_mode(tmp_path, mode):
    keys = [
        *overrides("hmc"),
        f"initial={mode.path}",
        "inference.num_warmup=0",
        "inference.num_draws=1",
    ]
    keys += [
        "inference.adapt_step_size=false",
        "inference.initial_step_size=1e-12",
        "inference.max_num_steps=1",
    ]
    run = fit(tmp_path / "run", keys)
    for draw in run.posterior.draws():
        torch.testing.assert_close(draw, mode.posterior.mean())


def test_a_start_of_another_precision(tmp_path, mode):
    run = fit(tmp_path / "run", [*overrides("local"), "dtype=float64", f"initial={mode.path}"])
    assert run.posterior.loc.dtype == torch.float64


def test_another_network_is_no_start(tmp_path, mode):
    with pytest.raises(IncompatiblePosteriors, match=r"has another network .*use the same"):
        fit(
            tmp_path / "run",
            [*overrides("local"), "architecture.widths=[5]", f"initial={mode.path}"],
        )
    assert not (tmp_path / "run").exists()


def test_too_few_draws_to_start_from(tmp_path):
    source = fit(tmp_path / "two", overrides("deep_ensemble"))
    with pytest.raises(ConfigError, match="has 2 draws, expected at least 3"):
        fit(
            tmp_path / "run",
            [*overrides("nuts"), "inference.num_chains=3", f"initial={source.path}"],
        )


def test_a_posterior_that_does_not_fit_on_the_disk(tmp_path):
    """HDF5 would crash the process, so the free space is checked first."""
    run = fit(tmp_path / "run", overrides("map"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            save_posterior(run.posterior, tmp_path / "posterior.nc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
