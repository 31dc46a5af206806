"""Which process a thing on disk belongs to, and whether that still lives."""

import socket
from typing import Any

import psutil

# Seconds by which two readings of when a process started may differ.
_SAME_START = 1.0


def this_process() -> dict[str, Any]:
    """Host, number and start of this process, by which `is_alive` knows it."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "start": process.create_time()}


def is_alive(host: str, pid: int, start: float) -> bool:
    """Whether that process lives; of one on another host, we believe that it does."""
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(pid)
        # A zombie is dead: only whoever started it has not asked for its exit status yet.
        return abs(process.create_time() - start) < _SAME_START and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
