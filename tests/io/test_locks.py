"""One writer per folder across processes, PID namespaces, clock changes and file systems."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import psutil
import pytest

from bnn_symm.errors import InvalidRun
from bnn_symm.io.locks import FolderInUse, FolderLock, LockWarning
from bnn_symm.io.owners import is_alive, process_record

# Acquire the lock of a folder, print whether that succeeded, and wait for the end of the input.
_HOLD = """
import sys
from pathlib import Path
from bnn_symm.errors import InvalidRun
from bnn_symm.io.locks import FolderLock
try:
    lock = FolderLock(Path(sys.argv[1]))
    lock.acquire()
    print("mine", flush=True)
except InvalidRun as error:
    print(error, flush=True)
sys.stdin.read()
lock.release()
"""
_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _holder(folder, *before):
    command = [*before, sys.executable, "-c", _HOLD, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def _end(process):
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_one_process_at_a_time(tmp_path):
    process, answer = _holder(tmp_path)
    assert answer == "mine"
    lock = FolderLock(tmp_path)
    assert lock.is_held()
    with pytest.raises(FolderInUse, match=f"process {process.pid} on"):
        lock.acquire()
    _end(process)
    assert not lock.is_held()
    assert list(tmp_path.iterdir()) == []
    lock.acquire()
    other, answer = _holder(tmp_path)
    assert f"is being written by process {os.getpid()} on" in answer
    _end(other)
    assert lock.is_held()
    lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [(), _NAMESPACE], ids=["here", "in another namespace"])
def test_a_killed_process_frees_its_lock_at_once(tmp_path, before):
    if before:
        _needs_namespaces()
    process, answer = _holder(tmp_path, *before)
    assert answer == "mine"
    writers = psutil.Process(process.pid).children() if before else [psutil.Process(process.pid)]
    for writer in writers:
        writer.kill()
    psutil.wait_procs(writers, timeout=60)
    _end(process)
    assert (tmp_path / "lock.json").exists()
    lock = FolderLock(tmp_path)
    assert not lock.is_held()
    lock.acquire()
    assert lock.owner()["pid"] == os.getpid()
    lock.release()


def _needs_namespaces():
    done = (
        subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
        if shutil.which("unshare")
        else None
    )
    if done is None or done.returncode:
        pytest.skip("this process may not make PID namespaces")


def test_two_pid_namespaces_cannot_both_write(tmp_path):
    """In each namespace the process has ID 1 or so, and cannot see the other."""
    _needs_namespaces()
    first, mine = _holder(tmp_path, *_NAMESPACE)
    second, refused = _holder(tmp_path, *_NAMESPACE)
    assert mine == "mine"
    assert "is being written by process 1 on" in refused
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path).acquire()
    for process in (first, second):
        _end(process)


@pytest.mark.parametrize(
    "changes",
    [
        {"start": 0.0},  # the clock was set
        {"start_ticks": 1},
        {"boot_id": "another", "host": "another"},
        {"pid": 4_000_000},
        {"pid_namespace": "pid:[1]"},
        None,  # no record
    ],
    ids=str,
)
def test_what_the_record_says_does_not_let_a_second_writer_in(tmp_path, changes):
    lock, record = FolderLock(tmp_path), tmp_path / "lock.json"
    lock.acquire()
    if changes is None:
        record.unlink()
    else:
        record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path).acquire()
    lock.release()


def test_a_lock_file_that_was_removed_leaves_the_record(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    (tmp_path / "writer.lock").unlink()
    with pytest.raises(FolderInUse, match=r"remove .*lock.json"):
        FolderLock(tmp_path).acquire()
    assert FolderLock(tmp_path).is_held()
    lock.release()
    assert not FolderLock(tmp_path).is_held()


def test_a_copy_of_a_folder_in_use_is_free(tmp_path):
    lock = FolderLock(tmp_path / "a")
    lock.folder.mkdir()
    lock.acquire()
    copy = FolderLock(shutil.copytree(tmp_path / "a", tmp_path / "b"))
    assert not copy.is_held()
    copy.acquire()
    copy.release()
    lock.release()


def test_a_folder_may_be_renamed_while_it_is_locked(tmp_path):
    lock = FolderLock(tmp_path / "a")
    lock.folder.mkdir()
    lock.acquire()
    (tmp_path / "a").rename(tmp_path / "b")
    lock.folder = tmp_path / "b"
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path / "b").acquire()
    lock.release()
    assert list((tmp_path / "b").iterdir()) == []


def test_readers_do_not_stand_in_the_way(tmp_path):
    lock = FolderLock(tmp_path)
    for _ in range(20):
        assert not lock.is_held()
        lock.acquire()
        assert FolderLock(tmp_path).is_held()
        lock.release()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("x")
    (tmp_path / "run" / "writer.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InvalidRun, match="cannot be written"):
        FolderLock(tmp_path / "run").acquire()
    assert (tmp_path / "precious").read_text() == "x"


def test_a_forked_process_neither_holds_nor_frees_the_lock(tmp_path):
    """A child that outlives its parent does not hold the lock either."""
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        lock = FolderLock(tmp_path)
        lock.acquire()
        child = os.fork()
        if child == 0:
            lock.release()  # the child does not own the inherited lock
            signal.pause()
        os.write(writing, str(child).encode())
        signal.pause()
    child = int(os.read(reading, 20))
    try:
        assert FolderLock(tmp_path).is_held()
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert psutil.pid_exists(child)
        assert not FolderLock(tmp_path).is_held()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def _sleep(started):
    started.set()
    signal.pause()


def test_a_spawned_process_does_not_keep_the_lock(tmp_path):
    lock = FolderLock(tmp_path)
    lock.acquire()
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_sleep, args=(started,))
    process.start()
    assert started.wait(60)
    lock.release()
    other = FolderLock(tmp_path)
    other.acquire()
    other.release()
    process.kill()
    process.join()


def test_a_file_system_that_cannot_lock(tmp_path, monkeypatch):
    """The record decides, with a warning; the system call is made to fail."""
    import fcntl

    def flock(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    with pytest.warns(LockWarning, match="cannot lock"):
        lock.acquire()
    assert lock.owner()["os_lock"] is False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LockWarning)
        with pytest.raises(FolderInUse):
            FolderLock(tmp_path).acquire()
        assert FolderLock(tmp_path).is_held()
        lock.release()
        assert not FolderLock(tmp_path).is_held()


# -- records


def test_this_process_lives():
    record = process_record()
    assert is_alive(record)
    assert is_alive({**record, "start": record["start"] + 3600})  # the clock was set
    assert is_alive(
        {key: record[key] for key in ("host", "pid", "start")}
    )  # as written by earlier versions


@pytest.mark.parametrize(
    ("changes", "alive"),
    [
        ({"start_ticks": 1}, False),
        ({"pid": 4_190_000}, False),
        ({"boot_id": "another"}, False),  # of this machine, before it was started again
        ({"boot_id": "another", "host": "elsewhere"}, True),  # another machine
        ({"host": "elsewhere"}, True),  # a container of this machine: the same process
        ({"pid_namespace": "pid:[1]"}, True),  # not visible from here
        ({"boot_id": None, "start": 0}, False),
        ({"boot_id": None, "host": "elsewhere"}, True),
        ({"pid": "one"}, False),
        ({"start_ticks": "x"}, False),
        ({"pid": -1}, False),
        ({"pid": 10**30, "boot_id": None}, False),
        ({"host": None, "boot_id": None}, True),
    ],
    ids=str,
)
def test_records_of_others(changes, alive):
    if "boot_id" not in process_record():
        pytest.skip("this system has no /proc")
    assert is_alive({**process_record(), **changes}) is alive


def test_a_zombie_is_dead():
    if "boot_id" not in process_record():
        pytest.skip("this system has no /proc")
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    record = {
        **process_record(),
        "pid": process.pid,
        "start": psutil.Process(process.pid).create_time(),
    }
    record |= {"start_ticks": ticks}
    assert is_alive(record)
    process.stdin.close()
    psutil.wait_procs([psutil.Process(process.pid)], timeout=0)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert not is_alive(record)
    assert not is_alive({key: record[key] for key in ("host", "pid", "start")})
    process.wait()
