"""A run that was killed or interrupted can be loaded, used, and resumed bitwise identically."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sklearn.datasets import load_iris

from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun
from bnn_symm.inference import Callback
from bnn_symm.runs import Run, fit_run, load_config, load_run, resume_run
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.runs.directory.writer import StopOnSignal

from .fits import GAP, IRIS, fit, flags, history, lines, run_elsewhere, same_bits, start, wait_until

pytestmark = pytest.mark.thorough

# Long enough to be hit in the middle, short enough to be repeated.
_OFTEN = "checkpoint.every=0.02"
FLOWERS = ["data.name=iris", "architecture.widths=[4]"]
LONG = {
    "mean_field_vi": [*FLOWERS, "inference.num_steps=800", "inference.num_draws=20"],
    "map": [*FLOWERS, "inference.name=map", "inference.num_steps=1500"],
    "deep_ensemble": [
        *FLOWERS,
        "inference.name=deep_ensemble",
        "inference.num_steps=1000",
        "inference.num_members=2",
        "inference.chain_method=sequential",
    ],
    "hmc": [
        *FLOWERS,
        "inference={name: hmc, max_num_steps: 10, num_warmup: 20, num_draws: 120, num_chains: 2}",
        "inference.chain_method=sequential",
    ],
    "nuts": [
        *FLOWERS,
        "inference={name: nuts, max_tree_depth: 3, num_warmup: 20, num_draws: 120, num_chains: 2}",
        "inference.chain_method=parallel",
    ],
}
# Rows of history after which the signal is sent: in the middle of the (last) chain.
MIDDLE = {"mean_field_vi": 60, "map": 60, "deep_ensemble": 260, "hmc": 10, "nuts": 6}


def _killed(path: Path, method: str, number: int) -> None:
    process = start(
        ["fit", *flags([*LONG[method], _OFTEN]), "--out", str(path)], path.with_suffix(".log")
    )
    wait_until(lambda: lines(path / "history.jsonl") >= MIDDLE[method] or not process.is_alive())
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == -number, path.with_suffix(".log").read_text()
    wait_until(
        lambda: not psutil.pid_exists(process.pid) or not psutil.Process(process.pid).children()
    )


def _resumed_and_undisturbed(path: Path, method: str) -> tuple[Run, Run]:
    other = path.with_name("undisturbed")
    run_elsewhere(["fit", "--resume", str(path)], path.with_suffix(".resume.log"))
    run_elsewhere(
        ["fit", *flags([*LONG[method], _OFTEN]), "--out", str(other)],
        path.with_suffix(".undisturbed.log"),
    )
    return load_run(path), load_run(other)


_SLOW = ("map", "hmc")  # what they do is covered by deep_ensemble and nuts


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow if m in _SLOW else ()) for m in LONG]
)
def test_killed_in_the_middle(tmp_path, method, capsys):
    path = tmp_path / "run"
    _killed(path, method, signal.SIGKILL)
    assert json.loads((path / "run.json").read_text())["status"] == "running"
    run = load_run(path)
    assert run.status == "interrupted"
    assert run.metrics is None
    assert run.posterior.shape[2] == run.model.num_parameters
    assert main(["evaluate", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "interrupted"
    assert "is interrupted; its last saved state is used" in err
    load_iris(as_frame=True).data.head(3).to_csv(tmp_path / "x.csv", index=False)
    assert main(["predict", str(path), str(tmp_path / "x.csv"), "-o", str(tmp_path / "p.csv")]) == 0
    capsys.readouterr()
    resumed, undisturbed = _resumed_and_undisturbed(path, method)
    assert resumed.status == "complete"
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    assert resumed.metrics == undisturbed.metrics
    files = {file.name for file in path.iterdir()} - {"evaluations"}  # which only this one has
    assert files == {file.name for file in (tmp_path / "undisturbed").iterdir()}


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signals_stop_at_the_next_step(tmp_path, number):
    path = tmp_path / "run"
    keys = LONG["mean_field_vi"]
    process = start(["fit", *flags(keys), "--out", str(path)], tmp_path / "log")
    wait_until(lambda: lines(path / "history.jsonl") >= 60)
    os.kill(process.pid, number)
    process.join()
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 130
    assert log == (
        f"bnn-symm: interrupted; the last state is saved in {path}; resume with: bnn-symm fit "
        f"--resume {path}\n"
    )
    assert json.loads((path / "run.json").read_text())["status"] == "interrupted"
    assert not (path / "lock.json").exists()
    resumed, undisturbed = _resumed_and_undisturbed(path, "mean_field_vi")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)
    assert "error" not in resumed.record


def test_the_whole_process_group_is_interrupted_while_chains_start(tmp_path):
    """As with Ctrl-C in a terminal, the signal reaches workers that do not handle signals yet."""
    path = tmp_path / "run"
    process = start(
        ["fit", *flags([*LONG["nuts"], "inference.engine=pyro"]), "--out", str(path)],
        tmp_path / "log",
    )
    wait_until(lambda: path.exists() and psutil.Process(process.pid).children())
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    process.join()
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 130, log
    assert log.count("\n") == 1, log
    assert "resume with: bnn-symm fit --resume" in log
    assert load_run(path).status == "interrupted"


def test_stopped_before_the_first_draw(tmp_path):
    """No state was saved: this is not an error, and the run is resumed from its start."""
    keys = [*LONG["hmc"], "inference.engine=pyro", "inference.num_draws=20"]
    before = StopOnSignal.should_stop
    StopOnSignal.should_stop = lambda self: setattr(self, "stopped", True) or True  # type: ignore[method-assign]
    try:
        run = fit_run(load_config(None, keys), tmp_path / "run", callbacks=[Callback()])
    finally:
        StopOnSignal.should_stop = before  # type: ignore[method-assign]
    assert run.status == "interrupted"
    with pytest.raises(InvalidRun, match="has no posterior"):
        _ = run.posterior
    assert same_bits(resume_run(tmp_path / "run"), fit(tmp_path / "undisturbed", keys))


def test_an_ensemble_member_that_stopped_early_stays_as_it_was(tmp_path):
    """One member stopped early before the interruption; it is not continued."""

    keys = [
        *GAP,
        "inference.name=deep_ensemble",
        "inference.num_members=2",
        "inference.chain_method=sequential",
    ]
    keys += [
        "inference.num_steps=400",
        "inference.early_stopping={patience: 1, smoothing: 0}",
        "inference.log_every=5",
    ]
    keys += ["inference.learning_rate=0.3"]
    undisturbed = fit(tmp_path / "undisturbed", keys)
    last = {row["chain"]: row["step"] for row in history(undisturbed)}
    assert last[0] < 400
    assert last[1] < 400

    class StopInTheSecond(Callback):
        def __init__(self):
            self.now = False

        def on_history(self, row):
            self.now = row["chain"] == 1

        def should_stop(self):
            return self.now

    assert (
        fit_run(load_config(None, keys), tmp_path / "run", callbacks=[StopInTheSecond()]).status
        == "interrupted"
    )
    resumed = resume_run(tmp_path / "run")
    assert same_bits(resumed, undisturbed)
    assert history(resumed) == history(undisturbed)


def test_a_second_writer_is_refused(tmp_path, capsys):
    path = tmp_path / "run"
    process = start(
        [
            "fit",
            *flags([*GAP, "inference.num_steps=1000000", "inference.log_every=10"]),
            "--out",
            str(path),
        ],
        tmp_path / "log",
    )
    try:
        wait_until(lambda: lines(path / "history.jsonl") >= 1)
        assert load_run(path).status == "running"
        assert main(["fit", "--resume", str(path)]) == 2
        err = capsys.readouterr().err
        assert f"is being written by process {process.pid} on" in err
        assert err.count("\n") == 1
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["as it was", "set"])
def test_a_second_writer_in_another_pid_namespace_is_refused(tmp_path, clock):
    """Another container sees neither the process nor, if the clock was set, its start time."""
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], capture_output=True).returncode
    ):
        pytest.skip("this process may not make namespaces")
    path = tmp_path / "run"
    keys = [*GAP, "inference.num_steps=1000000", "inference.log_every=10"]
    process = start(["fit", *flags(keys), "--out", str(path)], tmp_path / "log")
    try:
        wait_until(lambda: lines(path / "history.jsonl") >= 1, seconds=120)
        if clock == "set":
            owner = json.loads((path / "lock.json").read_text())
            (path / "lock.json").write_text(json.dumps({**owner, "start": owner["start"] - 5000}))
        command = [sys.executable, "-m", "bnn_symm.cli", "fit", "--quiet", "--resume", str(path)]
        second = subprocess.run([*namespace, *command], capture_output=True, text=True)
        assert second.returncode == 2
        assert f"is being written by process {process.pid} on" in second.stderr
        assert second.stderr.count("\n") == 1
        assert load_run(path).status == "running"
    finally:
        process.kill()
        process.join()
    assert load_run(path).status == "interrupted"


def test_a_zombie_holds_no_lock(tmp_path):
    run = fit(tmp_path / "run", [*IRIS, "inference.num_steps=2"])
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE)
    owner = {
        "host": os.uname().nodename,
        "pid": dead.pid,
        "start": psutil.Process(dead.pid).create_time(),
    }
    run.directory.lock.write_text(json.dumps(owner))
    assert not run.directory.is_owned()
    dead.wait()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"host": "HERE", "pid": "one", "start": 0}',
        '{"host": "HERE", "pid": 1, "start": 0}',
        '{"host": "HERE", "pid": 1, "start": 0.5}',
    ],
)
def test_a_stale_or_damaged_lock_is_taken_over(tmp_path, content):
    directory = RunDirectory(tmp_path)
    directory.lock.write_text(content.replace("HERE", os.uname().nodename))
    assert not directory.is_owned()
    directory.acquire()
    assert directory.is_owned()
    with pytest.raises(InvalidRun, match=f"process {os.getpid()} on"):
        directory.acquire()
    directory.release()
    assert not directory.is_owned()


def test_a_lock_of_another_host_is_believed(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.lock.write_text('{"host": "elsewhere", "pid": 1, "start": 0}')
    with pytest.raises(
        InvalidRun,
        match="process 1 on elsewhere; wait for it, or if that host no longer exists, remove",
    ):
        directory.acquire()


@pytest.mark.parametrize(
    "left", ["everything", pytest.param("nothing", marks=pytest.mark.thorough)]
)
def test_killed_between_the_last_file_and_the_word_complete(tmp_path, monkeypatch, left):
    """All final files exist, with or without working files: resuming only sets the status."""
    keys = [*LONG["hmc"], "inference.num_draws=20"]
    undisturbed = fit(tmp_path / "undisturbed", keys)

    def killed(self):
        if left == "nothing":
            self.remove_working_files()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", keys)
    run = load_run(tmp_path / "run")
    assert run.status == "interrupted"
    assert same_bits(run, undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr("bnn_symm.inference.HMC.fit", None)  # no fit is needed
        resumed = resume_run(tmp_path / "run")
    assert resumed.status == "complete"
    assert same_bits(resumed, undisturbed)
    assert {*resumed.record} == {*undisturbed.record}
    assert {file.name for file in resumed.path.iterdir()} == {
        file.name for file in undisturbed.path.iterdir()
    }


def _stop_after_draws(path: Path, keys: list[str], number: int) -> None:

    class Stop(Callback):
        drawn = 0

        def on_draws(self, chunk):
            self.drawn += len(chunk.positions)

        def should_stop(self):
            return self.drawn >= number

    assert fit_run(load_config(None, keys), path, callbacks=[Stop()]).status == "interrupted"


def test_half_a_line_of_history_is_left_out(tmp_path):
    keys = [*LONG["hmc"], "inference.num_draws=60"]
    _stop_after_draws(tmp_path / "run", keys, 25)
    log = tmp_path / "run" / "history.jsonl"
    log.write_bytes(log.read_bytes() + b'{"chain": 1, "step": 3\xc3')
    assert history(resume_run(tmp_path / "run")) == history(fit(tmp_path / "undisturbed", keys))


def test_a_signal_while_the_scores_are_made_stops_at_once(tmp_path, monkeypatch):
    """No step follows after which the fit could stop."""
    import bnn_symm.runs.fit_runner as module

    def slow(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("the signal was ignored")

    keys = [*IRIS, "inference.name=map", "inference.num_steps=3"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "measure", slow)
        with pytest.raises(KeyboardInterrupt, match="resume with: resume_run"):
            fit(tmp_path / "run", keys)
    assert load_run(tmp_path / "run").status == "interrupted"
    assert resume_run(tmp_path / "run").status == "complete"
