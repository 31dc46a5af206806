"""Which process a thing on disk belongs to, and whether that process still lives.

A process is known by the boot of its machine, its PID namespace, its number, and when it started,
counted in clock ticks since the boot: none of them changes when the clock is set, and none is
shared with a process in another container. Where the system has no `/proc`, it is known by host,
number and time of start.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

# Seconds by which two readings of when a process started may differ.
_SAME_START = 1.0
_DEAD = {
    "Z",
    "X",
    "x",
}  # states of processes that have ended, whether or not their parent has asked


def this_process() -> dict[str, Any]:
    """Return the record of this process, plain data, by which `is_alive` knows it.

    `host`, `pid` and `start` are always there; `boot_id`, `pid_namespace` and `start_ticks` where
    the system has them.
    """
    process = psutil.Process()
    record: dict[str, Any] = {
        "host": socket.gethostname(),
        "pid": process.pid,
        "start": process.create_time(),
    }
    boot_id, namespace = this_boot(), _pid_namespace()
    if boot_id is not None:
        record["boot_id"] = boot_id
        if namespace is not None and (found := _state_and_ticks(process.pid)) is not None:
            record |= {"pid_namespace": namespace, "start_ticks": found[1]}
    return record


def is_alive(record: Mapping[str, Any]) -> bool:
    """Return whether a process lives; one that cannot be seen from here is believed to.

    Args:
        record: of `this_process`, of this or of an older version; one that is damaged is nobody's.
    """
    try:
        host, pid, start = str(record["host"]), int(record["pid"]), float(record["start"])
        ticks = int(record["start_ticks"]) if "start_ticks" in record else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    here, boot_id = this_boot(), record.get("boot_id")
    if here is None or boot_id is None:
        return host != socket.gethostname() or _is_running_since(pid, start)
    if boot_id != here:
        return host != socket.gethostname()  # on this machine, it was started before the last boot
    namespace = _pid_namespace()
    if ticks is None or namespace is None or record.get("pid_namespace") != namespace:
        return True
    found = _state_and_ticks(pid)
    return found is not None and found[0] not in _DEAD and found[1] == ticks


def is_of_this_boot(record: Mapping[str, Any]) -> bool:
    """Return whether a process ran on this machine since its last boot, so that one kernel knows it
    and this one.
    """
    boot_id = this_boot()
    return boot_id is not None and record.get("boot_id") == boot_id


def this_boot() -> str | None:
    """Return the identity of the last boot of this machine; None where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    """The PID namespace of this process; None if `/proc` is not there or is that of another
    namespace.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _state_and_ticks(pid: int) -> tuple[str, int] | None:
    """State of a process and when it started, in ticks since the boot; None if there is none of
    that number.
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = content.rpartition(")")[2].split()  # the name before it may hold anything
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_running_since(pid: int, start: float) -> bool:
    try:
        process = psutil.Process(pid)
        return (
            abs(process.create_time() - start) < _SAME_START
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.Error, ValueError, OverflowError):
        return False
