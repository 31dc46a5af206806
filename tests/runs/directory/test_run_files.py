"""Files that a run directory writes, removes and leaves alone, without a fit."""

import os
import shutil

import numpy as np
import pytest

from bnn_symm.errors import InvalidRun
from bnn_symm.inference import FitState
from bnn_symm.io.atomic import is_temporary, remove_temporary_files, write_json
from bnn_symm.posteriors import DrawChunk
from bnn_symm.runs.directory.run_directory import RunDirectory

DATASET = {"name": "x", "task": "regression", "sha256": "0" * 64}
RECORD = {
    "threads": 1,
    "versions": {},
    "num_outputs": 1,
    "dataset": DATASET,
    "mask_fingerprint": None,
}
STATE = {"step": np.array(3)}
# What somebody may keep beside the files of a run.
OF_OTHERS = (
    ".bashrc",
    ".run.json.20260101.json",
    ".posterior.nc.k3j4h5g6.nc",
    "notes.npy",
    "1.npy",
    "chain-0000-copy.safetensors",
    "chain-best.safetensors",
)


def new_run(path):
    return RunDirectory.create(path, config="seed: 0\n", record=RECORD, preprocessing={}, fixed={})


def chunk(first, count):
    return DrawChunk(
        0,
        first,
        np.arange(first, first + count, dtype=np.float32)[:, None],
        {"energy": np.zeros(count)},
    )


@pytest.fixture
def run(tmp_path):
    """Return a run in progress with ten draws in two files and the states of two chains."""
    run = new_run(tmp_path / "run")
    log = run.draw_log()
    log.append(chunk(0, 6))
    log.append(chunk(6, 4))
    for number in range(2):
        run.save_state(number, STATE)
    run.keep_state(0, 3, STATE)
    run.history_log.touch()
    yield run
    run.release()


def _precious(folder):
    folder.mkdir(exist_ok=True)
    for name in OF_OTHERS:
        (folder / name).write_text("precious")
    return folder


def _leftover(folder):
    """Write a temporary file, as a process that is killed while writing leaves it."""
    path = folder / ".000002.npy.a1b2c3d4.bnn-symm-tmp.npy"
    path.touch()
    assert is_temporary(path.name)
    return path


def test_only_files_of_the_run_are_removed(run):
    folders = (run.path, run.draws, run.checkpoint, run.kept)
    leftovers = [_leftover(_precious(folder)) for folder in folders]
    fit_state = run.rewrite(FitState({0: STATE}, {0: chunk(0, 6)}, []))
    assert not any(path.exists() for path in leftovers)
    assert len(fit_state.draws[0].positions) == 6
    assert {path.name for path in run.draws.iterdir()} == {"000000.npy", "000001.npy", *OF_OTHERS}
    assert {path.name for path in run.checkpoint.iterdir()} == {
        "chain-0000.safetensors",
        *OF_OTHERS,
    }
    run.remove_working_files()
    for folder in folders:
        assert {name for name in OF_OTHERS if (folder / name).exists()} == set(OF_OTHERS)
    assert {path.name for path in run.draws.iterdir()} == set(OF_OTHERS)


def test_folders_that_are_empty_go_with_the_working_files(run):
    run.remove_working_files()
    assert not run.draws.exists()
    assert not run.checkpoint.exists()
    assert not run.history_log.exists()


@pytest.mark.parametrize(
    "name", ["draws", "checkpoint", "checkpoints", "warm_start", "warm_start/1", "warm_start/x"]
)
def test_a_folder_of_the_run_that_is_a_link_is_refused_and_left(run, tmp_path, name):
    home = _precious(tmp_path / "home")
    for leftover in ("000009.npy", "chain-0007.safetensors"):
        (home / leftover).write_text("precious")
    _leftover(home)
    before = sorted(os.listdir(home))
    link = run.path / name
    link.parent.mkdir(exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.symlink_to(home)
    run.release()
    for write in (run.acquire, lambda: run.rewrite(FitState({}, {}, []))):
        with pytest.raises(InvalidRun, match="is a symbolic link") as error:
            write()
        assert "\n" not in str(error.value)
    assert not run.is_owned()
    run.remove_working_files()
    remove_temporary_files(link)
    assert sorted(os.listdir(home)) == before
    assert link.is_symlink()


def test_a_run_may_be_a_link(run, tmp_path):
    run.release()
    (tmp_path / "link").symlink_to(run.path)
    linked = RunDirectory(tmp_path / "link")
    leftovers = [_leftover(folder) for folder in (run.path, run.draws)]
    linked.acquire()
    assert run.is_owned()
    linked.rewrite(FitState({}, {0: chunk(0, 10)}, []))
    assert not any(path.exists() for path in leftovers)
    linked.release()
    assert not run.is_owned()


def test_files_that_are_links_are_replaced_not_followed(run, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("x")
    paths = (run.record, run.history_log, run.checkpoint / "chain-0000.safetensors")
    content = RunDirectory.read_json(run.record)
    for path in paths:
        path.unlink()
        path.symlink_to(precious)
    write_json(run.record, content)
    run.save_state(0, STATE)
    run.rewrite(FitState({0: STATE}, {}, [{"step": 1}]))
    assert precious.read_text() == "x"
    assert not any(path.is_symlink() for path in paths)


@pytest.mark.parametrize(
    "name",
    [".run.backup", ".run.a1b2c3d4", ".run.a1b2c3d4.bnn-symm-tmp.old", ".other.x.bnn-symm-tmp"],
)
def test_folders_beside_a_new_run_are_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "lock.json").write_text('{"host": "x"}')
    (tmp_path / name / "writer.lock").touch()
    new_run(tmp_path / "run").release()
    assert (tmp_path / name / "lock.json").exists()


def test_what_a_killed_process_left_before_its_run_had_a_name_is_removed(tmp_path):
    unborn = tmp_path / ".run.a1b2c3d4.bnn-symm-tmp"
    unborn.mkdir()
    (unborn / "writer.lock").touch()
    link = tmp_path / ".run.a1b2c3d5.bnn-symm-tmp"
    link.symlink_to(unborn)
    run = new_run(tmp_path / "run")
    assert not unborn.exists()
    assert link.is_symlink()
    assert run.is_owned()
    run.release()
    assert sorted(path.name for path in run.path.iterdir()) == [
        *("checkpoint", "config.yaml", "draws", "preprocessing.json", "run.json"),
    ]
