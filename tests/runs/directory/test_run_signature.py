"""Files of another run and damaged files are refused until they are signed."""

import json
import shutil
import time

import numpy as np
import pytest

from bnn_symm.cli import main
from bnn_symm.errors import InvalidRun
from bnn_symm.io.checksums import file_sha256
from bnn_symm.posteriors import DrawLog
from bnn_symm.runs import load_run, resume_run
from bnn_symm.runs.directory.run_directory import RunDirectory
from bnn_symm.studies.directory import check_task
from tests.runs.fits import IRIS, fit

from .test_run_files import STATE, chunk, new_run

KEYS = [
    *IRIS,
    "inference={name: mean_field_vi, num_steps: 4, num_draws: 4}",
    "checkpoint.keep=[2]",
    "warm_start=[{name: map, num_steps: 3}]",
]
KEPT = "checkpoints/step-000000002-chain-0000.safetensors"
FILES = ("config.yaml", "posterior.nc", "metrics.json", "history.parquet", KEPT)
STAGE = ("warm_start/1/posterior.nc", "warm_start/1/history.parquet", "warm_start/1/cost.json")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [fit(folder / name, [*KEYS, f"seed={seed}"]).path for seed, name in enumerate("ab")]


@pytest.fixture
def copy(two, tmp_path):
    return shutil.copytree(two[0], tmp_path / "run")


def read_all(path):
    """Read everything that commands read of a run."""
    run = load_run(path)
    return run.posterior.draws(), run.metrics, run.posterior.history, run.checkpoints()


@pytest.mark.thorough
def test_the_record_has_the_hash_of_every_finished_file(two):
    record = json.loads((two[0] / "run.json").read_text())
    assert set(record["files"]) == {*FILES, *STAGE, "preprocessing.json"}
    for name, sha256 in record["files"].items():
        assert file_sha256(two[0] / name) == sha256
    assert record["id"] != json.loads((two[1] / "run.json").read_text())["id"]
    read_all(two[0])


@pytest.mark.parametrize("name", [*FILES, "run.json"])
def test_a_file_of_another_run_is_refused(copy, two, name):
    shutil.copy(two[1] / name, copy / name)
    with pytest.raises(
        InvalidRun,
        match=r"or replaced since it was written \(sha256 [0-9a-f]{12}.*restore the original file$",
    ):
        read_all(copy)


@pytest.mark.parametrize("name", ["preprocessing.json", *FILES])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damage_is_refused(copy, name, damage):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[damage])
    with pytest.raises(InvalidRun, match=f"{path.name} was damaged or replaced") as error:
        read_all(copy)
    assert "\n" not in str(error.value)


def test_files_that_were_changed_on_purpose_are_signed(copy, two, capsys):
    for name in ("metrics.json", "posterior.nc"):
        shutil.copy(two[1] / name, copy / name)
    assert main(["evaluate", str(copy), "--quiet"]) == 2
    assert f"bnn-symm sign {copy}" in capsys.readouterr().err
    assert main(["sign", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "signed": {str(copy): ["metrics.json", "posterior.nc"]}
    }
    read_all(copy)
    assert main(["sign", str(copy)]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert load_run(copy).metrics == load_run(two[1]).metrics


def test_only_runs_are_signed(tmp_path, capsys):
    assert main(["sign", str(tmp_path)]) == 2
    run = new_run(tmp_path / "run")
    assert main(["sign", str(run.path)]) == 2  # it is being written
    assert "is being written by process" in capsys.readouterr().err
    run.release()


def test_runs_of_former_versions_load_without_a_check(copy, two):
    record = json.loads((copy / "run.json").read_text())
    del record["files"], record["id"]
    (copy / "run.json").write_text(json.dumps(record))
    shutil.copy(two[1] / "metrics.json", copy / "metrics.json")
    read_all(copy)


def test_a_file_of_a_run_that_never_wrote_one_is_not_read(two, tmp_path):
    """An interrupted run has neither posterior nor scores, even with such files copied into it."""
    run = new_run(tmp_path / "run")
    for name in ("posterior.nc", "metrics.json"):
        shutil.copy(two[0] / name, run.path / name)
    assert not run.has_posterior()
    assert run.read_metrics() is None
    assert not run.is_finished()
    run.release()


# -- while a fit runs


def _in_progress(path):
    run = new_run(path)
    run.draw_log().append(chunk(0, 4))
    run.draw_log().append(chunk(4, 4))
    run.save_state(0, STATE)
    run.keep_state(0, 3, STATE)
    run.history_log.touch()
    run.release()
    return run


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("draws/000000.npy", "draws of another run"),
        ("checkpoint/chain-0000.safetensors", "a state of another run"),
    ],
)
def test_draws_and_states_of_another_run_are_refused(tmp_path, name, words):
    run, other = (_in_progress(tmp_path / letter) for letter in "ab")
    assert len(run.fit_state().draws[0].positions) == 8
    shutil.copy(other.path / name, run.path / name)
    with pytest.raises(InvalidRun, match=words) as error:
        run.fit_state()
    assert "\n" not in str(error.value)


def test_states_kept_by_another_run_are_refused(tmp_path):
    run, other = (_in_progress(tmp_path / letter) for letter in "ab")
    assert list(run.kept_states()) == [3]
    (name,) = (path.name for path in run.kept.iterdir())
    shutil.copy(other.kept / name, run.kept / name)
    with pytest.raises(InvalidRun, match="a state of another run"):
        run.kept_states()


def test_a_state_of_another_folder_of_the_run_is_refused(tmp_path):
    """Preserved states are not checkpoints, and draws of a warm start are not draws of the run."""
    run = _in_progress(tmp_path / "a")
    (kept,) = run.kept.iterdir()
    shutil.copy(kept, run.checkpoint / "chain-0000.safetensors")
    with pytest.raises(InvalidRun, match="a state of another run"):
        run.fit_state()


def test_draws_without_an_identity_are_refused_where_the_run_has_one(tmp_path):
    run = _in_progress(tmp_path / "a")
    shutil.rmtree(run.draws)
    DrawLog(run.draws).append(chunk(0, 4))
    with pytest.raises(InvalidRun, match="draws of another run"):
        run.fit_state()


def test_draws_of_former_versions_are_read_and_continued(tmp_path):
    run = _in_progress(tmp_path / "a")
    content = RunDirectory.read_json(run.record)
    del content["id"], content["files"]
    run.record.write_text(json.dumps(content))
    shutil.rmtree(run.draws)
    DrawLog(run.draws).append(chunk(0, 4))
    run.draw_log().append(chunk(4, 2))
    draws = run.fit_state().draws[0]
    assert np.asarray(draws.positions)[:, 0].tolist() == list(range(6))
    assert set(draws.stats) == {"energy"}


def test_the_identity_is_no_statistic_of_the_sampler(tmp_path):
    run = _in_progress(tmp_path / "a")
    assert set(run.fit_state().draws[0].stats) == {"energy"}


def test_a_configuration_that_was_exchanged_is_not_gone_on_with(tmp_path):
    run = _in_progress(tmp_path / "a")
    run.config.write_text("seed: 1\n")
    with pytest.raises(InvalidRun, match=r"config\.yaml was damaged or replaced"):
        resume_run(run.path)
    assert not run.is_owned()


def test_results_of_another_task_of_a_study_are_refused(tmp_path):
    check_task(tmp_path, {"task": "k"}, "k")
    for other in ({"task": "l"}, {}):
        with pytest.raises(InvalidRun, match="result of another task"):
            check_task(tmp_path, other, "k")


# -- hashes


def test_a_file_that_changes_is_hashed_anew(tmp_path):
    path = tmp_path / "x"
    seen = set()
    for number in range(50):  # of one size, faster than the clock of the file system may tick
        path.write_bytes(bytes([number]))
        seen.add(file_sha256(path))
    assert len(seen) == 50


def test_a_file_that_stays_is_hashed_once(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(2**26)
    long_ago = time.time() - 3600

    def seconds():
        start = time.perf_counter()
        file_sha256(path)
        return time.perf_counter() - start

    import os

    os.utime(path, (long_ago, long_ago))
    time.sleep(2.1)  # since its last change
    first = seconds()
    assert seconds() < first / 10


@pytest.mark.parametrize("is_link", [False, True])
def test_a_complete_run_without_its_posterior_is_refused(copy, is_link):
    (copy / "posterior.nc").unlink()
    if is_link:
        (copy / "posterior.nc").symlink_to("nowhere")
    for use in (read_all, resume_run):
        with pytest.raises(InvalidRun) as error:
            use(copy)
        assert "\n" not in str(error.value)
    # Not the posterior of the warm start either, once the loss is accepted.
    assert main(["sign", str(copy)]) == 0
    with pytest.raises(InvalidRun, match=r"has no posterior\.nc"):
        load_run(copy).posterior.draws()
