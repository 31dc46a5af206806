"""Test running studies in processes; killed ones must give the same results after a resume."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas
import pytest
import yaml

from bnn_symm.errors import BnnSymmError, ConfigError, InvalidRun
from bnn_symm.studies import executors
from bnn_symm.studies.config import PairsConfig
from bnn_symm.studies.directory import StudyDirectory
from bnn_symm.studies.plan import Plan, plan_study
from bnn_symm.studies.results.tables import TIMINGS
from bnn_symm.studies.runner import run_study
from bnn_symm.studies.study import load_study
from tests.runs.fits import start, wait_until

STUDY = {
    "data": {"name": "digits", "limit": 150},
    "architecture": {"widths": [6]},
    "inference": {"num_steps": 40, "num_draws": 8},
    "study": {
        "vary": {"architecture.symmetry.kind": ["standard", "weight_asymmetric"]},
        "seeds": 2,
        "pairs": {"num_draws": 4},
    },
}


def write(path, **changes):
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def tables(directory):
    """Return the rows of both tables without timings."""
    found = {}
    for name in ("cells", "pairs"):
        frame = pandas.read_parquet(directory / f"{name}.parquet")
        found[name] = frame.drop(columns=[column for column in TIMINGS if column in frame])
    return found


def assert_equal(first, second):
    for name in first:
        pandas.testing.assert_frame_equal(first[name], second[name], check_exact=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = write(folder / "study.yaml")
    content = run_study(config, folder / "out", jobs=2)
    return folder / "out", config, content


def test_a_study_writes_tables_a_summary_and_runs(finished):
    out, _, content = finished
    found = tables(out)
    assert list(found["cells"].status) == ["complete"] * 4
    assert list(found["pairs"].status) == ["complete"] * 2
    assert not found["cells"].key.duplicated().any()
    assert content == json.loads((out / "summary.json").read_text())
    assert content["counts"]["pairs_complete"] == 2
    assert content["failures"] == []
    assert set(os.listdir(out / "cells")) == set(found["cells"].key)
    assert list((out / "attempts").iterdir()) == []
    csv = pandas.read_csv(out / "pairs.csv")
    assert csv.naive.to_list() == pytest.approx(found["pairs"].naive.to_list())


def test_finished_tasks_are_not_repeated(finished):
    out, config, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*/measures.json")}
    updates = []
    run_study(config, out, resume=True, jobs=2, on_progress=updates.append)
    assert updates[0].done == updates[0].total == 6
    assert {
        path: path.stat().st_mtime_ns for path in (out / "cells").glob("*/measures.json")
    } == before


@pytest.mark.thorough
def test_an_extended_study_runs_new_tasks_only(finished, tmp_path):
    import shutil

    out, config, _ = finished
    shutil.copytree(out, tmp_path / "grown")
    updates = []
    study = load_study(config, ["study.seeds=3"])
    content = run_study(study, tmp_path / "grown", resume=True, jobs=2, on_progress=updates.append)
    assert updates[0].done == 6
    assert content["counts"] == {
        **{"cells": 6, "cells_complete": 6, "cells_failed": 0},
        **{"pairs": 6, "pairs_complete": 6, "pairs_failed": 0},
    }


@pytest.mark.thorough
def test_a_failed_fit_is_reported_and_the_others_continue(tmp_path):
    # No rate of learning that large leaves finite numbers.
    vary = {"inference.learning_rate": [0.02, 1e30]}
    content = run_study(
        write(tmp_path / "study.yaml", study={"vary": vary, "seeds": 2, "pairs": {"num_draws": 4}}),
        tmp_path / "out",
        jobs=2,
    )
    counts = content["counts"]
    assert (counts["cells_complete"], counts["cells_failed"]) == (2, 2)
    assert (counts["pairs_complete"], counts["pairs_failed"]) == (1, 1)
    assert all("became nan" in row["error"] for row in content["failures"] if "fit" in row["what"])
    assert content["status"] == "incomplete"


def test_invalid_and_existing_directories_are_refused(tmp_path, finished):
    out, config, _ = finished
    with pytest.raises(InvalidRun, match="never overwritten"):
        run_study(config, out)
    with pytest.raises(InvalidRun, match="no study at"):
        run_study(None, tmp_path / "nowhere", resume=True)
    with pytest.raises(ConfigError, match="jobs=0"):
        run_study(config, tmp_path / "none", jobs=0)


@pytest.mark.thorough
def test_a_study_with_changed_data_is_not_resumed(tmp_path):
    rows = "a,y\n" + "".join(f"{i},{i % 5}.5\n" for i in range(60))
    (tmp_path / "data.csv").write_text(rows)
    config = write(
        tmp_path / "study.yaml",
        data={"name": str(tmp_path / "data.csv"), "target": "y"},
        study={"seeds": 1},
    )
    run_study(config, tmp_path / "out", jobs=1)
    (tmp_path / "data.csv").write_text(rows.replace("3,3.5", "3,4.5"))
    with pytest.raises(InvalidRun, match="the data, or the version"):
        run_study(None, tmp_path / "out", resume=True)


def compare(*arguments, cwd):
    words = ["compare", *map(str, arguments), "--quiet", "--jobs", "2"]
    return start(words, cwd / "stderr.log")


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def resume_until_done(out, kills, *, seed, cwd, most):
    """Kill the study at random moments, then let it finish."""
    moments = random.Random(seed)
    for _ in range(kills):
        process = compare("--resume", out, cwd=cwd)
        time.sleep(moments.uniform(0.5, most))
        kill(process)
    process = compare("--resume", out, cwd=cwd)
    process.join(600)
    assert process.exitcode == 0, (cwd / "stderr.log").read_text()


def begin(config, out, cwd):
    process = compare(config, "--out", out, cwd=cwd)
    wait_until(lambda: (out / "plan.json").exists() or not process.is_alive(), seconds=120)
    assert process.is_alive(), (cwd / "stderr.log").read_text()
    kill(process)


@pytest.mark.thorough
def test_a_study_killed_twice_has_the_same_tables(finished, tmp_path):
    done, config, _ = finished
    out = tmp_path / "killed"
    begin(config, out, tmp_path)
    resume_until_done(out, 1, seed=0, cwd=tmp_path, most=8)
    assert_equal(tables(done), tables(out))


def test_a_study_appears_whole_and_is_resumed_without_its_plan(finished, tmp_path, monkeypatch):
    _, config, _ = finished

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bnn_symm.studies.directory.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    shutil.copy(finished[0] / "study.yaml", tmp_path / "out")
    # What is to be done is written now; doing it is what other tests do.
    with monkeypatch.context() as patch:
        patch.setattr("bnn_symm.studies.runner._run_tasks", killed)
        with pytest.raises(KeyboardInterrupt, match="resume with: run_study"):
            run_study(None, tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "plan.json").exists()


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    config = write(
        tmp_path / "study.yaml",
        checkpoint={"every": 0.2},
        inference={"num_steps": 3000, "num_draws": 8},
        study={**STUDY["study"], "controls": ["init_matched"], "seeds": 3},
    )
    run_study(config, tmp_path / "whole", jobs=2)
    out = tmp_path / "killed"
    begin(config, out, tmp_path)
    resume_until_done(out, 9, seed=1, cwd=tmp_path, most=12)
    assert_equal(tables(tmp_path / "whole"), tables(out))
    assert list((out / "attempts").iterdir()) == []


def test_attempts_of_dead_processes_are_resumed_and_of_living_ones_kept(tmp_path):
    study_directory = StudyDirectory(tmp_path)
    study_directory.attempts.mkdir()
    mine = study_directory.begin("k")
    (mine.folder / "work").touch()
    others = [study_directory.begin(key) for key in ("k", "l")]  # this process lives
    assert all(other.folder != mine.folder for other in others)
    mine.release()
    adopted = study_directory.begin("k")
    assert adopted.folder == mine.folder
    assert (adopted.folder / "work").exists()
    # As a former version left it, and a folder that is none of ours.
    for name in ("m-my_host-1-2.00-0123abcd", "notes", "m-notes"):
        (study_directory.attempts / name).mkdir()
    assert study_directory.begin("m").folder.name == "m-my_host-1-2.00-0123abcd"
    (study_directory.attempts / f"x-{'0' * 32}").symlink_to(tmp_path)
    study_directory.remove_leftovers(Plan(settings=(), fits=(), pairs=(), options=PairsConfig()))
    assert {"notes", "m-notes", f"x-{'0' * 32}", mine.folder.name} <= set(
        os.listdir(study_directory.attempts)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("kill", [False, True])
def test_a_task_that_is_stopped_writes_a_checkpoint_and_a_killed_one_names_the_signal(
    kill, tmp_path
):
    study = load_study(write(tmp_path / "study.yaml", inference={"num_steps": 10**6}))
    plan = plan_study(study)
    directory = StudyDirectory.create(tmp_path / "out", study, plan)
    with executors.local_executor(1) as (executor, *_):
        task = executor.submit(executors.run_in_process, str(directory.path), plan.fits[0].key, 1)
        wait_until(lambda: list(directory.attempts.glob("*/run/history.jsonl")))
        if kill:
            (record,) = directory.attempts.glob("*/lock.json")
            os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
            assert "died (signal 9); if it ran out of memory, use fewer jobs" in task.result()
    (record,) = directory.attempts.glob("*/run/run.json")
    assert json.loads(record.read_text())["status"] == ("running" if kill else "interrupted")


# -- Dask


class Cluster:
    """A scheduler and workers in separate processes on the loopback interface."""

    def __init__(self, folder):
        self.folder, self.scheduler_file, self.workers = folder, folder / "scheduler.json", []
        self.scheduler = self._run(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"
        )

    def add_worker(self):
        options = (
            "--nthreads",
            "1",
            "--nworkers",
            "1",
            "--no-dashboard",
            "--local-directory",
            str(self.folder),
        )
        self.workers.append(self._run("worker", *options, "--host", "127.0.0.1"))

    def address(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                return json.loads(self.scheduler_file.read_text())["address"]
            except (OSError, ValueError):
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def _run(self, what, *options):
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, *options]
        command += ["--scheduler-file", str(self.scheduler_file)]
        with (self.folder / f"{what}-{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, process):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self):
        for process in (*self.workers, self.scheduler):
            if process.poll() is None:
                self.kill(process)


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("distributed")
    made = Cluster(tmp_path)
    made.address()
    yield made
    made.close()


@pytest.mark.thorough
def test_a_killed_dask_worker_changes_no_result(cluster, finished, tmp_path):
    done, config, _ = finished
    for _ in range(2):
        cluster.add_worker()
    from distributed import Client

    with Client(cluster.address(), timeout=60) as client:
        client.wait_for_workers(2, timeout=120)
    killed = []

    def kill_one(progress):
        if progress.done >= 1 and not killed:
            killed.append(progress.done)
            cluster.kill(cluster.workers[0])

    content = run_study(config, tmp_path / "out", dask=cluster.address(), on_progress=kill_one)
    assert killed
    assert content["failures"] == []
    assert_equal(tables(done), tables(tmp_path / "out"))


@pytest.mark.thorough
def test_missing_workers_or_scheduler_are_reported_with_the_command(cluster, finished, tmp_path):
    config = finished[1]
    with pytest.raises(ConfigError, match="no workers"):
        run_study(config, tmp_path / "out", dask=cluster.address())
    with pytest.raises(ConfigError, match="no scheduler answers"):
        run_study(config, tmp_path / "out2", dask="tcp://127.0.0.1:9")


def test_workers_without_the_directory_are_named(monkeypatch, tmp_path):
    class Client:
        def run(self, function, token, on_error):
            return {
                "tcp://a:1": (True, executors.NUMERICS),
                "tcp://b:2": (False, executors.NUMERICS),
            }

    with pytest.raises(BnnSymmError, match="tcp://b:2 does not see"):
        executors._check_shared(Client(), tmp_path)
    assert list(tmp_path.iterdir()) == []
