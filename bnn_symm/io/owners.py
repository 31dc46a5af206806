"""Identity of the process that owns a file, and whether that process is alive.

A process is identified by the boot ID of its machine, its PID namespace, its process ID, and its
start time in clock ticks since the boot. These do not depend on the clock and differ between
containers. On systems without `/proc` it is identified by host, process ID and start time.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

# Seconds by which two measurements of the start time of a process may differ.
_SAME_START = 1.0
_DEAD = {"Z", "X", "x"}  # states of ended processes, including zombies


def process_record() -> dict[str, Any]:
    """Return a record of this process as plain data, for `is_alive`.

    `host`, `pid` and `start` are always present; `boot_id`, `pid_namespace` and `start_ticks` where
    the system provides them.
    """
    process = psutil.Process()
    record: dict[str, Any] = {
        "host": socket.gethostname(),
        "pid": process.pid,
        "start": process.create_time(),
    }
    boot_id, namespace = current_boot_id(), _pid_namespace()
    if boot_id is not None:
        record["boot_id"] = boot_id
        if namespace is not None and (status := _state_and_ticks(process.pid)) is not None:
            record |= {"pid_namespace": namespace, "start_ticks": status[1]}
    return record


def is_alive(record: Mapping[str, Any]) -> bool:
    """Return whether the process of a record is alive.

    A process that is not visible from here is assumed to be alive.

    Args:
        record: result of `process_record`, also of an older version; a damaged record has no
            process.
    """
    try:
        host, pid, start = str(record["host"]), int(record["pid"]), float(record["start"])
        ticks = int(record["start_ticks"]) if "start_ticks" in record else None
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    local_boot_id, boot_id = current_boot_id(), record.get("boot_id")
    if local_boot_id is None or boot_id is None:
        return host != socket.gethostname() or _is_running_since(pid, start)
    if boot_id != local_boot_id:
        return host != socket.gethostname()  # a process of this machine from before its last boot
    namespace = _pid_namespace()
    if ticks is None or namespace is None or record.get("pid_namespace") != namespace:
        return True
    status = _state_and_ticks(pid)
    return status is not None and status[0] not in _DEAD and status[1] == ticks


def is_current_boot(record: Mapping[str, Any]) -> bool:
    """Return whether a process ran on this machine since its last boot.

    Args:
        record: result of `process_record`.
    """
    boot_id = current_boot_id()
    return boot_id is not None and record.get("boot_id") == boot_id


def current_boot_id() -> str | None:
    """Return the ID of the last boot of this machine, or None if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    """Return the PID namespace of this process.

    None if `/proc` is missing or belongs to another namespace.
    """
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _state_and_ticks(pid: int) -> tuple[str, int] | None:
    """Return the state of a process and its start in ticks since the boot.

    None if there is no such process.
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = content.rpartition(")")[2].split()  # the name before it may contain any character
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
